"""Run another program: the only place on the node that does.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, List, Optional, Sequence, Tuple, Type, cast

FAILED = 255
"""The exit code of ssh's own failures, and of a program that was not there, or was killed for its conduct."""

_MAX_COMPLAINT = 4096
"""Bytes of standard error that are looked at, from its end."""

_GLANCE = 0.1
"""Seconds between looks at what one complains of that says nothing more."""

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
            streams = [stream for program in running for stream in program.streams]
            ready = select.select(streams, [], [], max(0.0, seconds))[0]
            if not ready and passed >= limit:
                break
            for program in list(running):
                if program.listen(ready, most, begun + limit):
                    running.remove(program)
                    result = program.result
                    if result[0] != FAILED:
                        return result
    return result


class _Program:
    """Killed at the end of its ``with`` block."""

    def __init__(self, command: Sequence[str], stdin: bytes) -> None:
        self._said = b""
        self._complaint = b""
        self._code = FAILED
        with _file_with(stdin) if stdin else Path(os.devnull).open("rb") as given:
            self._process = subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        self.streams: List[IO[bytes]] = [self._stdout, self._stderr]
        """Those that it may still say something on."""

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
        self._process.__exit__(kind, error, trace)

    @property
    def has_spoken(self) -> bool:
        return bool(self._said)

    @property
    def _stdout(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stdout)

    @property
    def _stderr(self) -> IO[bytes]:
        return cast(IO[bytes], self._process.stderr)

    def listen(self, ready: Sequence[IO[bytes]], most: int, end: float) -> bool:
        """Whether it has ended, or has said too much. ``ready``: streams that can be read."""
        if self._stderr in ready:
            self._hear_complaint()
        if self._stdout not in ready:
            return False
        piece = os.read(self._stdout.fileno(), 65536)
        self._said += piece
        if len(self._said) > most:
            self._said = b""
            return True
        if not piece:
            self._await(end)
        return not piece

    def _await(self, end: float) -> None:
        """It says nothing more, but may go on to complain."""
        while self._process.returncode is None:
            left = end - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, min(_GLANCE, left)))
            if self._stderr in self.streams and select.select([self._stderr], [], [], 0)[0]:
                self._hear_complaint()
            if self._process.returncode is None and left <= 0:
                self._said = b""
                return
        self._code = self._process.returncode

    def _hear_complaint(self) -> None:
        piece = os.read(self._stderr.fileno(), 65536)  # all that a pipe holds
        self._complaint = (self._complaint + piece)[-_MAX_COMPLAINT:]
        if not piece:
            self.streams.remove(self._stderr)

    @property
    def result(self) -> Result:
        return self._code, self._said, self._complaint.decode("utf-8", "replace")


def _file_with(content: bytes) -> IO[bytes]:
    import tempfile  # brings random, shutil and three compressors along: for who needs it

    made = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    made.write(content)
    made.seek(0)
    return made
