"""An image as a tree, through libguestfs.

The image is mounted inside an appliance, a small virtual machine, by the partition table and its own fstab:
libguestfs's inspection would find the same in 15 s.
"""

import contextlib
import errno
import hashlib
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bake.appliance import launched, says, worded
from bake.disk import Disk
from bake.fstab import require_boot_folder
from firstboot.edits import Edit, Link, Remove, Write, check_path, owner_of, parent_mode
from firstboot.errors import UserError
from firstboot.placing import source_of
from firstboot.snapshot import (
    HEAD_BYTES,
    MAX_CONTENT,
    File,
    Folder,
    Node,
    Probe,
    Snapshot,
    Special,
    Symlink,
    expand,
)
from firstboot.tree import in_the_way

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_MESSAGE = 2 << 20  # bytes: libguestfs moves at most 4 MB in one message


@contextlib.contextmanager
def opened(
    image: Path,
    disk: Disk,
    say: Callable[[str], None],
    *,
    staged: Mapping[str, str] | None = None,
    readonly: bool = False,
) -> Iterator["GuestTree"]:
    """The image's tree, as bake.engine.opened tells it. UserError where libguestfs is missing."""
    staged = {sha256: f"/{name}" for sha256, name in (staged or {}).items()}
    guest = launched(image, say, readonly)
    try:
        root, boot = (f"/dev/sda{part.number}" for part in (disk.root, disk.boot))
        with worded("the file systems of the image"):
            mount = guest.mount_ro if readonly else guest.mount
            mount(root, "/")
            point = require_boot_folder(_fstab(guest))
            mount(boot, point)
        yield GuestTree(guest, point, staged)
        with worded("closing the image"):
            for path in staged.values():
                guest.rm_f(path)
            guest.shutdown()  # syncs, and fails where the appliance could not write
    finally:
        guest.close()


def _fstab(guest: Any) -> str | None:
    try:
        return str(guest.read_file("/etc/fstab").decode("utf-8", "replace"))
    except RuntimeError:
        return None


class GuestTree:
    """The mounted image. Links are resolved by the appliance's kernel, so never outside the image."""

    def __init__(self, guest: Any, boot: str, staged: Mapping[str, str]) -> None:
        self._guest = guest
        self._boot = boot
        self._staged = staged
        self._folders: set[str] = set()  # seen to be there: asking takes 9 ms, and no edit removes one

    def read(self, probes: Iterable[Probe], known: Mapping[str, str] | None = None) -> Snapshot:
        """What is there. UserError for a file beyond MAX_CONTENT where content was asked for.

        ``known`` gives the sha256 of files, by path, that the caller verifies by itself: hashing takes four
        seconds for 200 MB under emulation.
        """
        asked = tuple(probes)
        folders: dict[str, dict[str, str]] = {}  # one question a folder: each is a round trip
        for probe in asked:
            with worded(probe.path):
                for path in expand(probe.path, self._listing):
                    folder, name = posixpath.split(path)
                    folders.setdefault(folder, {})[name] = probe.read
        nodes: dict[str, Node] = {}
        for folder, names in folders.items():
            with worded(folder):
                nodes |= self._nodes(folder, names, known or {})
        return Snapshot(nodes, asked)

    def apply(self, edits: Iterable[Edit], sources: Mapping[str, str]) -> None:
        """Carry out edits in order. UserError for what is in the way or has no room."""
        for edit in edits:
            with worded(check_path(edit.path)):
                self._apply(edit, sources)

    def flush(self) -> None:
        """Write all out, and read from the disk from now on: a write that failed late shows then."""
        with worded("writing the image"):
            self._guest.sync()
            self._guest.drop_caches(3)

    # reading

    def _listing(self, path: str) -> list[str]:
        try:
            return list(self._guest.ls(path))
        except RuntimeError as error:
            if says(error, *_ABSENT):
                return []
            raise

    def _nodes(self, folder: str, names: Mapping[str, str], known: Mapping[str, str]) -> dict[str, Node]:
        """What is at some names of a folder, each to be read in its way; what is not there is left out."""
        try:
            # Whole folders at a time, and not is_dir or readlink, which fork in the appliance: 9 ms each.
            statuses = self._guest.lstatnslist(folder, list(names))
            targets = self._guest.readlinklist(folder, list(names))
        except RuntimeError as error:
            if says(error, *_ABSENT):
                return {}
            raise
        nodes: dict[str, Node] = {}
        for (name, read), status, target in zip(names.items(), statuses, targets, strict=True):
            path = posixpath.join(folder, name)
            if status["st_ino"] == -1:
                continue
            if stat.S_ISLNK(status["st_mode"]):
                nodes[path] = Symlink(target)
            else:
                nodes[path] = self._node(path, read, status, known)
        return nodes

    def _node(self, path: str, read: str, status: dict[str, int], known: Mapping[str, str]) -> Node:
        if stat.S_ISDIR(status["st_mode"]):
            names = tuple(sorted(self._guest.ls(path))) if read == "names" else ()
            return Folder(names, *self._access(path, status))
        if not stat.S_ISREG(status["st_mode"]):
            return Special()
        if path in known:
            content, sha256 = None, known[path]
        else:
            content, sha256 = self._content(path, status["st_size"], read)
        return File(status["st_size"], *self._access(path, status), sha256, content)

    def _access(self, path: str, status: dict[str, int]) -> tuple[int | None, int | None, int | None]:
        if path.startswith(self._boot + "/"):  # FAT: what is read there means nothing
            return None, None, None
        return stat.S_IMODE(status["st_mode"]), status["st_uid"], status["st_gid"]

    def _content(self, path: str, size: int, read: str) -> tuple[bytes | None, str]:
        if read == "names":  # of a folder; this is a file
            return None, ""
        if read == "head":
            return self._guest.pread(path, HEAD_BYTES, 0), ""
        if read == "digest":
            return None, self._guest.checksum("sha256", path)
        if size > MAX_CONTENT:
            raise UserError(f"{path} is far too large: {size} bytes", "Is this a Linux system?")
        content = b"".join(self._guest.pread(path, _MESSAGE, at) for at in range(0, size, _MESSAGE))
        return content, hashlib.sha256(content).hexdigest()

    # writing

    def _apply(self, edit: Edit, sources: Mapping[str, str]) -> None:
        guest, path = self._guest, edit.path
        self._refuse_in_the_way(path)
        if isinstance(edit, Remove):
            guest.rm_f(path)
            return
        self._make_folder(posixpath.dirname(path), edit)
        guest.rm_f(path)
        if isinstance(edit, Link):
            guest.ln_s(edit.target, path)
            return
        if isinstance(edit, Write):
            guest.write(path, edit.content)
        elif edit.sha256 in self._staged:
            guest.mv(self._staged[edit.sha256], path)
        else:
            guest.upload(source_of(edit, sources), path)
        self._set_access(path, edit.mode, edit)

    def _refuse_in_the_way(self, path: str) -> None:
        folder, name = posixpath.split(path)
        if isinstance(self._nodes(folder, {name: "names"}, {}).get(path), Folder | Special):
            raise in_the_way(path)

    def _make_folder(self, path: str, edit: Edit) -> None:
        guest = self._guest
        if path in self._folders or guest.is_dir(path, followsymlinks=True):
            self._folders.add(path)
        elif guest.is_symlink(path):  # to a folder that is not there yet
            target = posixpath.join(guest.realpath(posixpath.dirname(path)), guest.readlink(path))
            self._make_folder(posixpath.normpath(target), edit)
        else:
            self._make_folder(posixpath.dirname(path), edit)
            guest.mkdir(path)
            self._set_access(path, parent_mode(edit), edit)

    def _set_access(self, path: str, mode: int, edit: Edit) -> None:
        if not path.startswith(self._boot + "/"):
            self._guest.chown(*owner_of(edit), path)
            self._guest.chmod(mode, path)
