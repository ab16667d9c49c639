"""Cards booted side by side: a copy of each image in a machine of its own, all on one link."""

import contextlib
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from bake import disk
from bake.draft import require_room
from bake.emulator.board import Board
from bake.emulator.dhcp import Lan
from bake.emulator.kernel import Kernel
from bake.emulator.link import Router, Switch
from bake.emulator.machine import Machine, Told
from bake.process import require
from bake.progress import Progress, Silent
from bake.sparse import copy_device, copy_sparsely, used
from firstboot.errors import UserError

TOOLS = ("qemu-system-arm", "setpriv", "sfdisk", "blkid", "debugfs", "mtype")
_CARD = 4 << 30  # bytes: of an image on a card, root grows into the rest
_SLACK = 1 << 30  # bytes that the machines write, more or less


@dataclass(frozen=True)
class Setup:
    """What is around the machines."""

    lan: Lan = field(default_factory=Lan)
    loss: float = 0.0
    """The part of frames, from 0 to 1, that get lost between machines."""
    expose: Mapping[int, int] = field(default_factory=dict)
    """Ports of this machine's loopback, each with the one of the first image's machine that it leads to."""
    board: Board = field(default_factory=Board)
    card: int = _CARD
    """Bytes of each card, at least; an image that is larger is a card of its own size."""


def check_images(images: Sequence[Path]) -> None:
    """UserError for what is no image of a card that boots here."""
    require(*TOOLS)
    for image in images:
        if not (image.is_file() or image.is_block_device()):
            what = "is not a file" if image.exists() else "does not exist"
            raise UserError(f"{image} {what}", "'k3s-bake image' makes images to boot.")
        arch = disk.architecture(image, disk.read_disk(image).root)
        if arch != "armhf":
            raise UserError(f"{image} is for {arch}", "Only images for armhf (Raspbian's) boot here.")


def names(images: Sequence[Path]) -> list[str]:
    """Of their machines: the files' names, ``worker.img#2`` for the second that is called so."""
    found: list[str] = []
    for image in images:
        name, at = image.name, 2
        while name in found:
            name, at = f"{image.name}#{at}", at + 1
        found.append(name)
    return found


class Lab:
    """Machines by name, all off at first. When the context ends they are gone, and their cards with them.

    Raises UserError for images that do not boot here and for ports that are taken.
    """

    def __init__(
        self,
        images: Sequence[Path],
        kernel: Kernel,
        setup: Setup | None = None,
        *,
        logs: Path | None = None,
        told: Told = lambda machine, word: None,
        progress: Progress | None = None,
    ) -> None:
        """``logs`` is a folder for the consoles' logs; without one they go with the cards. ``told`` is called
        from threads of the machines."""
        check_images(images)
        self.machines: dict[str, Machine] = {}
        self.setup = setup or Setup()
        _refuse_taken(self.setup.expose)
        self.switch = Switch(self.setup.lan, self.setup.loss)
        self._images = dict(zip(names(images), images, strict=True))
        self._kernel = kernel
        self._logs = logs
        self._told = told
        self._progress = progress or Silent()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Lab":
        with self._stack:
            folder = Path(self._stack.enter_context(_temporary()))
            _require_room(folder, sum(map(_size, self._images.values())) + _SLACK)
            self._stack.callback(self.switch.close)
            for at, name in enumerate(self._images):
                self.machines[name] = self._machine(at, name, folder)
                self._stack.callback(self.machines[name].power_off)
            self._route()
            self.switch.start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def machine(self, name: str) -> Machine:
        """By the name of its image, with or without the ``.img``."""
        return self.machines.get(name) or self.machines[f"{name}.img"]

    def power_on(self) -> None:
        for machine in self.machines.values():
            machine.power_on()

    def _machine(self, at: int, name: str, folder: Path) -> Machine:
        image, card = self._images[name], folder / f"{at}.img"
        size = image.stat().st_size or _size(image)
        with self._progress.task(f"copying {name}", size) as advance:
            if image.is_block_device():
                copy_device(image, card, size, advance)
            else:
                copy_sparsely(image, card, advance)
        card.chmod(0o600)  # it may hold a credential
        with card.open("r+b") as file:
            file.truncate(max(size, self.setup.card))
        port = self.switch.port(self.setup.lan.address(at))
        log = (self._logs or folder) / f"{name}.log"
        log.unlink(missing_ok=True)
        log.touch(0o600)
        return Machine(name, at, card, self._kernel, port, log, self.setup.board, self._told)

    def _route(self) -> None:
        """Without a port to expose nothing needs a router: the link is one of its own."""
        lan, expose = self.setup.lan, self.setup.expose
        if expose or lan.internet:
            router = Router(lan, self.switch.port(None), lan.address(0), expose)
            self._stack.callback(router.close)


def _size(image: Path) -> int:
    """Bytes of its copy, at most; of a card no more than its partitions have."""
    return disk.read_disk(image).end if image.is_block_device() else used(image)


def _temporary() -> tempfile.TemporaryDirectory[str]:
    """On a disk, not in memory: cards are large."""
    return tempfile.TemporaryDirectory(prefix="k3s-bake-boot-", dir=os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 (a folder of its own)


def _require_room(folder: Path, needed: int) -> None:
    try:
        require_room(folder, needed)
    except UserError as error:
        raise UserError(error.message, "Make room, or let TMPDIR name another folder.") from error


def _refuse_taken(ports: Mapping[int, int]) -> None:
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError as error:
                hint = f"Another one can lead there: --expose {port % 10_000 + 10_000}:{ports[port]}"
                raise UserError(
                    f"port {port} of this machine cannot be had: {error.strerror}", hint
                ) from error
