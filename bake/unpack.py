"""Taking the raw image out of what a base image is published in."""

import gzip
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from bake.cache import beside, publish, writing
from bake.progress import Progress
from firstboot.errors import UserError

_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)

_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # one without members
    b"\xfd7zXZ\x00": "xz",
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
}

_AGAIN = "fetch the file again and compare its checksum with the publisher's"
_UNPACK = "unpack it by hand and give the image's path"
BROKEN = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, zstandard.ZstdError)


def archive_kind(path: Path) -> str | None:
    """``zip``, ``xz``, ``gz``, ``zst``, or None for a raw image: by content, names lie."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def unpack(archive: Path, into: Path, progress: Progress) -> Path:
    """Writes the archive's image to ``into``, runs of zeros as holes; whole or not at all.

    Raises UserError where the archive is damaged or does not hold exactly one image.
    """
    part = beside(into, ".part")
    try:
        with archive.open("rb") as source, writing(into):
            with progress.task(f"Unpacking {archive.name}", archive.stat().st_size) as advance:
                _write_sparse(part, _watched(blocks(source, archive), source, advance))
            part.chmod(stat.S_IMODE(archive.stat().st_mode) | 0o600)  # what was private stays so
            if not part.stat().st_size:
                raise UserError(f"{archive} holds an empty image", _AGAIN)
            publish(part, into)
    except BROKEN as error:
        raise UserError(f"{archive} is cut off or damaged", _AGAIN) from error
    except NotImplementedError as error:
        raise UserError(f"{archive} is packed in an unusual way: {error}", _UNPACK) from error
    finally:
        part.unlink(missing_ok=True)
    return into


def blocks(source: IO[bytes], archive: Path) -> Iterator[bytes]:
    """Of the one image in an open archive, in order. UserError where there is not one, BROKEN for damage."""
    kind = archive_kind(archive)
    if kind == "zst":
        yield from _zstd_blocks(source)
        return
    with _opened(kind, source, archive) as stream:
        while block := stream.read(_BLOCK):
            yield block


def _opened(kind: str | None, source: IO[bytes], archive: Path) -> IO[bytes]:
    match kind:
        case "zip":
            return _zip_member(source, archive)
        case "xz":
            return lzma.open(source)
        case "gz":
            return cast(IO[bytes], gzip.open(source))
    return source


def _zip_member(source: IO[bytes], archive: Path) -> IO[bytes]:
    file = zipfile.ZipFile(source)
    images = [member for member in file.infolist() if member.filename.endswith(".img")]
    if len(images) != 1:
        found = ", ".join(member.filename for member in images) or "none"
        raise UserError(f"{archive} should hold one .img file, but holds: {found}", _UNPACK)
    if images[0].flag_bits & 1:
        raise UserError(f"{archive} is encrypted", _UNPACK)
    return file.open(images[0])


def _zstd_blocks(source: IO[bytes]) -> Iterator[bytes]:
    """By hand, because the library's own reader takes a cut-off file for a whole one.

    Little is fed at a time: four bytes can stand for 128 KiB of zeros.
    """
    frame = zstandard.ZstdDecompressor().decompressobj()
    while data := source.read(512):
        while data:
            if frame.eof:  # a file may hold several frames, one after the other
                frame = zstandard.ZstdDecompressor().decompressobj()
            out = frame.decompress(data)
            data = frame.unused_data
            yield from (out[start : start + _BLOCK] for start in range(0, len(out), _BLOCK))
    if not frame.eof:
        raise EOFError("the last frame is not complete")


def _watched(blocks: Iterator[bytes], source: IO[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    """Progress is how far the archive is read: how large the image will be is not always known."""
    seen = 0
    for block in blocks:
        now = source.tell()
        advance(max(0, now - seen))
        seen = max(seen, now)
        yield block


def _write_sparse(path: Path, blocks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            if block == _ZEROS[: len(block)]:
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
        file.truncate()
