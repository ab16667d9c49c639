"""A card in a machine: QEMU's virt board, emulated, with the image's own cmdline.txt, and its console."""

import contextlib
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from guest.look import Image

from boot.kernel import Kernel

_CONSOLE = "console=ttyAMA0 systemd.show_status=0"
_BUSTER = "systemd.unified_cgroup_hierarchy=0"  # cgroup v1, as systemd 241 has it
_PROMPT = "@@@ "


class Machine:
    """A copy of an image, switched on: the image itself stays as it is."""

    def __init__(self, image: Path, kernel: Kernel, work: Path) -> None:
        self.card = work / "card.img"
        subprocess.run(["cp", "--sparse=always", image, self.card], check=True)
        self._kernel = kernel
        self.log = work / "console.log"

    @property
    def cmdline(self) -> str:
        """What the firmware gives the kernel now; a Pi's own has its memory cgroup off unless it is told."""
        words = Image(self.card).boot("cmdline.txt").splitlines()[0]
        asked = {"cgroup_memory=1", "cgroup_enable=memory"} <= set(words.split())
        return f"{words} {_CONSOLE} {_BUSTER}{'' if asked else ' cgroup_disable=memory'}"

    @contextlib.contextmanager
    def on(self) -> Iterator["Console"]:
        """Switched on until the block ends, or the system restarts: then call it again."""
        ours, theirs = socket.socketpair()
        board = ["-M", "virt,highmem=off", "-cpu", "cortex-a15", "-smp", "2", "-m", "512"]
        boot = ["-kernel", self._kernel.kernel, "-initrd", self._kernel.initrd, "-append", self.cmdline]
        drive = ["-drive", f"if=none,id=card,format=raw,cache=unsafe,file={self.card}"]
        devices = ["-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci"]
        how = ["-accel", "tcg,thread=multi,tb-size=128", "-nodefaults", "-display", "none", "-no-reboot"]
        command = [*map(str, ["qemu-system-arm", *board, *boot, *drive, *devices, *how, "-serial", "stdio"])]
        with self.log.open("ab") as log, theirs, ours:
            process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.STDOUT)
            theirs.close()
            try:
                yield Console(process, ours, log.fileno())
            finally:
                process.kill()
                process.wait()


class Console:
    """What the machine says, and what is typed. Waits end after ``limit`` seconds: an emulated boot takes 40
    on an idle machine."""

    limit = 600.0

    def __init__(self, process: "subprocess.Popen[bytes]", line: socket.socket, log: int) -> None:
        self._process = process
        self._line = line
        self._log = log
        self._said = ""

    def until(self, pattern: str) -> str:
        """What was said before the pattern. AssertionError where it does not come."""
        end = time.monotonic() + self.limit
        while not (found := re.search(pattern, self._said)):
            assert time.monotonic() < end, f"no {pattern!r} in time after: {self._said[-2000:]}"
            assert self._hear(), f"the machine went off before {pattern!r}: {self._said[-2000:]}"
        before, self._said = self._said[: found.start()], self._said[found.end() :]
        return before

    def until_off(self) -> str:
        """All that is said until the machine is off or, as it may not restart, would restart."""
        end = time.monotonic() + self.limit
        while self._hear():
            assert time.monotonic() < end, f"still on, after: {self._said[-2000:]}"
        return self._said

    def log_in(self, user: str, password: str) -> None:
        self.until("login: ")
        self.type(user)
        self.until("Password: ")
        self.type(password)
        self.until(r"\$ ")
        self.type(
            "stty -echo cols 500; unset PROMPT_COMMAND; PS1='@@''@ '; export PATH=$PATH:/usr/sbin TERM=dumb"
        )
        self.until(_PROMPT)

    def run(self, command: str) -> str:
        """What a command prints."""
        self.type(command)
        return self.until(_PROMPT).replace("\r", "").strip()

    def type(self, line: str) -> None:
        self._line.sendall(line.encode() + b"\n")

    def _hear(self) -> bool:
        """Whether the machine is still on."""
        ready, _, _ = select.select([self._line], [], [], 1)
        piece = self._line.recv(65536) if ready else b""
        os.write(self._log, piece)
        self._said += piece.decode(errors="replace")
        return bool(piece) or (not ready and self._process.poll() is None)
