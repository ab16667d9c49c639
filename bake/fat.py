"""The boot file system (FAT) inside an image file, by mtools: without mounting it.

A volume as bake.e2fs walks it: folders and files are known by number. Names are found whatever their case, as
the node's kernel does. What is edited is written at once: it is little.
"""

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bake.process import run, stream
from bake.volumes import Entry
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import MAX_CONTENT

_TOP = 0
_LIMIT = 120
"""Seconds: a tool takes milliseconds, unless a damaged FAT leads it in a circle."""
_FULL = re.compile("Disk full|No directory slots")
"""As mtools words it. The slots are those of the top folder of a FAT12 or FAT16."""
_NAME = re.compile(r"(?=.{1,255}$)[ -~]*[!-~]")
_NEVER = set('"*/:<>?\\|')  # in no FAT name, the first by Microsoft's specification of long names


class Fat:
    """``start`` is the file system's first byte in the image; what is written carries the time ``epoch``."""

    modeless = True
    top = _TOP

    def __init__(self, image: Path, start: int, epoch: int) -> None:
        self._image, self._start = image, start
        self._env = {
            "MTOOLS_SKIP_CHECK": "1",  # a Pi boots from sizes that mtools finds odd
            "MTOOLSRC": os.devnull,
            "SOURCE_DATE_EPOCH": str(epoch),
            "TZ": "UTC",
        }
        self._paths = [""]  # by number: the top, and all that was met since
        self._folders: dict[str, dict[str, Entry]] = {}  # by path, in lower case

    # reading

    def entries(self, folder: int) -> Mapping[str, Entry]:
        """One folder at a time: a hostile FAT can hold more paths than anyone can list."""
        path = self._paths[folder]
        if path.lower() not in self._folders:
            found = self._folders[path.lower()] = {}
            for line in self._list(path):
                name = line.rstrip("/").rpartition("/")[2]
                mode = stat.S_IFDIR if line.endswith("/") else stat.S_IFREG
                found[name] = Entry(len(self._paths), mode, 0, 0, 0)
                self._paths.append(f"{path}/{name}".lstrip("/"))
        return self._folders[path.lower()]

    def entry(self, folder: int, name: str) -> Entry | None:
        found = self.entries(folder)
        same = (other for spelt, other in found.items() if spelt.lower() == name.lower())
        return found.get(name) or next(same, None)

    def target(self, link: Entry) -> str:
        raise AssertionError("a FAT has no links")

    def contents(self, files: Iterable[Entry]) -> dict[int, bytes]:
        """All bytes of files, by their number. UserError for one beyond MAX_CONTENT."""
        return {file.inode: b"".join(self._bounded(file)) for file in files}

    def pieces(self, file: Entry) -> Iterable[bytes]:
        path = self._spelt(self._paths[file.inode])
        with self._device() as (device, handle):
            yield from stream("mtype", "-i", device, path, env=self._env, keep_open=[handle])

    def _bounded(self, file: Entry) -> Iterator[bytes]:
        size = 0
        for piece in self.pieces(file):
            size += len(piece)
            if size > MAX_CONTENT:
                raise UserError(
                    f"{self._paths[file.inode]} on the FAT is far too large", "Is it a boot partition?"
                )
            yield piece

    def _list(self, path: str) -> list[str]:
        try:
            lines = self._run("mdir", "-a", "-b", self._spelt(path)).split("\n")
        except WorkFailed as error:
            if error.message.endswith("not found"):  # it is empty, or new
                return []
            raise
        return [line for line in lines if line]

    def forget(self) -> None:
        self._folders.clear()

    # writing

    def make_folder(self, folder: int, name: str, mode: int, owner: int, group: int) -> int:
        path = self._path(folder, name)
        self._run("mmd", self._new(path))
        self.forget()
        self._paths.append(path)
        return len(self._paths) - 1

    def remove(self, folder: int, name: str) -> None:
        if self.entry(folder, name):
            self._run("mdel", self._spelt(self._path(folder, name)))
            self.forget()

    def link(self, folder: int, name: str, target: str) -> None:
        raise UserError(
            f"{name}: a FAT file system holds no links", "Nothing on the boot partition can be one."
        )

    def write(self, folder: int, name: str, source: int, mode: int, owner: int, group: int) -> None:
        path = self._path(folder, name)
        self._run("mcopy", f"/proc/self/fd/{source}", self._new(path), keep_open=[source])
        self.forget()

    def commit(self) -> None:
        """Nothing is left to write."""

    def _path(self, folder: int, name: str) -> str:
        """UserError for a name that mtools would change on its way."""
        if not _NAME.fullmatch(name) or name.endswith(".") or _NEVER & set(name):
            raise UserError(
                f"{name!r} cannot be the name of a file on a FAT", "Plain letters, digits and dashes."
            )
        return f"{self._paths[folder]}/{name}".lstrip("/")

    def _spelt(self, path: str) -> str:
        """As mtools looks for what is there: a bare bracket would start a pattern."""
        return "::/" + re.sub(r"([\[\]])", r"\\\1", path)

    def _new(self, path: str) -> str:
        """As mtools takes the name of what is to be made: as it is."""
        folder, _, name = path.rpartition("/")
        return f"{self._spelt(folder)}/{name}"

    def _run(self, tool: str, *arguments: str, keep_open: Sequence[int] = ()) -> str:
        with self._device() as (device, handle):
            try:
                return run(
                    tool,
                    "-i",
                    device,
                    *arguments,
                    keep_open=[handle, *keep_open],
                    env=self._env,
                    timeout=_LIMIT,
                    no_terminal=True,
                )
            except subprocess.TimeoutExpired as error:
                hint = "The image is damaged."
                raise UserError(f"{tool} comes to no end on the boot partition", hint) from error
            except WorkFailed as error:
                if not _FULL.search(error.message):
                    raise
                hint = "Use a base with a larger FAT."
                raise UserError("the boot partition: no room left in the image", hint) from error

    @contextlib.contextmanager
    def _device(self) -> Iterator[tuple[str, int]]:
        """What mtools opens, and the open file that is: never the image's path, part of which it would give
        to a shell, or take for a pattern or an offset."""
        handle = os.open(self._image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{handle}@@{self._start}", handle
        finally:
            os.close(handle)
