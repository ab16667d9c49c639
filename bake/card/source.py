"""An image as it is read to be written, raw or packed, in pieces; and what was written, held against it.

Where a block map is beside it only what the map names is read, and must have the sums that it gives. A raw
image without one is not hashed while it is written, which would take longer than a fast card, but compared.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from bake import bmap
from bake.unpack import BROKEN, archive_kind, blocks
from firstboot.errors import UserError, WorkFailed

PIECE = 4 << 20
"""Bytes read and written at once: an SD card's erase block, or several."""

_MOST = 16 << 20
"""Bytes of a block map: one of a terabyte is smaller."""

_PACKED = (".xz", ".gz", ".zst", ".zip")


@dataclass(frozen=True)
class Span:
    """A piece to be. ``number`` counts them from 0; those of one ``part`` have a hash in common."""

    number: int
    part: int
    at: int
    size: int
    last: bool
    """Of its part."""


class Reader(Protocol):
    def __call__(self, at: int, into: memoryview) -> int:
        """Bytes read: fewer than asked for only where the image ends. ``at`` only ever grows."""


def _quiet(line: str) -> None:
    pass


class Source:
    """Read by several at once, each by ``pieces``."""

    def __init__(self, path: Path, *, use_map: bool = True, say: Callable[[str], None] = _quiet) -> None:
        """UserError for what is no image of a card, and where image and map do not belong together.

        A map is taken only where the manifest beside it names it: one that another tool has made of a file's
        holes leaves out zeros that mean something.
        """
        self.path = path
        self.packed = _kind(path)
        self._identity = _identity(path)
        self._check_head()
        self.map = _map_of(path, self.packed, say) if use_map else None
        self.size: int | None = path.stat().st_size if self.packed is None else None
        """Bytes; None for a packed one until it has been read once."""
        if self.map and self.size not in (None, self.map.size):
            raise UserError(
                f"{path} has {self.size} bytes, and its block map is of one of {self.map.size}",
                "Is it truncated? Copy or bake it again; --no-bmap writes it as it is.",
            )
        self.size = self.map.size if self.map else self.size
        self.digests: dict[int, str] = {}
        """sha256 of each part, once it has been read."""

    def _check_head(self) -> None:
        """UserError where it does not begin as a card does, or cannot be unpacked."""
        head = memoryview(bytearray(512))
        try:
            with self._opened() as read:
                got = read(0, head)
        except WorkFailed as error:
            raise UserError(error.message, error.hint) from error
        if got < len(head) or bytes(head[510:]) != b"\x55\xaa":
            raise UserError(
                f"{self.path} has no partition table: it is not a card image",
                "Use the image of a whole card, not of a partition, nor a text.",
            )

    @property
    def to_write(self) -> int | None:
        """Bytes."""
        return sum(end - start for (start, end), _ in self.map.ranges) if self.map else self.size

    @property
    def parts_sha256(self) -> str:
        """Of the parts' hashes, one after the other; good once all was read."""
        joined = "".join(self.digests[part] for part in sorted(self.digests))
        return hashlib.sha256(joined.encode()).hexdigest()

    def spans(self) -> Iterator[Span]:
        """What is to be read, ascending. Without end as long as the size is not known."""
        number = 0
        for part, (start, end) in enumerate(self._parts()):
            for at in range(start, end, PIECE):
                yield Span(number, part, at, min(PIECE, end - at), at + PIECE >= end)
                number += 1

    def pieces(self, room: Callable[[], memoryview], first: int = 0) -> Iterator[tuple[int, memoryview]]:
        """Where each piece goes, and its bytes, in what ``room`` gives for it. From the span ``first`` on.

        WorkFailed where the image is not, or not any more, what it is said to be.
        """
        begin = next((span.part for span in self.spans() if span.number == first), 0)
        digest = hashlib.sha256()
        with self._opened() as read:
            for span in self.spans():
                if span.part < begin:
                    continue  # what is before it in its part is read again, to be hashed
                piece = room()[: span.size]
                got = read(span.at, piece)
                if got < span.size and self.size is not None:
                    raise self._changed()
                if self._is_hashed:
                    digest.update(piece[:got])
                    if got and (span.last or got < span.size):
                        self._settle(span.part, digest.hexdigest())
                        digest = hashlib.sha256()
                if got and span.number >= first:
                    yield span.at, piece[:got]
                if got < span.size:
                    self.size = span.at + got
                    break
        self.check_unchanged()

    @property
    def _is_hashed(self) -> bool:
        return self.map is not None or self.packed is not None

    def check_unchanged(self) -> None:
        """WorkFailed where it is not the file any more that it was at first."""
        if _identity(self.path) != self._identity:
            raise self._changed()

    @contextmanager
    def check(self) -> Iterator[Callable[[Span, memoryview], bool]]:
        """Whether each piece that was read back, in their order, may be what was read here: of a part with a
        hash its last piece tells. Good once all was read."""
        digest, own = hashlib.sha256(), bytearray(PIECE)

        def by_hash(span: Span, piece: memoryview) -> bool:
            nonlocal digest
            digest.update(piece)
            if not span.last:
                return True
            found, digest = digest.hexdigest(), hashlib.sha256()
            return found == self.digests[span.part]

        with self.path.open("rb", buffering=0) as stream:

            def by_comparison(span: Span, piece: memoryview) -> bool:
                size = _read(stream.fileno(), span.at, memoryview(own)[: span.size])
                mine = own if size == len(own) else own[:size]
                if span.part not in self.digests:
                    self.digests[span.part] = hashlib.sha256(mine).hexdigest()
                return mine == piece  # bytearray compares at memory's speed, memoryview byte by byte

            yield by_hash if self._is_hashed else by_comparison
        self.check_unchanged()

    def _parts(self) -> Iterator[bmap.Range]:
        if self.map:
            yield from (one for one, _ in self.map.ranges)
            return
        at = 0
        while self.size is None or at < self.size:
            yield at, at + PIECE if self.size is None else min(at + PIECE, self.size)
            at += PIECE

    def _settle(self, part: int, digest: str) -> None:
        if self.map and self.map.ranges[part][1] != digest:
            raise WorkFailed(
                f"{self.path} is not what its block map says",
                "It was changed since it was baked: bake it again, or write all of it by --no-bmap.",
            )
        if self.digests.setdefault(part, digest) != digest:
            raise self._changed()

    def _changed(self) -> WorkFailed:
        return WorkFailed(
            f"{self.path} changed while it was read", "Let nothing write to it, and run it again."
        )

    @contextmanager
    def _opened(self) -> Iterator[Reader]:
        with self.path.open("rb", buffering=0) as stream:
            if self.packed is None:
                handle = stream.fileno()
                yield lambda at, into: _read(handle, at, into)
                return
            try:
                yield _Unpacked(stream, self.path).read
            except BROKEN as error:
                hint = "Fetch it again, and compare its checksum with the publisher's."
                raise WorkFailed(f"{self.path} is cut off or damaged", hint) from error


class _Unpacked:
    """A packed image can only be read from its beginning."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._blocks = blocks(stream, path)
        self._at = 0
        self._block = memoryview(b"")

    def read(self, at: int, into: memoryview) -> int:
        done = 0
        while done < len(into):
            if not self._block:
                self._block = memoryview(next(self._blocks, b""))
                if not self._block:
                    break
            skip = min(max(0, at - self._at), len(self._block))
            taken = self._block[skip : skip + len(into) - done]
            if skip == 0:
                into[done : done + len(taken)] = taken
                done += len(taken)
                at += len(taken)
            self._at += skip or len(taken)
            self._block = self._block[skip or len(taken) :]
        return done


def _read(handle: int, at: int, into: memoryview) -> int:
    done = 0
    while done < len(into) and (got := os.preadv(handle, [into[done:]], at + done)):
        done += got
    return done


def _kind(path: Path) -> str | None:
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}", "'k3s-bake image' makes images to flash.")
    return archive_kind(path)


def unpacked_name(path: Path, packed: str | None) -> Path:
    """By what its block map and manifest are called: those of ``w.img.xz`` are of ``w.img``."""
    return path.with_suffix("") if packed and path.suffix in _PACKED else path


def _map_of(path: Path, packed: str | None, say: Callable[[str], None]) -> bmap.BlockMap | None:
    image = unpacked_name(path, packed)
    beside = image.with_name(image.name + ".bmap")
    try:
        with beside.open(encoding="ascii") as stream:
            text = stream.read(_MOST)
        parsed = bmap.parse(text)
    except FileNotFoundError:
        return None
    except ValueError as error:  # of the encoding, too
        raise UserError(
            f"{beside} is no block map that k3s-bake knows: {error}", "--no-bmap goes without it."
        ) from error
    try:
        known = json.loads(image.with_name(image.name + ".manifest.json").read_text(encoding="utf-8"))["bmap"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = None
    if known != hashlib.sha256(text.encode()).hexdigest():
        say(f"{beside} was not made with this image by k3s-bake: all of the image is written.")
        return None
    return parsed


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def manifest_of(source: Source) -> Path:
    image = unpacked_name(source.path, source.packed)
    return image.with_name(image.name + ".manifest.json")
