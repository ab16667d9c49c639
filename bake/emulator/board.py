"""The board that is emulated: QEMU's virt, with a serial number and a network address as a Pi has them."""

import struct
from dataclasses import dataclass
from pathlib import Path

from bake.process import run

_HEADER = "!10I"  # Devicetree Specification, chapter 5
_NODE, _PROPERTY = 1, 3
_KEY = b"serial-number\0"


@dataclass(frozen=True)
class Board:
    memory: int = 512
    """MiB."""

    @property
    def options(self) -> list[str]:
        """Of QEMU, but for the machine's own name."""
        return ["-cpu", "cortex-a15", "-smp", "2", "-m", str(self.memory)]


MACHINE = "virt,highmem=off"


def serial(at: int) -> str:
    """Of the ``at``-th board, counted from 0."""
    return f"00000000{at + 1:08x}"


def mac(at: int) -> str:
    """Its network address: a Pi's ends as its serial number does."""
    return "b8:27:eb:" + ":".join(serial(at)[first : first + 2] for first in (10, 12, 14))


def describe(board: Board, serial: str, target: Path) -> None:
    """Write the device tree that QEMU makes for the board, with the serial number that only a Pi's has."""
    run("qemu-system-arm", "-M", f"{MACHINE},dumpdtb={quoted(target)}", *board.options, "-display", "none")
    target.write_bytes(with_serial(target.read_bytes(), serial))


def with_serial(tree: bytes, serial: str) -> bytes:
    """A flattened device tree, and a property more in its root."""
    magic, _, nodes_at, names_at, reserved_at, version, oldest, cpu, names_size, nodes_size = (
        struct.unpack_from(_HEADER, tree)
    )
    names = tree[names_at : names_at + names_size] + _KEY
    nodes = tree[nodes_at : nodes_at + nodes_size]
    value = serial.encode() + b"\0"
    added = struct.pack("!3I", _PROPERTY, len(value), names_size) + value.ljust(
        -(-len(value) // 4) * 4, b"\0"
    )
    inside = nodes.index(struct.pack("!2I", _NODE, 0)) + 8  # the root node has an empty name
    nodes = nodes[:inside] + added + nodes[inside:]
    end = tree.index(bytes(16), reserved_at) + 16
    reserved = tree[reserved_at:end]
    start = struct.calcsize(_HEADER)
    first = start + len(reserved)
    header = struct.pack(
        _HEADER,
        *(magic, first + len(nodes) + len(names), first, first + len(nodes), start),
        *(version, oldest, cpu, len(names), len(nodes)),
    )
    return header + reserved + nodes + names


def quoted(path: Path) -> str:
    """As a value of QEMU's options, where a comma begins the next one."""
    return str(path).replace(",", ",,")
