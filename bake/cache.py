"""Where downloads and the operator's data live, and how a file gets there whole or not at all."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from firstboot.errors import UserError, WorkFailed

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
_MOVE_HINT = "K3S_BAKE_HOME names another folder for cache and data"


@dataclass(frozen=True)
class Home:
    cache: Path
    """What can be fetched or made again: deleting it costs only time."""
    data: Path
    """What cannot: the clusters' signing keys."""


def home() -> Home:
    """``$K3S_BAKE_HOME/cache`` and ``/data`` where that is set, else the platform's own places."""
    if moved := os.environ.get("K3S_BAKE_HOME"):
        root = Path(moved).expanduser().absolute()
        return Home(root / "cache", root / "data")
    return Home(platformdirs.user_cache_path("k3s-bake"), platformdirs.user_data_path("k3s-bake"))


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Makes the target's folder, and words what the disk says while the target is being written.

    Raises WorkFailed where the disk is full, UserError where this user may not write there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WorkFailed(f"no space left on the disk of {target.parent}", _MOVE_HINT) from error
        if error.errno in _REFUSED:
            raise UserError(f"cannot write to {target.parent}: {error.strerror}", _MOVE_HINT) from error
        raise


@contextmanager
def locked(target: Path, title: str, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process makes ``target`` at a time; a second one says that it waits for the first."""
    lock = FileLock(beside(target, ".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"another k3s-bake is fetching {title}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def publish(part: Path, target: Path) -> None:
    """Gives a finished part its name: after a power cut the target is whole or absent."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def beside(target: Path, suffix: str) -> Path:
    """``k3s.img`` and ``.part`` give ``k3s.img.part`` (``with_suffix`` would replace)."""
    return target.with_name(target.name + suffix)
