"""What was found in a tree: the probes that ask, and the snapshot that answers.

Runs on the node too: Python 3.7, standard library only.
"""

import fnmatch
import hashlib
import posixpath
from dataclasses import dataclass, field
from typing import BinaryIO, Callable, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from firstboot.errors import UserError

HEAD_BYTES = 64
"""What a ``head`` probe reads: enough for an ELF header."""

MAX_CONTENT = 16 << 20
"""Bytes. No text file that a probe names is larger in a sane tree (dpkg's status is 1 to 6 MB)."""

_PIECE = 1 << 17  # more does not fit into a small board's cache

MAX_LINKS = 40  # as the kernel's own limit (path_resolution(7))


@dataclass(frozen=True)
class Probe:
    """One question: what is at ``path``? A component may hold ``*``.

    ``read``: ``content`` (all bytes), ``digest`` (sha256 only: large or secret files), ``head`` (the first
    HEAD_BYTES bytes), ``names`` (of a folder: what it holds; of a file nothing). Links are reported, not
    followed.
    """

    path: str
    read: str = "content"


@dataclass(frozen=True)
class File:
    """A regular file. Mode, owner and group are None where the file system keeps none (FAT)."""

    size: int
    mode: Optional[int]
    owner: Optional[int]
    group: Optional[int]
    sha256: str = ""
    content: Optional[bytes] = field(default=None, repr=False)


@dataclass(frozen=True)
class Symlink:
    """Where it leads is not looked at."""

    target: str


@dataclass(frozen=True)
class Folder:
    """Mode, owner and group as for a File."""

    names: Tuple[str, ...] = ()
    """Sorted; empty unless the probe asked for names."""
    mode: Optional[int] = None
    owner: Optional[int] = None
    group: Optional[int] = None


@dataclass(frozen=True)
class Special:
    """A device, socket or fifo: never edited."""


Node = Union[File, Symlink, Folder, Special]


class Snapshot:
    """The answers to some probes. What is not in it does not exist, provided a probe covers it."""

    def __init__(self, nodes: Mapping[str, Node], probes: Tuple[Probe, ...]) -> None:
        self._nodes = dict(nodes)
        self._paths = frozenset(probe.path for probe in probes)
        self._patterns = tuple(path for path in self._paths if "*" in path)

    def get(self, path: str) -> Optional[Node]:
        return self._nodes.get(path)

    def covers(self, path: str) -> bool:
        """Whether some probe asked about this very path: only then does absence mean anything."""
        return path in self._paths or any(_matches(pattern, path) for pattern in self._patterns)

    def paths(self, pattern: str) -> List[str]:
        """The paths found that match a pattern, sorted; ``*`` stays within one component."""
        return sorted(path for path in self._nodes if _matches(pattern, path))

    def follow(self, path: str) -> Optional[Node]:
        """The node at the end of links, as far as the probes reach; None for a link out of their sight."""
        for _ in range(MAX_LINKS):
            node = self.get(path)
            if not isinstance(node, Symlink):
                return node
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), node.target))
        return None

    def content(self, path: str) -> Optional[bytes]:
        node = self.follow(path)
        return node.content if isinstance(node, File) else None

    def text(self, path: str) -> Optional[str]:
        """Content as text. Bytes that are not UTF-8 survive a round trip (surrogateescape)."""
        content = self.content(path)
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def names(self, path: str) -> Tuple[str, ...]:
        node = self.follow(path)
        return node.names if isinstance(node, Folder) else ()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._nodes))


def _matches(pattern: str, path: str) -> bool:
    if pattern.count("/") != path.count("/"):
        return False
    pairs = zip(pattern.split("/"), path.split("/"))
    return all(part == name or ("*" in part and fnmatch.fnmatchcase(name, part)) for part, name in pairs)


def expand(pattern: str, listing: Callable[[str], Iterable[str]]) -> List[str]:
    """The paths a pattern may mean; ``listing`` names what a folder holds, nothing if it is none."""
    found = [""]
    for part in pattern.split("/")[1:]:
        if "*" in part:
            found = [
                f"{base}/{name}"
                for base in found
                for name in sorted(listing(base or "/"))
                if fnmatch.fnmatchcase(name, part)
            ]
        else:
            found = [f"{base}/{part}" for base in found]
    return found


def read_as(read: str, stream: BinaryIO, size: int, path: str) -> Tuple[Optional[bytes], str]:
    """Content and sha256 of a file, as a probe asks for them. UserError for one too large."""
    if read == "names":  # of a folder; this is a file
        return None, ""
    if read == "head":
        return stream.read(HEAD_BYTES), ""
    if read == "content":
        if size > MAX_CONTENT:
            raise UserError(f"{path} is far too large: {size} bytes", "Is this tree a Linux system?")
        content = stream.read()
        return content, hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    for chunk in iter(lambda: stream.read(_PIECE), b""):
        digest.update(chunk)
    return None, digest.hexdigest()
