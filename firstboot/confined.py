"""A child process of little memory, for what strangers can make go wrong.

Runs on the node too: Python 3.7, standard library only.
"""

import logging
import os
import re
import resource
import signal
import time
from pathlib import Path
from typing import Callable

MEMORY = 64 << 20
"""Bytes that a child may use, beyond those of its parent at its start."""

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """Does ``work`` with its end of a pipe, silently, for ``seconds`` at most where given.

    ``work`` may raise whatever it likes: that only ends the child.
    """

    def __init__(self, work: Callable[[int], None], speaks: bool, seconds: float = 0) -> None:
        """``speaks``: the child writes to the pipe; else it only sees there that its parent has ended."""
        read_end, write_end = os.pipe()
        theirs, self.pipe = (write_end, read_end) if speaks else (read_end, write_end)
        self._gone = False
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # our handlers must not run in the child
        try:
            self._pid = os.fork()
            if self._pid == 0:
                try:
                    os.close(self.pipe)
                    _confine(seconds)
                    work(theirs)
                finally:
                    os._exit(0)
        except OSError:
            os.close(self.pipe)
            raise
        finally:
            os.close(theirs)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ended(self) -> bool:
        return self._gone or self._reaped(os.WNOHANG)

    def end(self, seconds: float = 0) -> None:
        """Closes our end of the pipe, and kills what has not ended by itself after ``seconds``."""
        os.close(self.pipe)
        until = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < until:
            time.sleep(0.02)
        if not self._gone:
            os.kill(self._pid, signal.SIGKILL)  # nobody else's: it is ours until it is waited for
            self._reaped(0)

    def _reaped(self, options: int) -> bool:
        try:
            self._gone = os.waitpid(self._pid, options)[0] != 0
        except ChildProcessError:  # this process ignores SIGCHLD, or waits for everybody
            self._gone = True
        return self._gone


def _confine(seconds: float) -> None:
    signal.set_wakeup_fd(-1)
    for stop in (*_STOPS, signal.SIGALRM):
        # Ctrl-C reaches the child, too: it is for its parent to say when to end.
        signal.signal(stop, signal.SIG_IGN if stop == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*_STOPS, signal.SIGALRM))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    logging.disable(logging.CRITICAL)  # zeroconf logs packets as they came
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    want = data_bytes() + MEMORY
    resource.setrlimit(
        resource.RLIMIT_DATA, (want if hard == resource.RLIM_INFINITY else min(want, hard), hard)
    )


def data_bytes() -> int:
    """Memory of this process, of the kind that RLIMIT_DATA limits."""
    found = re.search(r"^VmData:\s*([0-9]+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found.group(1)) << 10 if found else 0
