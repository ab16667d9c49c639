"""What is written to: a block device, or a plain file in its place. Past the page cache where that goes."""

import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from firstboot.errors import WorkFailed

BLOCK = 4096
"""Bytes: what is aligned to it is aligned for any card."""

_BLKGETSIZE64, _BLKSSZGET, _BLKRRPART = 0x80081272, 0x1268, 0x125F  # linux/fs.h
_GONE = {errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM}


class CardFailed(WorkFailed):
    """Of one card; the others go on."""


def buffer(size: int) -> memoryview:
    """Aligned to a page, as O_DIRECT wants it."""
    return memoryview(mmap.mmap(-1, size))


class Target:
    """An open card. Errors are CardFailed and name the byte."""

    def __init__(self, handle: int, path: Path) -> None:
        """Takes the open file over. OSError where it has no size to be asked for."""
        self.handle = handle
        self.path = path
        status = os.fstat(handle)
        self.is_block = stat.S_ISBLK(status.st_mode)
        self.number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if self.is_block else ""
        self.size = self._ask(_BLKGETSIZE64, "Q") if self.is_block else status.st_size
        self.sector = self._ask(_BLKSSZGET, "I") if self.is_block else 512
        self._scratch = buffer(2 * BLOCK)
        self.in_use = False
        """A thread may be reading or writing right now."""

    def _ask(self, request: int, kind: str) -> int:
        answer = fcntl.ioctl(self.handle, request, bytes(struct.calcsize(kind)))
        return int(struct.unpack(kind, answer)[0])

    def write(self, at: int, data: memoryview) -> None:
        """At a multiple of BLOCK, from a ``buffer``; a last piece is filled with zeros to a whole sector."""
        whole = len(data) - len(data) % self.sector
        self._all(os.pwritev, "write", at, data[:whole])
        if rest := len(data) - whole:
            self._scratch[: self.sector] = bytes(self.sector)
            self._scratch[:rest] = data[whole:]
            self._all(os.pwritev, "write", at + whole, self._scratch[: self.sector])

    def read_into(self, at: int, data: memoryview) -> None:
        """The counterpart of ``write``; ``data`` has room for whole sectors."""
        self._all(os.preadv, "read", at, data)

    def overwrite(self, at: int, data: bytes) -> None:
        """Anywhere, what is around stays."""
        for piece_at in range(at, at + len(data), BLOCK):
            piece = data[piece_at - at : piece_at - at + BLOCK]
            start = piece_at - piece_at % BLOCK
            self.read_into(start, self._scratch)
            self._scratch[piece_at - start : piece_at - start + len(piece)] = piece
            self._all(os.pwritev, "write", start, self._scratch)

    def read(self, at: int, size: int) -> bytes:
        start = at - at % BLOCK
        area = buffer(-(-(at + size - start) // BLOCK) * BLOCK)
        self.read_into(start, area)
        return bytes(area[at - start : at - start + size])

    def flush(self) -> None:
        """To the card itself; what is read next comes from there."""
        try:
            os.fdatasync(self.handle)
            os.posix_fadvise(self.handle, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise failure("write", None, error) from error

    def reread_table(self) -> None:
        """Have the kernel take the new partitions. It does so for root, where nobody else looks at them."""
        if self.is_block:
            with suppress(OSError):
                fcntl.ioctl(self.handle, _BLKRRPART)

    def close(self) -> None:
        """Not under a thread that hangs in the kernel: it would go on with whatever is opened next under
        its number. Then it ends with the process."""
        if not self.in_use:
            os.close(self.handle)

    def _all(
        self, do: Callable[[int, list[memoryview], int], int], verb: str, at: int, data: memoryview
    ) -> None:
        """The kernel may do less than was asked for, without calling it an error."""
        done = 0
        while done < len(data):
            try:
                count = do(self.handle, [data[done:]], at + done)
            except OSError as error:
                if error.errno == errno.EINVAL and self._leave_direct():
                    continue
                raise failure(verb, at + done, error) from error
            if count <= 0:
                raise failure(verb, at + done, OSError(errno.EIO, "it ends there"))
            done += count

    def _leave_direct(self) -> bool:
        """A file system or a short write may want other alignments: by the page cache all are good."""
        flags = fcntl.fcntl(self.handle, fcntl.F_GETFL)
        if not flags & os.O_DIRECT:
            return False
        fcntl.fcntl(self.handle, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return True


def failure(verb: str, at: int | None, error: OSError) -> CardFailed:
    """In words, with what a person can try: is it the card, or its reader?"""
    where = "" if at is None else f" at byte {at}"
    if error.errno in _GONE:
        hint = "It was pulled out, or its reader or cable fails: plug it in again, try another reader."
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "The disk that holds it is full."
    elif at is not None:
        hint = "If it fails at the same byte in another reader, the card is worn out; else it is the reader."
    else:
        hint = "Try another reader, then another card."
    return CardFailed(f"cannot {verb}{where}: {error.strerror}", hint)
