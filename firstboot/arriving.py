"""A large file as it arrives: its bytes as they are, or in pieces of which some are compressed.

Runs on the node: Python 3.7, standard library only.
"""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Iterator, Tuple

from firstboot.errors import WorkFailed

PIECE = struct.Struct("!II")
"""Before a piece: its bytes, and those on the wire, which are compressed where the two differ."""

_CHUNK = 1 << 20
_MOST = 16 << 20
"""Bytes of a piece: the sender's have less."""


def keep(stdin: BinaryIO, place: Path, sha256: str, size: int, offset: int, packed: bool) -> None:
    """At ``place``, whose first ``offset`` bytes are there. All that follows is read, whatever happens.

    WorkFailed where the connection is cut or the file is another, OSError where the disk does not take it.
    """
    pieces = _pieces(stdin, size - offset, packed)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if offset < size:  # a whole one may be a program that runs, by another name
            with place.open("r+b" if place.is_file() else "wb") as target:
                target.truncate(offset)
                target.seek(offset)
                for piece, length in pieces:
                    target.write(piece if len(piece) == length else _unpacked(piece, length))
    finally:
        for _ in pieces:  # they are on their way
            pass
    if sha256_of(place) != sha256:
        place.unlink()
        raise _damaged()


def _pieces(stdin: BinaryIO, left: int, packed: bool) -> Iterator[Tuple[bytes, int]]:
    """Each as it is on the wire, and how many bytes it is then."""
    while left > 0:
        size, there = min(left, _CHUNK), min(left, _CHUNK)
        if packed:
            head = stdin.read(PIECE.size)
            size, there = PIECE.unpack(head) if len(head) == PIECE.size else (0, 0)
            if size > min(left, _MOST) or there > size:
                raise _damaged()
        piece = stdin.read(there)
        if not piece or (packed and len(piece) < there):
            raise WorkFailed("the connection was cut")
        size = size if packed else len(piece)
        left -= size
        yield piece, size


def _unpacked(piece: bytes, size: int) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(piece, size + 1)
    except zlib.error as error:
        raise _damaged() from error
    if len(data) != size or not unpacking.eof:
        raise _damaged()
    return data


def _damaged() -> WorkFailed:
    return WorkFailed("a file arrived damaged", "Run it again.")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
