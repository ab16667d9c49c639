"""The pure parts of the emulator: what a console tells, who is given which address, what is waited for."""

import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bake.emulator import board, dhcp
from bake.emulator.console import KERNEL, LOGIN, OFF, PANIC, RESTARTING, Scanner, Word
from bake.emulator.dhcp import Lan
from bake.emulator.lab import names
from k3s_bake.watch import Event, Watch

pytestmark = pytest.mark.unit

SEARCHING = Word("searching", "no-master", "home-1a2b3c")
MAC = bytes.fromhex("b827eb000001")
MINE = IPv4Address("10.9.0.10")


def words(*pieces: bytes) -> list[Word]:
    scanner = Scanner()
    return [word for piece in pieces for word in scanner.feed(piece)] + list(scanner.end())


@pytest.mark.parametrize(
    "line",
    [
        b"k3s-bake: home-1a2b3c: searching (no-master)\r\n",
        b"[   41.229741] python3[123]: k3s-bake: home-1a2b3c: searching (no-master)\r\n",
        b"\x1b[0;1;31mk3s-bake: home-1a2b3c: searching (no-master)\x1b[0m\r\n",
        b"k3s-bake: home-1a2b3c: searching (no-master)",
    ],
)
def test_a_phase_is_heard(line: bytes) -> None:
    assert words(line) == [SEARCHING]


def test_a_phase_is_heard_however_it_is_cut() -> None:
    line = "ü k3s-bake: home-1a2b3c: searching (no-master)\r\nk3s-bake: w: joined\r\n".encode()
    for at in range(len(line)):
        assert words(line[:at], line[at:]) == [SEARCHING, Word("joined", "", "w")]


@pytest.mark.parametrize(
    "line",
    [
        b"k3s-bake: w: sleeping\n",
        b"k3s-bake: w: joined, they say\n",
        b"k3s-bake: w: joined (\x1b[2J)\n",
        b"not-k3s-bake: w: joined\n",
        b"Debian GNU/Linux 11 w ttyAMA0\n",
    ],
)
def test_what_is_no_phase(line: bytes) -> None:
    assert words(line) == []


def test_milestones() -> None:
    assert [word.what for word in words(b"k3s-bake emulator: the kernel is up\r\n")] == [KERNEL]
    assert [word.what for word in words(b"[ 1.0] Kernel panic - not syncing: no init\n")] == [PANIC]


def test_a_prompt_is_told_once_each_time_it_is_there() -> None:
    assert [word.what for word in words(b"w lo", b"gin: ", b"", b"pi\r\nw login: ")] == [LOGIN, LOGIN]
    assert words(b"Last login: Mon\n") == []


def test_a_line_without_end_is_let_go_of() -> None:
    scanner = Scanner()
    for _ in range(40):
        assert list(scanner.feed(b"x" * 65_536)) == []
    assert len(scanner._line) <= 65_536


def asked(kind: int, *options: bytes, xid: bytes = b"\1\2\3\4", mac: bytes = MAC) -> bytes:
    bootp = struct.pack("!4B4s8x", 1, 1, 6, 0, xid) + bytes(12) + mac.ljust(16, b"\0") + bytes(192)
    body = bootp + b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + b"".join(options) + b"\xff"
    udp = struct.pack("!4H", 68, 67, 8 + len(body), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(body), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return b"\xff" * 6 + mac + b"\x08\x00" + ip + udp + body


def answer(frame: bytes, lan: Lan | None = None) -> tuple[int, IPv4Address, bytes]:
    """Kind, address and the options of the answer."""
    assert dhcp.asks(frame)
    got = dhcp.reply(frame, lan or Lan(), MINE)
    assert got is not None
    bootp = got[42:]
    assert bootp[0] == 2
    assert bootp[4:8] == frame[46:50]
    assert bootp[28:34] == MAC
    assert sum(struct.unpack("!10H", got[14:34])) % 0xFFFF == 0  # the checksum of the IP header
    assert int.from_bytes(got[16:18]) == len(got) - 14
    return bootp[242], IPv4Address(bootp[16:20]), bootp[240:]


def test_an_address_is_offered_and_given() -> None:
    kind, address, options = answer(asked(1))
    assert (kind, address) == (2, MINE)
    assert bytes([1, 4, 255, 255, 255, 0]) in options
    assert bytes([3, 4, 10, 9, 0, 1]) in options
    assert bytes([6, 4]) not in options  # no resolver, where nothing leads out
    assert answer(asked(3, bytes([50, 4, 10, 9, 0, 10])))[:2] == (5, MINE)
    assert bytes([6, 4, 10, 9, 0, 3]) in answer(asked(1), Lan(internet=True))[2]


def test_another_address_is_refused() -> None:
    assert answer(asked(3, bytes([50, 4, 10, 0, 0, 7])))[:2] == (6, IPv4Address(0))


def test_what_needs_no_answer() -> None:
    assert dhcp.reply(asked(7), Lan(), MINE) is None  # a release
    assert dhcp.reply(asked(1)[:282], Lan(), MINE) is None
    assert not dhcp.asks(b"")
    assert not dhcp.asks(asked(1).replace(b"\x00\x43", b"\x00\x44", 1))


def test_garbled_options_are_no_harm() -> None:
    for end in range(282, len(asked(3, bytes([50, 4, 10, 9, 0, 10])))):
        dhcp.reply(asked(3, bytes([50, 200, 10, 9, 0, 10]))[:end], Lan(), MINE)


def test_machines_of_one_name_are_told_apart() -> None:
    images = [Path("w.img"), Path("w.img"), Path("other/w.img"), Path("m.img")]
    assert names(images) == ["w.img", "w.img#2", "w.img#3", "m.img"]


def test_all_must_have_joined_at_one_time() -> None:
    watch = Watch(["a", "b"], "joined")
    watch.take(Event(1, "a", "joined"))
    watch.take(Event(2, "a", LOGIN))  # is no step back
    watch.take(Event(3, "b", "searching", "no-master"))
    assert not watch.done
    assert watch.report() == "b: searching (no-master)"
    assert "No master" in watch.remedy()
    watch.take(Event(4, "b", "joined"))
    assert watch.done
    watch.take(Event(5, "a", RESTARTING))
    assert not watch.done


def test_a_machine_that_is_off_is_dead() -> None:
    watch = Watch(["a", "b"], "login")
    watch.take(Event(1, "a", OFF))
    assert watch.dead == ["a"]
    assert watch.report() == "a: is off, b: said nothing"


def test_a_board_has_a_serial_number_and_an_address_as_a_pi_has() -> None:
    assert board.serial(0) == "0000000000000001"
    assert board.mac(299) == "b8:27:eb:00:01:2c"


def test_a_serial_number_is_put_into_a_device_tree() -> None:
    """Beside a reserved range, a property and a node that stay."""
    reserved = struct.pack("!4Q", 0x1000, 0x2000, 0, 0)
    nodes = (
        struct.pack("!2I", 1, 0)
        + struct.pack("!3I4s", 3, 3, 0, b"me\0")
        + struct.pack("!I4sII", 1, b"sub", 2, 2)
    )
    nodes += struct.pack("!I", 9)
    names = b"model\0"
    first = 40 + len(reserved)
    header = (0xD00DFEED, 4096, first, first + len(nodes), 40, 17, 16, 0, len(names), len(nodes))
    tree = (struct.pack("!10I", *header) + reserved + nodes + names).ljust(4096, b"\0")

    got = board.with_serial(tree, "00c0ffee")
    magic, total, nodes_at, names_at, reserved_at, *_, names_size, nodes_size = struct.unpack(
        "!10I", got[:40]
    )
    assert (magic, total) == (0xD00DFEED, len(got))
    assert got[reserved_at : reserved_at + 32] == reserved
    assert got[names_at : names_at + names_size] == b"model\0serial-number\0"
    added = struct.pack("!3I", 3, 9, len(names)) + b"00c0ffee\0\0\0\0"
    assert got[nodes_at : nodes_at + nodes_size] == nodes[:8] + added + nodes[8:]
