"""What a person can say wrong to adopt, before any machine is asked anything."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from firstboot.errors import UserError
from k3s_bake.cli.app import cli

pytestmark = pytest.mark.unit

Refused = Callable[..., UserError]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path / "home"))

    def run(*words: str) -> UserError:
        found = CliRunner().invoke(cli, ["adopt", *words]).exception
        assert isinstance(found, UserError), found
        assert found.exit_code == 2
        return found

    return run


def test_nobody_and_the_same_twice(refused: Refused) -> None:
    assert refused().message == "which machines?"
    twice = refused("--master", "pi@10.0.0.2", "--worker", "root@10.0.0.2")
    assert twice.message == "10.0.0.2 is named more than once"


@pytest.mark.parametrize("choice", ["banana", "./nofile", "v9"])
def test_what_is_no_k3s(refused: Refused, choice: str) -> None:
    assert "is no K3s version, channel or file" in refused("--master", "pi@10.0.0.2", "--k3s", choice).message


def test_a_mistyped_cluster_is_not_made_for_workers_alone(refused: Refused, tmp_path: Path) -> None:
    found = refused("--worker", "pi@10.0.0.3", "--cluster", "hmoe")
    assert "no cluster 'hmoe' is known here" in found.message
    assert not (tmp_path / "home/data/clusters").exists()


def test_a_page_takes_no_other_files_place(refused: Refused, tmp_path: Path) -> None:
    mine = tmp_path / "cluster.toml"
    mine.write_text('[cluster]\nname = "home"\n')
    for page in (mine, tmp_path, tmp_path / "nowhere/page.html"):
        assert refused("--master", "pi@10.0.0.2", "--report", str(page)).hint.startswith("--report names")
    assert mine.read_text().startswith("[cluster]")


def test_what_nodes_cannot_fetch_themselves(refused: Refused, tmp_path: Path) -> None:
    mine = tmp_path / "k3s"
    mine.write_text("#!/bin/sh\n")
    found = refused("--master", "pi@10.0.0.2", "--fetch", "node", "--k3s", str(mine))
    assert "it is a file of this machine" in found.message
    assert found.hint.startswith("Leave out --fetch node")
    assert "--offline" in refused("--master", "pi@10.0.0.2", "--fetch", "node", "--offline").message


def test_through_what_is_no_jump_host(refused: Refused, tmp_path: Path) -> None:
    assert "'a b' is no node to log in to" in refused("--master", "pi@10.0.0.2", "--jump", "a b").message
    file = tmp_path / "cluster.toml"
    file.write_text('[[node]]\nrole = "worker"\nhost = "10.0.0.3"\njump = "-x"\n')
    assert "'-x' is no node to log in to" in refused("--file", str(file)).message
