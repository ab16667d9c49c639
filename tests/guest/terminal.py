"""k3s-bake at a terminal of its own, talked to as a person would."""

import os
import pty
import select
import subprocess
import time

from guest.conftest import CLI


class Terminal:
    def __init__(self, environment: dict[str, str], *arguments: object) -> None:
        self._ours, theirs = pty.openpty()
        self.heard = self.before = ""
        self._process = subprocess.Popen(
            [str(CLI), *map(str, arguments)],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def expect(self, text: str, seconds: float = 120) -> None:
        """What is heard up to it is done with, and is in ``before``."""
        end = time.monotonic() + seconds
        while text not in self.heard:
            assert self._read(end - time.monotonic()), f"{text!r} did not come, but: {self.heard}"
        self.before, _, self.heard = self.heard.partition(text)

    def say(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    def end(self) -> int:
        """Its exit code; ``heard`` has the rest."""
        while self._read(120):
            pass
        os.close(self._ours)
        return self._process.wait(60)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, seconds))
        try:
            piece = os.read(self._ours, 4096) if ready else b""
        except OSError:  # the other end is closed
            piece = b""
        self.heard += piece.decode("utf-8", "replace")
        return bool(piece)
