"""Files in the making: beside their final place, under a lock, published by rename or gone without trace."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bake.cache import publish
from firstboot.errors import UserError, WorkFailed

_STEP = 16 << 20  # bytes between two words on progress

_FICLONE = 0x40049409  # linux/fs.h: share all of a file's blocks, where the file system can (btrfs, XFS)


class Draft:
    """A folder beside the output, on the same file system, that nobody else works in."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        self.output = output
        self.image = folder / "image"

    def publish(self, texts: dict[Path, str], *, private: bool, force: bool) -> None:
        """The image under its name, then ``texts`` beside it.

        Cut off in between, a whole image may lack its texts, but never stands beside those of another.
        ``private``: for this user alone to read. UserError where, without ``force``, something has taken the
        image's place meanwhile.
        """
        mask = os.umask(0o077)
        os.umask(mask)
        self.image.chmod(0o600 if private else 0o666 & ~mask)
        for target in texts:
            target.unlink(missing_ok=True)
        with self.image.open("rb") as stream:
            os.fsync(stream.fileno())
        if not force:
            _link_anew(self.image, self.output)
        publish(self.image, self.output)
        for target, text in texts.items():
            part = self.folder / target.name
            part.write_text(text, encoding="utf-8")
            publish(part, target)


@contextlib.contextmanager
def drafting(output: Path) -> Iterator[Draft]:
    """A draft of ``output``. What an earlier run that was killed has left is removed first.

    Raises UserError where another run is at it, or the folder cannot be written to; WorkFailed for a disk
    that fills up.
    """
    folder = output.with_name(f".{output.name}.k3s-bake")
    with _worded(output.parent), _locked(folder):
        try:
            for left in folder.iterdir():
                left.unlink()
            yield Draft(folder, output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _link_anew(image: Path, output: Path) -> None:
    """Give a file a second name that nothing may have; a file system without links only checks it."""
    try:
        output.hardlink_to(image)
    except OSError as error:
        if output.exists():
            raise UserError(f"{output} is there already", "--force replaces it.") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = _own_folder(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel drops it when the process ends
        if not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise BlockingIOError  # the run that held it has just removed it
        yield
    except BlockingIOError as error:
        raise UserError(
            f"another k3s-bake is making {folder.name[1:].removesuffix('.k3s-bake')} in {folder.parent}",
            "Wait for it, or choose another --output.",
        ) from error
    finally:
        os.close(handle)


def _own_folder(folder: Path) -> int:
    """An open folder that is this user's alone. UserError for what somebody else has put in its place."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise UserError(f"{folder} is in the way", "Remove it: it is not a folder.") from error
    status = os.fstat(handle)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(handle)
        raise UserError(f"{folder} is in the way", "Remove it: others can write or read there.")
    return handle


@contextlib.contextmanager
def _worded(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkFailed(
                f"the disk of {folder} is full", "Make room, or choose another --output."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"cannot write to {folder}: {error.strerror}", "Choose another --output."
            ) from error
        raise


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
            _copy_data(reading.fileno(), writing.fileno(), size, done)
        else:
            done(size)


def _copy_data(source: int, target: int, size: int, done: Callable[[int], None]) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            start = end = size  # only a hole is left
        else:
            end = os.lseek(source, start, os.SEEK_HOLE)
        done(start - at)
        at = start
        while at < end:
            copied = _copy_piece(source, target, at, min(_STEP, end - at))
            if not copied:
                raise OSError(errno.EIO, "the base image became shorter while it was copied")
            done(copied)
            at += copied


def _copy_piece(source: int, target: int, at: int, size: int) -> int:
    """Bytes copied; within the kernel where it can, which is not from one file system to another."""
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    return os.pwrite(target, os.pread(source, size, at), at)


def used(path: Path) -> int:
    """Bytes that a sparse file takes on its disk."""
    return path.stat().st_blocks * 512


def require_room(folder: Path, needed: int) -> None:
    """UserError where the disk of ``folder`` has not that many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free >> 20} MiB free, and the image needs {needed >> 20} MiB",
            "Make room, or choose another --output.",
        )
