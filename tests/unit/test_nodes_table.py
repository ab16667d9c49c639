"""The table of nodes: what a person sees of what was heard, and what a watch makes of round after round."""

import dataclasses

import pytest
from rich.console import Console

from firstboot.contract import REASONS, Announcement
from k3s_bake.nodes_table import FORGOTTEN, Seen, age, remedies, table

pytestmark = pytest.mark.unit

NOW = 1_700_000_000.0
MASTER = Announcement(
    "home", "master", "m", "joined", addr="10.0.0.2", k3s="v1.33.1+k3s1", since=int(NOW) - 7200, conf="12.5"
)
WAITING = Announcement("home", "worker", "a", "searching", reason="no-master", addr="10.0.0.3", serial="5e7")


def text(*nodes: Announcement) -> list[str]:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(table(nodes, NOW))
    return captured.get().splitlines()


def test_masters_come_first_and_a_cell_says_what_it_means() -> None:
    head, first, second = text(WAITING, MASTER)
    assert head.split() == [
        "name", "role", "phase", "reason", "address", "serial", "K3s", "since", "configured", "installed",
    ]  # fmt: skip
    assert first.split() == ["m", "master", "joined", "10.0.0.2", "v1.33.1+k3s1", "2", "h", "12.5", "s"]
    assert second.split() == ["a", "worker", "searching", "no-master", "10.0.0.3", "5e7"]


def test_several_clusters_are_told_apart() -> None:
    head, *rows = text(MASTER, dataclasses.replace(WAITING, cluster="barn"))
    assert head.startswith("cluster")
    assert [row.split()[0] for row in rows] == ["barn", "home"]


def test_a_copied_card_shows_as_two_boards() -> None:
    assert len(text(WAITING, dataclasses.replace(WAITING, serial="5e8"))) == 3


@pytest.mark.parametrize(
    ("ago", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86400 * 3, "3 d"),
     (-30, "0 s"), (-3600, "")],
)  # fmt: skip
def test_ages_are_for_people(ago: int, said: str) -> None:
    assert age(int(NOW) - ago, NOW) == said


def test_an_unknown_moment_has_no_age() -> None:
    assert age(0, NOW) == ""


def test_each_reason_has_its_remedy_once_with_its_nodes() -> None:
    other = dataclasses.replace(WAITING, name="b")
    blocked = dataclasses.replace(WAITING, name="c", phase="blocked", reason="armv6")
    assert remedies([blocked, other, WAITING, MASTER]) == [
        f"no-master (a, b): {REASONS['no-master']}",
        f"armv6 (c): {REASONS['armv6']}",
    ]


def test_a_watch_tells_each_change_once() -> None:
    seen = Seen()
    assert seen.update([MASTER, WAITING], 0) == [("new", MASTER), ("new", WAITING)]
    assert seen.update([MASTER, WAITING], 4) == []
    joined = dataclasses.replace(WAITING, phase="joined", reason="")
    assert seen.update([joined], 8) == [("changed", joined)]
    assert seen.nodes() == [MASTER, joined]


def test_a_watch_forgets_only_after_some_rounds_of_silence() -> None:
    seen = Seen()
    seen.update([MASTER], 0)
    assert seen.update([], FORGOTTEN) == []
    assert seen.update([], FORGOTTEN + 1) == [("gone", MASTER)]
    assert seen.nodes() == []
    assert seen.update([MASTER], FORGOTTEN + 5) == [("new", MASTER)]
