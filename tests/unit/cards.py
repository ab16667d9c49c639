"""Images and cards of tests: plain files; and a card that fails on purpose, a stand-in for real ones."""

import hashlib
import json
import os
import random
import struct
from pathlib import Path

from bake import bmap
from bake.card.flash import Flash, Job
from bake.card.source import Source
from bake.card.target import Target, failure

BLOCK = bmap.BLOCK
MIB = 1 << 20


def image(path: Path, size: int, seed: int = 1) -> Path:
    """Of bytes by chance, with a partition table's signature."""
    chance = random.Random(seed).randbytes(MIB - 8)
    content = bytearray(b"".join(struct.pack("<Q", at) + chance for at in range(-(-size // MIB))))
    content[510:512] = b"\x55\xaa"
    path.write_bytes(content[:size])
    return path


def with_map(path: Path, *ranges: bmap.Range) -> Path:
    """Beside an image, the map of these ranges, bytes, and the manifest that names it."""
    text = bmap.document(path.stat().st_size, bmap.hashed(path, ranges))
    path.with_name(path.name + ".bmap").write_text(text)
    known = {"bmap": hashlib.sha256(text.encode()).hexdigest()}
    path.with_name(path.name + ".manifest.json").write_text(json.dumps(known))
    return path


def card(path: Path, size: int, fill: int = 0xEE) -> Path:
    """One that was in use: not of zeros."""
    path.write_bytes(bytes([fill]) * size)
    return path


class StandIn(Target):
    """A card over a plain file, with faults that a test sets."""

    def __init__(self, path: Path, *, block: bool = True) -> None:
        super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)
        self.is_block = block
        self.fails_at: dict[tuple[str, int], int] = {}
        """By what is done and the MiB in which it is: an error number."""
        self.real_size = self.size
        """Bytes that there really are; what goes beyond comes back to the beginning."""
        self.flips: set[int] = set()
        """Bytes that change between writing and reading."""
        self.did: list[tuple[str, int, bool]] = []
        """What was written and flushed: where, and whether it was nothing but zeros."""

    def write(self, at: int, data: memoryview) -> None:
        self._fail("write", at, len(data))
        self.did.append(("write", at, not any(data)))
        super().write(at % self.real_size, data)

    def read_into(self, at: int, data: memoryview) -> None:
        self._fail("read", at, len(data))
        super().read_into(at % self.real_size, data)
        for byte in self.flips:
            if at <= byte < at + len(data):
                data[byte - at] ^= 1

    def flush(self) -> None:
        self.did.append(("flush", 0, False))
        super().flush()

    def reread_table(self) -> None:
        pass

    def _fail(self, verb: str, at: int, size: int) -> None:
        for (what, mib), number in self.fails_at.items():
            if what == verb and at < (mib + 1) * MIB and mib * MIB < at + size:
                raise failure(verb, max(at, mib * MIB), OSError(number, os.strerror(number)))


def flash(source: Source, *targets: Target) -> list[Job]:
    """To the end."""
    jobs = [Job(target) for target in targets]
    with Flash(source, jobs) as running:
        while running.wait(5):
            pass
    assert not any(target.in_use for target in targets)
    return jobs
