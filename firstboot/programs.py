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
from typing import IO, Sequence, Tuple

FAILED = 255
"""The exit code of ssh's own failures, and of a program that was not there, or was killed for its conduct."""

_MAX_COMPLAINT = 4096
"""Bytes of standard error that are looked at, from its end."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/root",
}


def run(
    command: Sequence[str], stdin: bytes = b"", most: int = 1 << 20, limit: float = 60.0
) -> Tuple[int, bytes, str]:
    """Exit code, standard output and standard error.

    Killed, with its children, where it says more than ``most`` bytes or takes more than ``limit`` seconds.
    No secret may be in ``command``: anyone on the machine can read it.
    """
    end = time.monotonic() + limit
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaint:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=complaint,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            return FAILED, b"", f"{command[0]}: {error.strerror}"
        with process:
            try:
                code, said = _listen(process, most, end)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        complaint.seek(max(0, complaint.seek(0, os.SEEK_END) - _MAX_COMPLAINT))
        return code, said, complaint.read().decode("utf-8", "replace")


def _listen(process: "subprocess.Popen[bytes]", most: int, end: float) -> Tuple[int, bytes]:
    said = b""
    stream: IO[bytes] = process.stdout  # type: ignore[assignment]
    while len(said) <= most and select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            try:
                return process.wait(max(0.0, end - time.monotonic())), said
            except subprocess.TimeoutExpired:
                break
        said += piece
    return FAILED, b""
