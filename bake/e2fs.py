"""An image as a tree, edited in place by e2fsprogs and mtools: no appliance, no root, about a second."""

import contextlib
import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bake import disk as disks
from bake.disk import Disk
from bake.ext4 import Ext4
from bake.fat import Fat
from bake.fstab import require_boot_folder
from bake.volumes import Entry, Volume, Volumes
from firstboot.edits import Edit, Link, Place, Remove, Write, check_path
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

Access = tuple[int | None, int | None, int | None]
"""Mode, owner and group; None where the file system keeps none."""


@contextlib.contextmanager
def opened(
    image: Path, disk: Disk, *, staged: Mapping[str, str] | None = None, epoch: int | None = None
) -> Iterator["E2fsTree"]:
    """The image's tree, as bake.engine.opened tells it. Nothing is held open: apply() has written all."""
    written = disks.written_at(image, disk.root) if epoch is None else epoch
    root = Ext4(image, disk.root.start, written)
    tree = E2fsTree(root, Fat(image, disk.boot.start, written), staged or {})
    yield tree
    tree.close()


class E2fsTree:
    """The image's tree. UserError where its fstab or its boot folder is missing."""

    def __init__(self, root: Ext4, fat: Fat, staged: Mapping[str, str]) -> None:
        self._root = root
        self._volumes = Volumes(root)
        self._staged = dict(staged)
        point = require_boot_folder(self.read([Probe("/etc/fstab")]).text("/etc/fstab"))
        try:
            self._volumes.mount(fat, point)
        except OSError as error:
            raise UserError(
                f"the image's fstab mounts its FAT on {point}, which is no folder there", "Use another image."
            ) from error

    def close(self) -> None:
        """Remove what was staged and not placed."""
        for name in self._staged.values():
            self._root.remove(self._root.top, name)
        self._root.commit()

    def flush(self) -> None:
        """Read from the image from now on."""
        for volume in self._volumes:
            volume.forget()

    # reading

    def read(self, probes: Iterable[Probe], known: Mapping[str, str] | None = None) -> Snapshot:
        """What is there. UserError for a file beyond MAX_CONTENT where content was asked for.

        ``known`` gives the sha256 of files, by path, that the caller verifies by itself.
        """
        asked = tuple(probes)
        self._prefetch(probe.path for probe in asked)
        found: dict[str, tuple[Volume, Entry, str]] = {}
        for probe in asked:
            for path in expand(probe.path, self._volumes.listing):
                there = self._volumes.entry(path)
                if there is not None:
                    found[path] = (*there, probe.read)
        self._root.prefetch_targets(entry for _, entry, _ in found.values() if stat.S_ISLNK(entry.mode))
        contents = _contents(found)
        with ThreadPoolExecutor(2) as pool:  # for large files, which are hashed
            nodes = {
                path: pool.submit(_node, *there, contents.get(path), (known or {}).get(path))
                for path, there in found.items()
            }
            return Snapshot({path: node.result() for path, node in nodes.items()}, asked)

    def _prefetch(self, paths: Iterable[str]) -> None:
        folders: dict[str, None] = {}  # a set that keeps its order
        for path in paths:
            folder = posixpath.dirname(path.partition("*")[0])
            while folder != "/":
                folders[folder] = None
                folder = posixpath.dirname(folder)
        self._root.prefetch(["/", *folders])

    # writing

    def apply(self, edits: Iterable[Edit], sources: Mapping[str, str]) -> None:
        """Carry out edits in order. UserError for what is in the way or has no room: the image
        is to be thrown away then."""
        todo = tuple(edits)
        self._prefetch(check_path(edit.path) for edit in todo)
        with contextlib.ExitStack() as held:
            try:
                for edit in todo:
                    self._apply(edit, sources, held)
                for volume in self._volumes:
                    volume.commit()
            finally:
                self.flush()

    def _apply(self, edit: Edit, sources: Mapping[str, str], held: contextlib.ExitStack) -> None:
        parents, name = posixpath.split(edit.path)
        try:
            volume, folder = self._volumes.folder(parents, None if isinstance(edit, Remove) else edit)
        except OSError as error:
            if isinstance(edit, Remove):
                return  # nothing to remove where there is no folder
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise in_the_way(edit.path) from error
        there = volume.entry(folder, name)
        if there and not (stat.S_ISREG(there.mode) or stat.S_ISLNK(there.mode)):
            raise in_the_way(edit.path)
        volume.remove(folder, name)
        if isinstance(edit, Link):
            volume.link(folder, name, edit.target)
        elif isinstance(edit, Place) and volume is self._root and edit.sha256 in self._staged:
            self._root.move(self._staged.pop(edit.sha256), folder, name, edit.mode, edit.owner, edit.group)
        elif not isinstance(edit, Remove):
            source = _in_memory(edit.content) if isinstance(edit, Write) else _open(source_of(edit, sources))
            held.callback(os.close, source)
            volume.write(folder, name, source, edit.mode, edit.owner, edit.group)


def _contents(found: Mapping[str, tuple[Volume, Entry, str]]) -> dict[str, bytes]:
    """The bytes of all files whose content is asked for, in one question a volume.

    On a FAT of all files: they are small, and their sizes are known by reading them.
    """
    wanted: dict[int, tuple[Volume, dict[str, Entry]]] = {}
    for path, (volume, entry, read) in found.items():
        if not stat.S_ISREG(entry.mode) or not (read == "content" or volume.modeless):
            continue
        if entry.size > MAX_CONTENT:
            raise UserError(f"{path} is far too large: {entry.size} bytes", "Is this a Linux system?")
        wanted.setdefault(id(volume), (volume, {}))[1][path] = entry
    contents: dict[str, bytes] = {}
    for volume, files in wanted.values():
        by_number = volume.contents(files.values())
        contents |= {path: by_number[entry.inode] for path, entry in files.items()}
    return contents


def _node(volume: Volume, entry: Entry, read: str, content: bytes | None, known: str | None) -> Node:
    mode, owner, group = stat.S_IMODE(entry.mode), entry.owner, entry.group
    access: Access = (None, None, None) if volume.modeless else (mode, owner, group)
    if stat.S_ISLNK(entry.mode):
        return Symlink(volume.target(entry))
    if stat.S_ISDIR(entry.mode):
        names = tuple(sorted(volume.entries(entry.inode))) if read == "names" else ()
        return Folder(names, *access)
    if not stat.S_ISREG(entry.mode):
        return Special()
    size = entry.size if content is None else len(content)
    if read == "names":  # of a folder; this is a file
        return File(size, *access)
    if read == "head":
        head = next(iter(volume.pieces(entry)), b"") if content is None else content
        return File(size, *access, "", head[:HEAD_BYTES])
    if read == "digest" and known:
        return File(size, *access, known)
    sha256 = _digest(volume.pieces(entry) if content is None else [content])
    return File(size, *access, sha256, content if read == "content" else None)


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _in_memory(content: bytes) -> int:
    """An open file that is on no disk: small edits may be secrets."""
    handle = os.memfd_create("k3s-bake")
    with open(handle, "wb", closefd=False) as stream:
        stream.write(content)
    return handle


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
