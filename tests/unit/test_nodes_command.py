"""k3s-bake nodes, with what is heard made up."""

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from firstboot import mdns
from firstboot.contract import REASONS, Announcement
from firstboot.errors import UserError
from k3s_bake.cli.nodes import nodes

pytestmark = pytest.mark.unit

MASTER = Announcement("home", "master", "m", "joined", addr="10.0.0.2")
WORKER = Announcement("barn", "worker", "w", "blocked", reason="armv6", addr="10.0.0.3")

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*rounds: list[Announcement], args: str = "") -> Result:
        """The last of the rounds is interrupted, as by Ctrl-C."""
        left = list(rounds)

        def browse(seconds: float) -> list[Announcement]:
            if not left:
                raise KeyboardInterrupt
            return left.pop(0)

        monkeypatch.setattr(mdns, "browse", browse)
        monkeypatch.setattr(mdns, "lan_addresses", lambda: ["10.0.0.9"])
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        return CliRunner().invoke(nodes, args.split(), env={"COLUMNS": "150"})

    return run


def test_the_table_is_followed_by_remedies(run: Run) -> None:
    done = run([MASTER, WORKER])
    assert done.exit_code == 0
    assert "10.0.0.2" in done.output
    assert f"armv6 (w): {REASONS['armv6']}" in done.output


def test_json_is_a_list_and_other_clusters_are_left_out(run: Run) -> None:
    done = run([MASTER, WORKER], args="--json --cluster home")
    assert [node["name"] for node in json.loads(done.output)] == ["m"]
    assert done.exit_code == 0


def test_silence_fails_and_says_what_to_check(run: Run) -> None:
    done = run([WORKER], args="--cluster home --seconds 2")
    assert isinstance(done.exception, UserError)
    assert done.exception.exit_code == 1
    assert done.exception.message == "no node of cluster home was heard within 2 seconds"
    assert "UDP 5353" in done.exception.hint
    silent = run([], args="--json")
    assert (silent.exit_code, json.loads(silent.output)) == (1, [])


def test_without_a_network_nothing_is_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run([MASTER])
    monkeypatch.setattr(mdns, "lan_addresses", list)
    done = CliRunner().invoke(nodes, [])
    assert isinstance(done.exception, UserError)
    assert done.exception.exit_code == 2


def test_a_watch_for_programs_is_a_line_a_change_until_interrupted(run: Run) -> None:
    done = run([MASTER], [MASTER], [MASTER, WORKER], args="--watch --json")
    assert [json.loads(line)["node"]["name"] for line in done.output.splitlines()] == ["m", "w"]
    assert done.exit_code == 0


def test_a_watch_for_people_ends_with_what_was_heard(run: Run) -> None:
    done = run([], [WORKER], [MASTER, WORKER], args="--watch")
    assert done.exit_code == 0
    assert "10.0.0.2" in done.output
    assert REASONS["armv6"] in done.output
