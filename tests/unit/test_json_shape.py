"""Commands that act on nodes answer in one shape, and the docs say which."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_reset import Cluster

from firstboot.errors import WorkFailed
from k3s_bake import ssh
from k3s_bake.cli.app import cli
from k3s_bake.login import Login

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parent.parent.parent / "docs/adopting.md"
COMMON = ["name", "role", "login", "address", "phase", "reason", "error", "hint", "code", "ready"]
COMMANDS = {
    "adopt": ("--master", "a", "--worker", "b"),
    "preflight": ("--master", "a", "--worker", "b"),
    "upgrade": ("--master", "a", "--worker", "b", "--k3s", "v1.34.9+k3s1"),
    "remove": ("a", "b", "--master", "m1"),
    "undo": ("a", "b"),
    "reset": ("a", "b", "--master", "m1"),
}


def documented(command: str) -> list[str]:
    """The keys that the table has for it."""
    own = "adopt" if command in ("preflight", "upgrade") else command
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (all|`[a-z`, ]+`) \|", DOCS.read_text(), re.MULTILINE)
    return [key for keys, whose in rows if f"`{own}`" in whose or whose == "all" for key in words(keys)]


def words(keys: str) -> list[str]:
    return re.findall(r"`([a-z_]+)`", keys)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path / "home"))

    def run(*words: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(cli, [*words, "--json"])
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_machines_that_cannot_be_reached_are_told_in_one_shape(
    run: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    async def opened(login: object, *_: object, **__: object) -> Any:
        raise WorkFailed("SSH does not answer", "Is it on?")

    monkeypatch.setattr(ssh, "opened", opened)
    found = run(command, *COMMANDS[command])
    assert [one["login"] for one in found] == ["a", "b"]
    for one in found:
        assert list(one)[: len(COMMON)] == COMMON
        assert set(one) == set(documented(command))
        texts = ("name", "login", "address", "phase", "reason", "error", "hint")
        assert all(isinstance(one[key], str) for key in texts)
        assert one["error"].endswith("SSH does not answer")
        assert (one["phase"], one["hint"], one["code"], one["ready"]) == ("failed", "Is it on?", 1, None)


@pytest.mark.parametrize("command", ["remove", "undo", "reset"])
def test_it_is_the_same_shape_where_all_is_well(
    run: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    Cluster(monkeypatch)
    found = run(command, "w2", "w1", *COMMANDS[command][2:])
    assert [(one["login"], one["name"], one["role"]) for one in found] == [
        ("w2", "w2", "worker"),
        ("w1", "w1", "worker"),
    ]
    for one in found:
        assert list(one)[: len(COMMON)] == COMMON
        assert set(one) == set(documented(command))
        assert (one["address"], one["error"], one["hint"], one["code"]) == ("10.0.0.9", "", "", 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_who_was_interrupted_says_so_in_the_same_shape(
    run: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    Cluster(monkeypatch)
    answer = ssh.opened

    async def opened(login: Login, *words: Any, **more: Any) -> Any:
        if login.host == "b":
            raise KeyboardInterrupt
        if login.host == "a":
            raise WorkFailed("SSH does not answer", "Is it on?")
        return await answer(login, *words, **more)

    monkeypatch.setattr(ssh, "opened", opened)
    _, cut = run(command, *COMMANDS[command])
    assert set(cut) == set(documented(command))
    assert (cut["phase"], cut["error"], cut["code"]) == ("connecting", "interrupted: connecting", 130)
