"""Whether a file is compressed on its way: where it gets smaller, and the line is slower than the work."""

import time
import zlib
from functools import lru_cache
from pathlib import Path

from firstboot.arriving import PIECE

_SAMPLES, _SAMPLE = 16, 1 << 14
_WELL = 0.8
"""Of a file's size: what samples of it must come down to."""


class Packing:
    """Of one file to one node. What it has seen of the line decides for each piece."""

    def __init__(self, cost: float) -> None:
        self._cost = cost
        """Seconds that a byte takes to compress."""
        self._sent = 0
        self._spent = 0.0

    @classmethod
    def of(cls, path: Path, offset: int) -> "Packing | None":
        """None where it is not worth it: what is packed already, as K3s is but for its beginning."""
        there = path.stat()
        cost = _cost(path, there.st_size, there.st_mtime_ns, offset)
        return None if cost is None else cls(cost)

    def took(self, sent: int, seconds: float) -> None:
        self._sent += sent
        self._spent += seconds

    def packed(self, piece: bytes) -> bytes:
        """As ``firstboot.arriving`` takes it."""
        there = piece
        if self._spent > self._cost * self._sent:
            there = zlib.compress(piece, 1)
        there = there if len(there) < len(piece) else piece
        return PIECE.pack(len(piece), len(there)) + there


@lru_cache  # a fleet's nodes are sent the same file, and its samples take as long to compress as to send
def _cost(path: Path, size: int, changed: int, offset: int) -> float | None:
    """Seconds that a byte takes to compress; None where it is not worth it. ``changed``: tells another file
    of the same name."""
    left = size - offset
    taken = b""
    with path.open("rb") as source:
        for at in range(_SAMPLES):
            source.seek(offset + left * at // _SAMPLES)
            taken += source.read(_SAMPLE)
    begun = time.perf_counter()
    there = zlib.compress(taken, 1)
    cost = (time.perf_counter() - begun) / max(1, len(taken))
    return cost if len(there) < _WELL * len(taken) else None
