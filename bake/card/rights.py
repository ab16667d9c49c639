"""Opening cards: as the person may; where that is not enough by sudo, which opens them and no more."""

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bake import process
from bake.card import opener
from bake.card.target import Target
from firstboot.errors import UserError, WorkFailed

_NOT_ALLOWED = {errno.EACCES, errno.EPERM}
_LIMIT = 60.0
"""Seconds to open a card; there is no limit to typing a password."""

SUDO = ("sudo", "--")


@contextmanager
def opened(
    paths: Sequence[Path], say: Callable[[str], None], sudo: Sequence[str] = SUDO
) -> Iterator[list[Target]]:
    """All of them, claimed for us alone until the context ends. UserError for one that cannot be had."""
    targets: list[Target] = []
    try:
        try:
            for path in paths:
                targets.append(_target(_open(path), path))
            yield targets
        except _NotAllowedError as error:
            for target in targets:
                target.close()
            targets.clear()
            say(f"you may not write to {error.path} yourself: sudo opens it for you, and does no more")
            with _by_sudo(paths, sudo, error.path) as handles:
                for handle, path in zip(handles, paths, strict=True):
                    targets.append(_target(handle, path))
                yield targets
    finally:
        for target in targets:
            target.close()


class _NotAllowedError(Exception):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


def _open(path: Path) -> int:
    try:
        return os.open(path, opener.FLAGS)
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            raise _NotAllowedError(path) from error
        raise refusal(path, error.errno or 0) from error


@contextmanager
def _by_sudo(paths: Sequence[Path], sudo: Sequence[str], first: Path) -> Iterator[list[int]]:
    command = [*sudo, sys.executable, "-I", opener.__file__]
    if sudo:
        try:
            process.require(sudo[0])
        except UserError as error:
            raise UserError(
                f"you may not write to {first}, and there is no sudo to ask",
                f"As root, once: setfacl -m u:NAME:rw {first}, or install sudo.",
            ) from error
    with tempfile.TemporaryDirectory(prefix="k3s-bake-") as folder, _listening(folder) as listener:
        helper = process.attached(*command, f"{folder}/socket", *map(str, paths))
        try:
            with _answered(listener, helper, first) as other:
                handles: list[int] = []
                try:
                    for path in paths:
                        handles.append(_received(other, path))
                except BaseException:
                    for handle in handles:
                        os.close(handle)
                    raise
                yield handles
        finally:
            listener.close()  # a helper that has only just come finds nobody, and ends
            helper.wait()  # it asks for the new partition tables, and then it ends


@contextmanager
def _listening(folder: str) -> Iterator[socket.socket]:
    """In a folder that only this person and root can get at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen(1)
        listener.settimeout(0.2)
        yield listener


@contextmanager
def _answered(listener: socket.socket, helper: process.Background, first: Path) -> Iterator[socket.socket]:
    while True:
        try:
            other, _ = listener.accept()
            break
        except TimeoutError:
            if helper.poll() is not None:
                raise UserError(
                    f"you may not write to {first}, and sudo did not let you",
                    "Run it in a terminal, where sudo can ask for your password.",
                ) from None
    with other:
        other.settimeout(_LIMIT)
        yield other


def _received(other: socket.socket, path: Path) -> int:
    try:
        message, handles, _, _ = socket.recv_fds(other, 16, 1)
    except OSError as error:  # a time-out is one
        raise WorkFailed(f"{path} was not opened in {_LIMIT:.0f} s", "Plug it in again.") from error
    if not handles:
        raise refusal(path, int(message or b"0"))
    return handles[0]


def _target(handle: int, path: Path) -> Target:
    try:
        return Target(handle, path)
    except OSError as error:
        os.close(handle)
        raise refusal(path, error.errno or 0) from error


def refusal(path: Path, number: int) -> UserError:
    """What a person can do about an error of opening a card."""
    words, hint = {
        errno.EBUSY: ("is in use", "Unmount what is on it; another program may be writing to it."),
        errno.EROFS: ("is write-protected", "Push the card's little switch away from 'lock'."),
        errno.ENOMEDIUM: ("has no card in it", "Put one in."),
        errno.ENXIO: ("has no card in it", "Put one in."),
        errno.ENOENT: ("is not there any more", "Plug it in again."),
        errno.ENODEV: ("is not there any more", "Plug it in again."),
    }.get(number, (f"cannot be opened: {os.strerror(number)}", "Try another reader."))
    return UserError(f"{path} {words}", hint)
