"""The node's end of an adoption, without a node: what comes in, what goes out."""

import errno
import hashlib
import io
import os
import threading
import zlib
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from firstboot import clock, kubernetes, leave, machine, remote, wire
from firstboot.arriving import PIECE
from firstboot.contract import CONFIG, NodeConfig
from firstboot.edits import Place, Write, to_json
from firstboot.kubernetes import Drained
from firstboot.remote import PARTS, Session

pytestmark = pytest.mark.unit

BYTES = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "facts", lambda root: {"machine": "armv7l"})
    monkeypatch.setattr(remote, "run", lambda command, **_: (1 if "false" in command else 0, b"", "no\n"))
    return tmp_path


def ask(root: Path, stdin: bytes = b"", **request: Any) -> Dict[str, Any]:
    session = Session(str(root), io.BytesIO(stdin))
    session._tree._keeps_owners = False
    return session.answer(request)


def test_messages_survive_the_wire() -> None:
    data = {"verb": "x", "text": "ä\udc80", "list": [1, None, 2.5]}
    stream = io.BytesIO(wire.packed(data) + wire.packed({}))
    assert wire.receive(stream) == data
    assert wire.receive(stream) == {}
    assert wire.receive(stream) is None


def test_a_look(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/os-release").write_bytes(b"ID=raspbian\xff\n")
    (root / "etc/link").symlink_to("x")
    found = ask(
        root, verb="look", probes=[["/etc/os-release", "content"], ["/etc/link", "content"], ["/a", "head"]]
    )
    assert found["machine"] == {"machine": "armv7l"}
    assert found["nodes"]["/etc/link"] == {"kind": "Symlink", "target": "x"}
    assert found["nodes"]["/etc/os-release"]["content"] == "ID=raspbian\udcff\n"
    assert "/a" not in found["nodes"]


def test_a_large_file_goes_on_where_it_was_cut(root: Path) -> None:
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES)}
    assert ask(root, **put, offset=-1) == {"offset": 0}
    cut = ask(root, BYTES[:1000], **put, offset=0)
    assert "cut" in cut["error"]
    assert ask(root, **put, offset=-1) == {"offset": 1000}
    assert ask(root, BYTES[1000:], **put, offset=1000) == {}
    assert (root / PARTS[1:] / SHA256).read_bytes() == BYTES


def test_a_large_file_in_pieces_of_which_some_are_compressed(root: Path) -> None:
    packed = zlib.compress(BYTES[:1000])
    first = PIECE.pack(1000, len(packed)) + packed
    second = PIECE.pack(len(BYTES) - 1000, len(BYTES) - 1000) + BYTES[1000:]
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES), "packed": True}
    for cut in (first + second[:5], first + second[:-1]):
        assert "cut" in ask(root, cut, **put, offset=0)["error"]
        assert ask(root, **put, offset=-1) == {"offset": 1000}
    assert ask(root, second, **put, offset=1000) == {}
    assert (root / PARTS[1:] / SHA256).read_bytes() == BYTES


def test_a_damaged_file_is_refused_and_forgotten(root: Path) -> None:
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES)}
    assert "damaged" in ask(root, b"x" * len(BYTES), **put, offset=0)["error"]
    assert ask(root, **put, offset=-1) == {"offset": 0}


@pytest.mark.parametrize(
    ("size", "piece"),
    [(1000, b"no zlib"), (1000, zlib.compress(b"x" * 999)), (1000, zlib.compress(b"x" * 50_000))],
    ids=["none", "less", "more"],
)
def test_a_damaged_piece_is_told_and_what_follows_is_read(root: Path, size: int, piece: bytes) -> None:
    rest = len(BYTES) - size
    pieces = PIECE.pack(size, len(piece)) + piece + PIECE.pack(rest, rest) + BYTES[size:]
    stdin = io.BytesIO(pieces + wire.packed({"verb": "next"}))
    session = Session(str(root), stdin)
    request = {"verb": "put", "sha256": SHA256, "size": len(BYTES), "offset": 0, "packed": True}
    assert "damaged" in session.answer(request)["error"]
    assert wire.receive(stdin) == {"verb": "next"}


@pytest.mark.parametrize(("size", "there"), [(len(BYTES) + 1, 5), (1000, 1001), (0, 5)])
def test_pieces_that_cannot_be_are_not_waited_for(root: Path, size: int, there: int) -> None:
    head = PIECE.pack(size, there)
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES), "packed": True}
    assert "damaged" in ask(root, head + BYTES, **put, offset=0)["error"]


@pytest.mark.parametrize("packed", [False, True])
def test_where_a_file_cannot_be_kept_its_bytes_are_read_all_the_same(root: Path, packed: bool) -> None:
    """Else the next request would be looked for among them."""
    (root / "var").write_text("in the way")
    head = PIECE.pack(len(BYTES), len(BYTES)) if packed else b""
    stdin = io.BytesIO(head + BYTES + wire.packed({"verb": "next"}))
    session = Session(str(root), stdin)
    request = {"verb": "put", "sha256": SHA256, "size": len(BYTES), "offset": 0, "packed": packed}
    answer = session.answer(request)
    assert answer["code"] == 1
    assert wire.receive(stdin) == {"verb": "next"}


def test_apply_carries_out_and_tells_what_failed(root: Path) -> None:
    ask(root, BYTES, verb="put", sha256=SHA256, size=len(BYTES), offset=0)
    changes = [
        to_json(Write("/etc/secret", b"s3cret", 0o600, secret=True)),
        to_json(Place("/usr/local/bin/k3s", SHA256, len(BYTES), 0o755)),
    ]
    answer = ask(root, verb="apply", changes=changes, first=[["true"]], then=[["false", "x"]])
    assert answer == {"failed": [["false x", "no"]]}
    assert (root / "usr/local/bin/k3s").read_bytes() == BYTES
    assert (root / "etc/secret").read_bytes() == b"s3cret"
    assert not (root / PARTS[1:]).exists()


def test_a_part_is_placed_without_being_written_again(root: Path) -> None:
    """At a second place it is a copy, whose mode is its own; so is what is kept to go back."""
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES)}
    ask(root, BYTES, **put, offset=0)
    part = root / PARTS[1:] / SHA256
    number = part.stat().st_ino
    places = [Place("/usr/local/bin/k3s", SHA256, len(BYTES), 0o755), Place("/opt/k3s", SHA256, len(BYTES))]
    assert ask(root, verb="apply", changes=list(map(to_json, places)), first=[], then=[]) == {"failed": []}
    binary, other = root / "usr/local/bin/k3s", root / "opt/k3s"
    assert binary.stat().st_ino == number != other.stat().st_ino
    assert [one.stat().st_mode & 0o777 for one in (binary, other)] == [0o755, 0o644]
    assert other.read_bytes() == BYTES
    assert not part.exists()

    ask(root, verb="apply", changes=[], first=[], then=[], keep=["/usr/local/bin/k3s"])
    assert part.stat().st_ino != number


def test_a_part_goes_to_another_file_system_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    ask(root, BYTES, verb="put", sha256=SHA256, size=len(BYTES), offset=0)
    change = to_json(Place("/usr/local/bin/k3s", SHA256, len(BYTES), 0o755))
    assert ask(root, verb="apply", changes=[change], first=[], then=[]) == {"failed": []}
    assert (root / "usr/local/bin/k3s").read_bytes() == BYTES
    assert (root / "usr/local/bin/k3s").stat().st_mode & 0o777 == 0o755


def test_a_part_that_is_whole_is_not_opened_to_be_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut between the two it may be a program, too, which runs: to open it would fail."""
    put = {"verb": "put", "sha256": SHA256, "size": len(BYTES)}
    ask(root, BYTES, **put, offset=0)
    monkeypatch.setattr(Path, "open", opened_to_read(Path.open))
    assert ask(root, **put, offset=len(BYTES)) == {}


def opened_to_read(real: Any) -> Any:
    def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        assert "w" not in mode
        assert "+" not in mode
        return real(path, mode, *rest, **more)

    return opened


def test_what_goes_wrong_is_an_answer_without_a_secret(root: Path) -> None:
    assert ask(root, verb="undo") == {"back": [], "left": []}, "nothing is known of what it was"
    (root / "etc/folder").mkdir(parents=True)
    changes = [to_json(Write("/etc/folder", b"s3cret", secret=True))]
    answer = ask(root, verb="apply", changes=changes, first=[], then=[])
    assert answer["code"] == 2
    assert "/etc/folder" in answer["error"]
    assert "s3cret" not in str(answer)


def test_a_reset_is_known_until_its_k3s_may_begin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "etc/k3s-bake").mkdir(parents=True)
    (root / CONFIG[1:]).write_text(NodeConfig("home", "worker").to_json())
    seen: List[bool] = []

    def there(*_: object, **__: object) -> None:
        seen.append((root / machine.RESETTING[1:]).exists())

    for name in ("stop", "clear", "begin"):
        monkeypatch.setattr(leave, name, there)
    assert ask(root, verb="reset") == {}
    assert ask(root, verb="begin") == {}
    assert seen == [True, True, False]


def test_what_was_changed_is_known_until_the_running_system_knows_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes after a run that was cut off in between finds it among the machine's facts."""
    seen = []
    monkeypatch.setattr(remote, "_run_all", lambda commands: seen.append(machine.unfinished(str(root))) or [])
    change = to_json(Write("/etc/a", b"a"))
    asked = {"verb": "apply", "changes": [change], "first": [], "then": []}
    ask(root, **asked, paths=["/etc/a", "/boot/cmdline.txt"], left=["/boot/cmdline.txt"])
    assert seen == [[], ["/etc/a", "/boot/cmdline.txt"]]
    assert machine.unfinished(str(root)) == ["/boot/cmdline.txt"]
    ask(root, **asked, paths=["/boot/cmdline.txt"], left=[])
    assert machine.unfinished(str(root)) == []
    (root / machine.UNFINISHED[1:]).write_text('{"garbled')
    assert machine.unfinished(str(root)) == []


@pytest.mark.parametrize(("own", "said"), [(b"a\nb\n", ["a", "b"]), (b"", ["Failed to start"])])
def test_the_last_lines_of_a_unit_are_its_own(
    monkeypatch: pytest.MonkeyPatch, own: bytes, said: List[str]
) -> None:
    """While it starts again and again most lines are systemd's, which would leave no room for the reason."""

    def journal(command: List[str], **_: Any) -> Tuple[int, bytes, str]:
        return 0, own if "_SYSTEMD_UNIT=k3s.service" in command else b"Failed to start\n", ""

    monkeypatch.setattr(machine, "run", journal)
    assert machine.log("k3s", 5) == said


@pytest.mark.parametrize(
    ("states", "is_on"),
    [
        ("inactive\nactivating\n", True),
        ("active\ninactive\n", True),
        ("inactive\nfailed\n", False),
        ("", False),
    ],
)
def test_whether_k3s_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: str, is_on: bool) -> None:
    monkeypatch.setattr(machine, "run", lambda command, **_: (3, states.encode(), ""))
    units = ("k3s.service", "k3s-agent.service")
    assert machine._is_on(str(tmp_path), units) is False  # where no unit is, none is asked about
    (tmp_path / "lib/systemd/system").mkdir(parents=True)
    (tmp_path / "lib/systemd/system/k3s.service").write_text("[Service]\n")
    assert machine._is_on(str(tmp_path), units) is is_on


NOW = 1_800_000_000
YEAR = 365 * 86400


@pytest.mark.parametrize(
    ("told", "joined", "ntp", "is_set"),
    [
        (NOW + 2 * YEAR, False, False, True),
        (NOW + 2 * YEAR, True, False, True),
        (NOW + 2 * YEAR, False, True, False),
        (NOW - 2 * YEAR, False, False, True),
        (NOW - 2 * YEAR, True, False, False),
        (NOW + 30, False, False, False),
    ],
)
def test_the_clock_is_set_by_the_operators_where_ntp_does_not_keep_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, told: int, joined: bool, ntp: bool, is_set: bool
) -> None:
    moments: List[int] = []
    commands: List[List[str]] = []
    monkeypatch.setattr(remote, "run", lambda command, **_: (commands.append(command), (1, b"", "no RTC"))[1])
    monkeypatch.setattr(remote.time, "time", lambda: float(NOW))
    monkeypatch.setattr(clock, "set_clock", moments.append)
    monkeypatch.setattr(clock, "run", lambda command, **_: (0, b"yes\n" if ntp else b"no\n", ""))
    (root / "etc").mkdir()
    (root / clock.KEPT[1:]).write_text("2020-01-01 00:00:00\n")
    assert ask(root, verb="set_clock", now=told + 0.5, joined=joined) == {"set": is_set}
    assert moments == [told] * is_set
    assert commands == [["hwclock", "--systohc"]] * is_set, "some boards have a clock of their own"
    kept = (root / clock.KEPT[1:]).read_bytes()
    assert kept == (clock.kept(told) if is_set else b"2020-01-01 00:00:00\n")


def test_a_clock_that_cannot_be_set_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(moment: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(clock, "set_clock", refuse)
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    found = ask(root, verb="set_clock", now=NOW + 1000 * YEAR, joined=False)
    assert found["error"] == "its clock is wrong, and cannot be set: Operation not permitted"
    assert found["hint"]


def test_drains_run_side_by_side_and_are_asked_after(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ends only once the second has."""
    ended = {name: threading.Event() for name in ("w1", "w2")}

    def drain(name: str) -> Drained:
        if name == "w1":
            ended["w2"].wait(60)
        ended[name].set()
        return Drained(name == "w1", (f"a/{name}",), "why")

    monkeypatch.setattr(kubernetes, "drain", drain)
    session = Session(str(root), io.BytesIO())
    for name in ended:
        assert session.answer({"verb": "drain", "name": name}) == {}
    assert ended["w1"].wait(60)

    def told(name: str) -> Dict[str, Any]:
        while True:
            answer = session.answer({"verb": "drained", "name": name})
            if answer["ended"]:
                return answer

    assert told("w1") == {"ended": True, "drained": True, "pods_left": ("a/w1",), "why_left": "why"}
    assert told("w2")["drained"] is False


def test_a_drain_that_has_not_ended_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(kubernetes, "drain", lambda name: Drained(end.wait(60)))
    session = Session(str(root), io.BytesIO())
    session.answer({"verb": "drain", "name": "w1"})
    assert session.answer({"verb": "drained", "name": "w1"}) == {"ended": False}
    end.set()
