"""What the first bytes of a program tell: for which processor it is, and how long it must be."""

import struct
from typing import Final

_MACHINES: Final = {(1, 40): "armhf", (2, 183): "arm64", (2, 62): "amd64"}  # (EI_CLASS, e_machine), elf(5)
HEAD = 4096
"""Bytes from a file's start that elf_machine and elf_size need at the most."""


def elf_machine(head: bytes) -> str | None:
    """``armhf``, ``arm64``, ``amd64`` by the ELF header; ``script`` after ``#!``; None for anything else."""
    if head.startswith(b"#!"):
        return "script"
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] != 1:
        return None
    return _MACHINES.get((head[4], struct.unpack_from("<H", head, 18)[0]))


def elf_size(head: bytes) -> int:
    """Bytes that the file has at least, by its own section table and segments; for what elf_machine knows.

    Both are looked at: Go's linker puts the section table at the start, where a cut would never show.
    """
    wide = head[4] == 2
    header, segment = ("<QQ", "<8xQ16xQ") if wide else ("<II", "<4xI8xI")
    # Offset of the two table offsets; then of the two counts, each after the size of an entry.
    offsets, counts = (32, 54) if wide else (28, 42)
    if len(head) < counts + 8:
        return counts + 8
    segments_at, sections_at = struct.unpack_from(header, head, offsets)
    segment_size, segment_count, section_size, section_count = struct.unpack_from("<4H", head, counts)
    ends = [segments_at + segment_size * segment_count, sections_at + section_size * section_count]
    for at in range(segments_at, ends[0], segment_size or 1):
        if at + struct.calcsize(segment) <= len(head):
            start, size = struct.unpack_from(segment, head, at)
            ends.append(start + size)
    return int(max(ends))
