from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import status
from firstboot.contract import STATE, STATUS, STATUS_BYTES, Announcement
from firstboot.join import Memory
from firstboot.tree import FolderTree

pytestmark = pytest.mark.unit

SAID = Announcement(
    "home", "worker", "home-a1b2c3", "blocked", "name-taken", "10.0.0.7", "10000000a1b2c3", "v1.34.9", 86400
)  # fmt: skip


def test_a_person_reads_what_to_do() -> None:
    text = status.text_of(SAID, "https://10.0.0.2:6443")
    assert text.startswith("home-a1b2c3, a worker of the cluster home\n")
    assert "blocked (name-taken)" in text
    assert "k3s-bake release NAME" in text
    assert "1970-01-02 00:00:00 UTC" in text
    assert "https://10.0.0.2:6443" in text
    assert "configuration" not in text
    joined = replace(SAID, phase="joined", reason="", conf="12.3", inst="40.0")
    assert "configuration  12.3 s\n" in status.text_of(joined, "")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    (tmp_path / "boot").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "boot" / STATUS).write_bytes(b" " * (STATUS_BYTES - 1) + b"\n")
    (tmp_path / "etc/issue").write_text("Raspbian GNU/Linux 10 \\n \\l\n\n")
    return tmp_path


def test_it_is_left_on_the_card_in_the_same_place(card: Path) -> None:
    place = card / "boot" / STATUS
    before = place.stat().st_ino
    assert status.tell(str(card), "/boot", STATUS, SAID, "") == []
    assert (place.stat().st_ino, place.stat().st_size) == (before, STATUS_BYTES)
    assert status.tell(str(card), "/boot", STATUS, replace(SAID, phase="joined", reason=""), "") == []
    text = place.read_text()
    assert "joined" in text
    assert "blocked" not in text
    assert len(text) == STATUS_BYTES


def test_the_login_banner_has_it_once(card: Path) -> None:
    for phase in ("searching", "asking", "asking"):
        status.tell(str(card), "/boot", STATUS, replace(SAID, phase=phase, reason=""), "")
    issue = (card / "etc/issue").read_text()
    assert issue.startswith("Raspbian GNU/Linux 10 \\n \\l\n")
    assert issue.count("k3s-bake: home-a1b2c3, a worker of the cluster home\n") == 1
    assert "asking" in issue
    assert "searching" not in issue


def test_a_card_that_cannot_be_written_is_told_and_no_more(card: Path) -> None:
    (card / "boot" / STATUS).unlink()
    (card / "boot" / STATUS).mkdir()
    (card / "etc/issue").unlink()
    (card / "etc/issue").mkdir()
    failures = status.tell(str(card), "/boot", STATUS, SAID, "")
    assert len(failures) == 2
    assert failures[0].startswith("/boot/k3s-bake-status.txt: ")


@given(st.text(), st.text())
def test_any_banner_stays_and_ours_is_replaced(issue: str, text: str) -> None:
    once = status.banner(issue, text)
    assert status.banner(once, text) == once
    theirs = [line for line in issue.splitlines() if line.strip() and not line.startswith("k3s-bake: ")]
    kept = [line for line in once.splitlines() if line.strip() and not line.startswith("k3s-bake: ")]
    assert kept == theirs


def test_the_console_line() -> None:
    assert status.line_of("home-1", "joined", "") == "k3s-bake: home-1: joined"
    assert status.line_of("", "blocked", "armv6") == "k3s-bake: ?: blocked (armv6)"


def test_a_node_remembers(tmp_path: Path) -> None:
    memory = Memory(
        "home-1", "joined", "", 7, "1.0", "2.0", "10.0.0.2", "https://10.0.0.2:6443", "a" * 64, True
    )
    FolderTree(str(tmp_path)).apply([status.memory_file(memory)])
    assert status.remembered(str(tmp_path)) == memory


@pytest.mark.parametrize(
    "garbled",
    [
        b"",
        b"\0" * 300,
        b"[]",
        b"{",
        b"{}",
        b"[" * 100_000,
        b'{"name": "home-1"}',
    ],
)
def test_what_a_power_cut_leaves_counts_as_nothing(tmp_path: Path, garbled: bytes) -> None:
    path = tmp_path / STATE.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_bytes(garbled)
    assert status.remembered(str(tmp_path)) == Memory()


@pytest.mark.parametrize(
    "wrong",
    [{"phase": "flying"}, {"reason": "x"}, {"name": "../x"}, {"address": "x"}, {"joined": 1}, {"since": "1"}],
)
def test_a_memory_of_nonsense_counts_as_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    FolderTree(str(tmp_path)).apply([status.memory_file(replace(Memory(), **wrong))])
    assert status.remembered(str(tmp_path)) == Memory()
