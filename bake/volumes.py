"""The file systems of an image as one tree: volumes joined by mounts, and paths resolved over them.

Links are followed here, inside the image, as the node's kernel would: an absolute one starts at the image's
root, and above that root is the root.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from firstboot.edits import Edit, check_path, owner_of, parent_mode
from firstboot.snapshot import MAX_LINKS


@dataclass(frozen=True)
class Entry:
    """What a folder says is at a name."""

    inode: int
    """A volume's own number for it."""
    mode: int
    """With the bits of the file's kind (stat(2))."""
    owner: int
    group: int
    size: int
    """Bytes; 0 for a folder, and on a FAT for everything."""


class Volume(Protocol):
    """A file system in the image. What is edited is written by commit() at the latest."""

    modeless: bool
    """Keeps neither modes nor owners."""
    top: int
    """Its top folder's number."""

    def entries(self, folder: int) -> Mapping[str, Entry]: ...
    def entry(self, folder: int, name: str) -> Entry | None: ...
    def target(self, link: Entry) -> str: ...
    def contents(self, files: Iterable[Entry]) -> dict[int, bytes]: ...
    def pieces(self, file: Entry) -> Iterable[bytes]: ...
    def make_folder(self, folder: int, name: str, mode: int, owner: int, group: int) -> int: ...
    def remove(self, folder: int, name: str) -> None: ...
    def link(self, folder: int, name: str, target: str) -> None: ...
    def write(self, folder: int, name: str, source: int, mode: int, owner: int, group: int) -> None: ...
    def commit(self) -> None: ...
    def forget(self) -> None: ...


Spot = tuple[Volume, int]
"""A folder: the volume it is on, and its number there."""


class Volumes:
    """A root volume and what is mounted in it."""

    def __init__(self, root: Volume) -> None:
        self._root = root
        self._mounts: dict[tuple[int, int], Volume] = {}  # by volume and folder

    def __iter__(self) -> Iterator[Volume]:
        yield self._root
        yield from self._mounts.values()

    def mount(self, volume: Volume, point: str) -> None:
        """OSError where the point is no folder."""
        there, folder = self.folder(point)
        self._mounts[id(there), folder] = volume

    def entry(self, path: str) -> tuple[Volume, Entry] | None:
        """What is at a path, a link itself if it is one; None for nothing."""
        parents, name = posixpath.split(check_path(path))
        try:
            volume, folder = self.folder(parents)
        except OSError:
            return None
        found = volume.entry(folder, name)
        if found and (mounted := self._mounts.get((id(volume), found.inode))):
            return mounted, Entry(mounted.top, stat.S_IFDIR, 0, 0, 0)
        return (volume, found) if found else None

    def listing(self, path: str) -> list[str]:
        """The names in a folder, sorted; none where there is no folder."""
        try:
            volume, folder = self.folder(path)
        except OSError:
            return []
        return sorted(volume.entries(folder))

    def folder(self, path: str, made_for: Edit | None = None) -> Spot:
        """The folder at the end of a path; with ``made_for`` missing ones are made on the way.

        OSError (ENOENT, ENOTDIR, ELOOP) as a kernel raises it.
        """
        stack: list[Spot] = [(self._root, self._root.top)]
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del stack[max(1, len(stack) - 1) :]
            elif part not in ("", "."):
                target = self._enter(part, stack, made_for)
                if target is None:
                    continue
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    del stack[1:]
                pending.extend(target.split("/")[::-1])
        return stack[-1]

    def _enter(self, name: str, stack: list[Spot], made_for: Edit | None) -> str | None:
        """Go one folder down; where the name is a link, return its target instead."""
        volume, folder = stack[-1]
        entry = volume.entry(folder, name)
        if entry is None:
            if made_for is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            made = volume.make_folder(folder, name, parent_mode(made_for), *owner_of(made_for))
            stack.append((volume, made))
        elif stat.S_ISLNK(entry.mode):
            return volume.target(entry)
        elif stat.S_ISDIR(entry.mode):
            mounted = self._mounts.get((id(volume), entry.inode))
            stack.append((mounted, mounted.top) if mounted else (volume, entry.inode))
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return None
