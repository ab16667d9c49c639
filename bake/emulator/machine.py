"""A card in a machine: QEMU's virt board, emulated, with the card's own cmdline.txt, and its console."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bake import disk
from bake.emulator import board
from bake.emulator.board import Board
from bake.emulator.console import OFF, RESTARTING, Scanner, Word
from bake.emulator.kernel import Kernel
from bake.emulator.link import Port
from bake.fat import Fat
from bake.process import Background, start
from firstboot.errors import UserError, WorkFailed

# The last console is the one that the agent and the login speak on; a Pi's interface is eth0.
_CONSOLE = "console=ttyAMA0 systemd.show_status=0 net.ifnames=0"
_BUSTER = "systemd.unified_cgroup_hierarchy=0"  # cgroup v1, as systemd 241 has it
_RESET = b'"guest-reset"'  # QEMU's reason to end, where it may not restart and the system would
_KEPT = 1 << 20  # characters of console that until() can still find


Told = Callable[["Machine", Word], None]


class Machine:
    """One machine with its card. A restart of the system is followed, as on a board; ``told`` is called from
    a thread of this machine's own."""

    def __init__(
        self, name: str, at: int, card: Path, kernel: Kernel, port: Port, log: Path, kind: Board, told: Told
    ) -> None:
        """``at`` numbers the machines of a link from 0: it makes serial number and network address."""
        self.name = name
        self.card = card
        self.port = port
        self.log = log
        self.serial = board.serial(at)
        self.tap: Callable[[bytes], None] = lambda piece: None
        """Is given all that comes from the console."""
        self.clock: str | None = None
        """Where its clock starts each time, as QEMU takes it: ``2019-01-01T00:00:00``; None: now."""
        self._boot = disk.read_disk(card).boot.start
        self._kernel = kernel
        self._board = kind
        self._mac = board.mac(at)
        self._tree = card.with_suffix(".dtb")
        board.describe(kind, self.serial, self._tree)
        self._told = told
        self._thread: threading.Thread | None = None
        self._process: Background | None = None
        self._console: socket.socket | None = None
        self._heard = threading.Condition()
        self._text = ""
        self._power = threading.Event()
        self.failure: UserError | None = None
        """Why it went off, where that was not its own doing."""

    @property
    def cmdline(self) -> str:
        """What the firmware gives the kernel now; a Pi's own has its memory cgroup off unless it is told.

        UserError where the card has no cmdline.txt.
        """
        fat = Fat(self.card, self._boot, disk.EARLIEST)
        found = fat.entry(fat.top, "cmdline.txt")
        lines = fat.contents([found])[found.inode].decode("utf-8", "replace").splitlines() if found else []
        if not lines:
            raise UserError(
                f"{self.name} has no cmdline.txt on its FAT", "Is it the image of a Raspberry Pi?"
            )
        asked = {"cgroup_memory=1", "cgroup_enable=memory"} <= set(lines[0].split())
        return f"{lines[0]} {_CONSOLE} {_BUSTER}{'' if asked else ' cgroup_disable=memory'}"

    @property
    def is_on(self) -> bool:
        return self._power.is_set()

    def power_on(self) -> None:
        """Returns at once; a machine that is on stays on. UserError where the card has no cmdline.txt."""
        if self._power.is_set():
            return
        _ = self.cmdline
        self.failure = None
        self._power.set()
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self._thread.start()

    def power_off(self) -> None:
        """The power cut: nothing is shut down. The card stays as it is."""
        with self._heard:
            self._power.clear()
            if self._process:
                self._process.kill()
        if self._thread:
            self._thread.join()

    def until(self, pattern: str, limit: float = 600.0) -> str:
        """What the console said before the pattern, since the last call.

        WorkFailed where it does not come within ``limit`` seconds, or the machine goes off before.
        """
        end = time.monotonic() + limit
        with self._heard:
            while not (found := re.search(pattern, self._text)):
                if self.failure:
                    raise self.failure
                left = end - time.monotonic()
                if left < 0 or not self._power.is_set():
                    why = "in time" if self._power.is_set() else "before it went off"
                    raise WorkFailed(f"{self.name} did not say {pattern!r} {why}; last: {self._text[-2000:]}")
                self._heard.wait(min(left, 1))
            before, self._text = self._text[: found.start()], self._text[found.end() :]
            return before

    def type(self, text: bytes) -> None:
        """Into the console. What is typed while the machine restarts is lost."""
        with self._heard:
            if self._console:
                self._console.sendall(text)

    def _live(self) -> None:
        """Until it is switched off, or switches itself off. On a restart the firmware reads the card anew."""
        try:
            while self._power.is_set() and self._boot_once():
                pass
        except UserError as error:
            self.failure = error
        except OSError as error:  # of the log, say: its disk is full
            self.failure = WorkFailed(f"{self.name}: {error}")
        finally:
            self._power.clear()
            with self._heard:
                self._heard.notify_all()
            self._told(self, Word(OFF))

    def _boot_once(self) -> bool:
        """Whether the system has restarted."""
        command = self._command()
        console, its_console = socket.socketpair()
        monitor, its_monitor = socket.socketpair()
        monitor.sendall(b'{"execute": "qmp_capabilities"}\n')  # without it no event is told
        self.port.drain()
        with console, its_console, monitor, its_monitor:
            with self._heard:
                if not self._power.is_set():
                    return False
                events = its_monitor.fileno()
                command += [
                    "-chardev",
                    f"socket,id=monitor,fd={events}",
                    "-mon",
                    "chardev=monitor,mode=control",
                ]
                # By this thread, which lives as long: the kernel kills QEMU when the thread is gone.
                process = start(*command, console=its_console.fileno(), keep_open=[self.port.handle, events])
                self._process, self._console = process, console
            its_console.close()
            its_monitor.close()
            try:
                self._hear(console)
            finally:
                with self._heard:
                    self._console = None
                process.kill()
                code = process.wait()
            restarted = _RESET in b"".join(iter(lambda: _received(monitor), b""))
        if not self._power.is_set():
            return False
        if code > 0:
            raise WorkFailed(f"QEMU failed with {self.name}: {self._text[-500:].strip()}")
        if restarted:
            self._told(self, Word(RESTARTING))
        return restarted

    def _hear(self, console: socket.socket) -> None:
        """All that is said until QEMU ends."""
        scanner = Scanner()
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "ab", buffering=0) as log:
            while piece := _received(console):
                log.write(piece)
                self.tap(piece)
                with self._heard:
                    self._text = (self._text + piece.decode(errors="replace"))[-_KEPT:]
                    self._heard.notify_all()
                for word in scanner.feed(piece):
                    self._told(self, word)
        for word in scanner.end():
            self._told(self, word)

    def _command(self) -> list[str]:
        kind = ["-M", board.MACHINE, "-dtb", self._tree, *self._board.options]
        kind += ["-rtc", f"base={self.clock}"] if self.clock else []
        boot = ["-kernel", self._kernel.kernel, "-initrd", self._kernel.initrd, "-append", self.cmdline]
        drive = [
            "-drive",
            f"if=none,id=card,format=raw,cache=unsafe,file={str(self.card).replace(',', ',,')}",
        ]
        devices = ["-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci"]
        net = ["-netdev", f"socket,id=link,fd={self.port.handle}"]
        net += ["-device", f"virtio-net-pci,netdev=link,mac={self._mac},romfile="]
        how = ["-accel", "tcg,thread=multi,tb-size=128", "-nodefaults", "-display", "none", "-no-reboot"]
        return [
            *map(str, ["qemu-system-arm", *kind, *boot, *drive, *devices, *net, *how, "-serial", "stdio"])
        ]


def _received(console: socket.socket) -> bytes:
    """Empty at the end: a QEMU that was killed may have left bytes unread, which is a reset here."""
    try:
        return console.recv(65536)
    except ConnectionResetError:
        return b""
