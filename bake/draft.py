"""Files in the making: beside their final place, under a lock, published by rename or gone without trace."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bake.cache import publish
from firstboot.errors import UserError, WorkFailed


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


def require_room(folder: Path, needed: int) -> None:
    """UserError where the disk of ``folder`` has not that many bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free >> 20} MiB free, and {needed >> 20} MiB are needed",
            "Make room, or choose another --output.",
        )
