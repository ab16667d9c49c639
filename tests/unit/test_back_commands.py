"""What a person can say wrong to undo, remove and reset, before any machine is asked anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from test_reset import Cluster

from bake import cluster_file
from firstboot.errors import UserError, WorkFailed
from k3s_bake import ssh
from k3s_bake.chosen import Chosen, chosen
from k3s_bake.cli import leaving
from k3s_bake.cli.app import cli
from k3s_bake.login import Login

pytestmark = pytest.mark.unit

Run = Callable[..., Result]

FILE = """
[cluster]
name = "home"
user = "pi"
datastore = "etcd"
[[node]]
name = "m1"
role = "master"
host = "10.0.0.2"
[[node]]
name = "m2"
role = "master"
join = true
host = "10.0.0.3"
[[node]]
name = "w1"
role = "worker"
host = "10.0.0.4"
[[node]]
name = "w2"
role = "worker"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Where no machine is to be had."""

    async def opened(login: object, *_: object, **__: object) -> Any:
        raise WorkFailed("SSH does not answer", "Is it on?")

    monkeypatch.setattr(ssh, "opened", opened)
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path / "home"))
    return lambda *words: CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def refused(run: Run) -> Callable[..., str]:
    def refused(*words: object) -> str:
        found = run(*words).exception
        assert isinstance(found, UserError), found
        assert found.exit_code == 2
        return found.message

    return refused


@pytest.mark.parametrize("command", ["undo", "remove", "reset"])
def test_nobody_strangers_and_the_same_twice(
    command: str, refused: Callable[..., str], file: Path, tmp_path: Path
) -> None:
    assert refused(command) == "which machines?"
    assert "is no node to log in to" in refused(command, "pi@")
    assert refused(command, "pi@10.0.0.4", "root@10.0.0.4") == "10.0.0.4 is named more than once"
    assert refused(command, "--file", file, "w3") == "the cluster file has no node w3 with a host"
    assert refused(command, "--file", file, "w2") == "the cluster file has no node w2 with a host"
    assert refused(command, "--file", file, "root@10.0.0.4").startswith("the cluster file has no node root@")
    assert refused(command, "--file", file, "w1", "10.0.0.4") == "10.0.0.4 is named more than once"


@pytest.mark.parametrize("command", ["remove", "reset"])
def test_all_of_a_file_is_said_aloud(command: str, refused: Callable[..., str], file: Path) -> None:
    assert refused(command, "--file", file) == "which machines?"
    assert refused(command, "--file", file, "--all", "w1") == "--all is for every node of --file"
    assert refused(command, "--all", "pi@10.0.0.4") == "--all is for every node of --file"
    assert "as the master that stays" in refused(command, "--file", file, "m1", "--master", "10.0.0.2")


def test_nobody_is_there_to_be_asked(refused: Callable[..., str], file: Path) -> None:
    assert "nobody is there to be asked" in refused("undo", "--file", file)


def test_a_removal_needs_a_master_that_stays(refused: Callable[..., str], file: Path) -> None:
    assert refused("remove", "pi@10.0.0.4") == "which master forgets them?"
    assert refused("remove", "--file", file, "--all") == "which master forgets them?"


def hosts(found: Chosen) -> tuple[list[str], str | None]:
    return [str(one.login) for one in found.nodes], str(found.keeper) if found.keeper else None


def test_who_is_chosen_and_who_stays(file: Path) -> None:
    loaded = cluster_file.load(file)
    assert hosts(chosen(["w1"], loaded)) == (["pi@10.0.0.4"], "pi@10.0.0.2")
    assert hosts(chosen(["10.0.0.2"], loaded)) == (["pi@10.0.0.2"], "pi@10.0.0.3")
    assert hosts(chosen(["m1", "pi@10.0.0.3"], loaded)) == (["pi@10.0.0.2", "pi@10.0.0.3"], None)
    assert hosts(chosen(["m1"], loaded, master="root@10.0.0.9"))[1] == "root@10.0.0.9"
    assert hosts(chosen([], loaded, every=True, master="m2")) == (
        ["pi@10.0.0.2", "pi@10.0.0.4"],
        "pi@10.0.0.3",
    )
    assert hosts(chosen(["pi@10.0.0.4", "a"], None)) == (["pi@10.0.0.4", "a"], None)


def test_ports_of_one_host_are_machines_of_their_own() -> None:
    found = chosen(["pi@gate:2202"], None, master="pi@gate:2201")
    assert hosts(found) == (["pi@gate:2202"], "pi@gate:2201")


def test_through_whom_they_are_reached(file: Path) -> None:
    file.write_text(file.read_text().replace("[cluster]", "[cluster]\njump = 'gate'", 1))
    loaded = cluster_file.load(file)
    gate, other = (Login("gate"),), (Login("other", "pi"),)
    found = chosen(["w1"], loaded)
    assert [one.login.jump for one in found.nodes] == [gate]
    assert found.keeper
    assert found.keeper.jump == gate
    away = chosen(["w1"], loaded, master="root@10.0.0.9", jump="pi@other")
    assert [one.login.jump for one in away.nodes] == [other]
    assert away.keeper
    assert away.keeper.jump == other
    assert chosen(["pi@a"], None, jump="pi@other").nodes[0].login.jump == other


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("remove", "a", "b", "--master", "pi@c"), "pi@c: SSH does not answer"),
        (("undo", "a", "b"), "SSH does not answer"),
        (("reset", "a", "b", "--master", "c"), "SSH does not answer"),
    ],
)
def test_what_cannot_be_reached_is_json_for_each(run: Run, words: tuple[str, ...], told: str) -> None:
    done = run(*words, "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert [one["login"] for one in found] == ["a", "b"]
    assert {(one["error"], one["hint"], one["code"], one["role"]) for one in found} == {
        (told, "Is it on?", 1, None)
    }
    assert done.stderr == ""
    plain = run(*words)
    assert plain.exit_code == 1
    assert f"a: {told}\n    Is it on?" in plain.stdout
    assert "a: failed" in plain.stderr


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"drained": True, "pods_left": [], "why_left": ""}, ""),
        ({"drained": None, "pods_left": [], "why_left": ""}, ""),
        (
            {"drained": False, "pods_left": [], "why_left": "The connection was refused"},
            "not all of its pods could be moved first: The connection was refused",
        ),
        (
            {"drained": False, "pods_left": ["a/b"], "why_left": "they did not end within 60 s"},
            "1 pod stayed, and ended with it: they did not end within 60 s: a/b",
        ),
        (
            {"drained": False, "pods_left": ["a/b", "a/c", "a/d", "a/e", "a/f"], "why_left": "why"},
            "5 pods stayed, and ended with it: why: a/b, a/c, a/d and 2 more",
        ),
    ],
)
def test_pods_that_stayed_are_named_in_a_line(answer: dict[str, Any], told: str) -> None:
    assert leaving.pods(answer).strip() == told


@pytest.mark.parametrize(
    ("command", "verb", "hint", "untouched"),
    [
        (("undo",), "look", "Nothing was changed there.", True),
        (("undo",), "undo", "It may be going on with that. Run it again.", False),
        (("remove", "--master", "m1"), "look", "Nothing was changed there.", True),
        (("remove", "--master", "m1"), "drain", "It takes no new pods, and some may have gone.", False),
        (("remove", "--master", "m1"), "leave", "It may be off by now, and its cluster may list", False),
        (("reset", "--master", "m1"), "drain", "It takes no new pods, and some may have gone.", False),
        (("reset", "--master", "m1"), "reset", "It may be off by now, and its cluster may list", False),
        (("reset", "--master", "m1"), "state", "It is reset, and goes on joining by itself.", False),
    ],
)
def test_ctrl_c_says_what_is_true_of_each_and_of_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    verb: str,
    hint: str,
    untouched: bool,
) -> None:
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path / "home"))
    cluster = Cluster(monkeypatch)
    for name in ("m1", "w1"):
        call = cluster.of(name).call

        async def cut(asked: str, call: Any = call, name: str = name, **values: Any) -> dict[str, Any]:
            if (asked, name) in ((verb, "w1"), ("drain", "m1")) and asked == verb:
                raise KeyboardInterrupt
            found: dict[str, Any] = await call(asked, **values)
            if asked == "state":
                found["phase"] = "asking"
            return found

        monkeypatch.setattr(cluster.of(name), "call", cut)
    done = CliRunner().invoke(cli, [command[0], "w1", *command[1:], "--json"])
    assert isinstance(done.exception, UserError), done.output
    assert (done.exception.message, done.exception.exit_code) == ("interrupted", 130)
    assert (done.exception.hint == "Nothing was changed.") is untouched
    assert "download" not in done.exception.hint
    (answer,) = json.loads(done.stdout)
    assert answer["error"].startswith("interrupted: ")
    assert answer["hint"].startswith(hint)
    assert answer["code"] == 130
