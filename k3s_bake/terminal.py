"""This terminal as a machine's console: each key goes there, as it is pressed."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from firstboot.errors import UserError

_LEAVE = b"\x1d"  # Ctrl-]


def require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--console takes a terminal, and this is none", "--until login waits without one.")


def show(piece: bytes) -> None:
    """Console output, as it is: it is for this terminal to act on."""
    os.write(sys.stdout.fileno(), piece)


def pass_keys(type_in: Callable[[bytes], None], lasts: Callable[[], bool]) -> None:
    """Until Ctrl-] is pressed, or as long as ``lasts`` says."""
    with _raw(sys.stdin.fileno()) as handle:
        while lasts():
            ready, _, _ = select.select([handle], [], [], 0.5)
            keys = os.read(handle, 1024) if ready else b""
            before, left, _ = keys.partition(_LEAVE)
            type_in(before)
            if left or (ready and not keys):
                return


@contextlib.contextmanager
def _raw(handle: int) -> Iterator[int]:
    kept = termios.tcgetattr(handle)
    try:
        tty.setraw(handle)
        yield handle
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, kept)
