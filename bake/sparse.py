"""Copies of files with holes: only what is there is read and written."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_STEP = 16 << 20  # bytes between two words on progress
_FICLONE = 0x40049409  # linux/fs.h: share all of a file's blocks, where the file system can (btrfs, XFS)


def copy_sparsely(source: Path, target: Path, done: Callable[[int], None]) -> None:
    """Copy a file without its holes; where the file system can, without copying anything.

    ``done`` is told the bytes copied since it was last called.
    """
    with source.open("rb") as reading, target.open("xb") as writing:
        size = os.fstat(reading.fileno()).st_size
        try:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
        except OSError:
            writing.truncate(size)
            _copy(reading.fileno(), writing.fileno(), (0, size), 0, done)
        else:
            done(size)


def copy_device(source: Path, target: Path, size: int, done: Callable[[int], None]) -> None:
    """The first ``size`` bytes of a block device to a new file, in which runs of zeros become holes."""
    zeros = bytes(_STEP)
    with source.open("rb", buffering=0) as reading, target.open("xb") as writing:
        writing.truncate(size)
        for at in range(0, size, _STEP):
            piece = _whole(reading.fileno(), min(_STEP, size - at), at)
            if piece != zeros[: len(piece)]:
                os.pwrite(writing.fileno(), piece, at)
            done(len(piece))


def _whole(source: int, size: int, at: int) -> bytes:
    """OSError where that cannot be read: what a device gives less of it may give when it is asked again."""
    found = b""
    while len(found) < size:
        piece = os.pread(source, size - len(found), at + len(found))
        if not piece:
            raise OSError(errno.EIO, "the device ends before its partitions")
        found += piece
    return found


def copy_out(image: Path, start: int, size: int, target: Path) -> None:
    """Part of an image as a file of its own; holes stay holes. Bytes, both."""
    with image.open("rb") as reading, target.open("wb") as writing:
        writing.truncate(size)
        _copy(reading.fileno(), writing.fileno(), (start, start + size), -start, _quietly)


def copy_in(source: Path, image: Path, start: int) -> None:
    """Put a file into an image, where its holes read as zeros afterwards, whatever was there.

    They matter: resize2fs empties an inode table by punching a hole.
    """
    with source.open("rb") as reading, image.open("r+b") as writing:
        size = os.fstat(reading.fileno()).st_size
        at = 0
        for first, last in [*extents(reading.fileno(), 0, size), (size, size)]:
            _clear(writing.fileno(), start + at, start + first)
            at = last
        _copy(reading.fileno(), writing.fileno(), (0, size), start, _quietly)


def used(path: Path) -> int:
    """Bytes that a sparse file takes on its disk."""
    return path.stat().st_blocks * 512


def data(path: Path, start: int, size: int) -> int:
    """Bytes of a part of a file that are no hole."""
    with path.open("rb") as file:
        return sum(last - first for first, last in extents(file.fileno(), start, start + size))


def release(path: Path) -> None:
    """Give the memory that caches a file's content to what is written next, once it is on its disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def extents(source: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where an open file has data between two offsets: first byte, and the byte after the last."""
    at = start
    while at < end:
        try:
            first = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole is left
        if first >= end:
            return
        at = min(os.lseek(source, first, os.SEEK_HOLE), end)
        yield first, at


def _clear(target: int, start: int, end: int) -> None:
    """Zeros over what data there is between two offsets; holes stay holes."""
    for first, last in list(extents(target, start, end)):
        for at in range(first, last, _STEP):
            os.pwrite(target, bytes(min(_STEP, last - at)), at)


def _copy(source: int, target: int, part: tuple[int, int], shift: int, done: Callable[[int], None]) -> None:
    """Copy ``part`` of one open file to another, ``shift`` bytes further on."""
    told, end = part
    for first, last in extents(source, *part):
        done(first - told)
        at = first
        while at < last:
            copied = _copy_piece(source, target, at, at + shift, min(_STEP, last - at))
            if not copied:
                raise OSError(errno.EIO, "the base image became shorter while it was copied")
            done(copied)
            at += copied
        told = last
    done(end - told)


def _copy_piece(source: int, target: int, at: int, to: int, size: int) -> int:
    """Bytes copied; within the kernel where it can, which is not from one file system to another."""
    try:
        return os.copy_file_range(source, target, size, at, to)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return os.pwrite(target, os.pread(source, size, at), to)


def _quietly(done: int) -> None:
    pass
