"""Where in an image the bytes of a file of its root are: to read large files without a pipe in between."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LEAF = re.compile(rb"^ *\d+/ *\d+ +\d+/ *\d+ +(\d+) - +\d+ +(\d+) - +\d+ +(\d+) *(Uninit)?", re.MULTILINE)
"""A line of debugfs's ``ex -l``: first logical block, first physical block, how many."""
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Extent:
    """A run of bytes of a file. ``at`` is its place in the file, ``start`` in the file system."""

    at: int
    start: int
    size: int


def parsed(told: bytes, block: int) -> list[Extent] | None:
    """What ``ex -l`` tells of a file, ascending; None for a file that has no extents."""
    if b"Level" not in told:
        return None
    return sorted(
        (
            Extent(int(at) * block, int(start) * block, int(count) * block)
            for at, start, count, unwritten in _LEAF.findall(told)
            if not unwritten  # reads as zeros
        ),
        key=lambda extent: extent.at,
    )


def pieces(image: Path, file_system: int, extents: list[Extent], size: int) -> Iterator[bytes]:
    """A file's bytes in order, holes as zeros. ``file_system`` is where it starts in the image."""
    done = 0
    with image.open("rb", buffering=0) as stream:
        for extent in extents:
            yield from _zeros(min(extent.at, size) - done)
            done = max(done, min(extent.at, size))
            end = min(extent.at + extent.size, size)
            while done < end:
                piece = os.pread(
                    stream.fileno(), min(_CHUNK, end - done), file_system + extent.start + done - extent.at
                )
                if not piece:
                    return  # an extent beyond the image: whoever compares sizes or hashes sees it
                yield piece
                done += len(piece)
    yield from _zeros(size - done)


def _zeros(count: int) -> Iterator[bytes]:
    zeros = bytes(min(_CHUNK, max(0, count)))
    while count > 0:
        yield zeros[:count]
        count -= len(zeros)
