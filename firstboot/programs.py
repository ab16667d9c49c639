"""Run another program: the only place on the node that does.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO, List, Optional, Sequence, Tuple, Type

FAILED = 255
"""The exit code of ssh's own failures, and of a program that was not there, or was killed for its conduct."""

_MAX_COMPLAINT = 4096
"""Bytes of standard error that are looked at, from its end."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}


Result = Tuple[int, bytes, str]
"""Exit code, standard output and standard error."""


def run(
    command: Sequence[str],
    stdin: bytes = b"",
    most: int = 1 << 20,
    limit: float = 60.0,
    again: Sequence[float] = (),
) -> Result:
    """Killed, with its children, where it says more than ``most`` bytes or takes more than ``limit`` seconds.

    One that has not ended after the seconds of ``again`` is started once more beside it, for what may be done
    twice: where a network loses most packets, one of several gets through. The first to succeed counts, and
    as soon as one has said anything no further one is started.
    No secret may be in ``command``: anyone on the machine can read it.
    """
    begun = time.monotonic()
    starts = [0.0, *again]
    running: List[_Program] = []
    begun_any = False
    result: Result = (FAILED, b"", "")
    with contextlib.ExitStack() as stack:
        while running or not begun_any:
            passed = time.monotonic() - begun
            if running and any(program.has_spoken for program in running):
                starts = []
            if starts and passed >= starts[0]:
                del starts[0]
                begun_any = True
                try:
                    running.append(stack.enter_context(_Program(command, stdin)))
                except OSError as error:
                    return FAILED, b"", f"{command[0]}: {error.strerror}"
            seconds = min([limit, *starts[:1]]) - passed
            ready = select.select(running, [], [], max(0.0, seconds))[0]
            if not ready and passed >= limit:
                break
            for program in ready:
                if program.listen(most, begun + limit):
                    running.remove(program)
                    result = program.result
                    if result[0] != FAILED:
                        return result
    return result


class _Program:
    """Killed at the end of its ``with`` block."""

    def __init__(self, command: Sequence[str], stdin: bytes) -> None:
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._said = b""
        self._code = FAILED
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=self._complaint,
                    env=_ENVIRONMENT,
                    start_new_session=True,
                )
            except OSError:
                self._complaint.close()
                raise
        self._stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]

    def __enter__(self) -> "_Program":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._complaint.close()
        self._process.__exit__(kind, error, trace)

    @property
    def has_spoken(self) -> bool:
        return bool(self._said)

    def fileno(self) -> int:
        return self._stream.fileno()

    def listen(self, most: int, end: float) -> bool:
        """Whether it has ended, or has said too much."""
        piece = os.read(self.fileno(), 65536)
        self._said += piece
        if len(self._said) > most:
            self._said = b""
            return True
        if piece:
            return False
        try:
            self._code = self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._said = b""
        return True

    @property
    def result(self) -> Result:
        self._complaint.seek(max(0, self._complaint.seek(0, os.SEEK_END) - _MAX_COMPLAINT))
        return self._code, self._said, self._complaint.read().decode("utf-8", "replace")
