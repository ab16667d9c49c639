"""The edit vocabulary: all that can ever be done to a node's files.

A closed set of four, as data. Executors carry them out on an image, on a running node or in a folder, and
know nothing of K3s. Common rules, the same for every executor:

- A path is absolute and plain: no ``.``, ``..``, empty component, NUL or newline.
- Links in the folders leading to a path are resolved inside the tree; the last component never is: a
  ``Write`` over a link replaces the link.
- Missing parent folders are made with the edit's owner and group and ``parent_mode``.
- A folder or a special file in the way is an error, never removed.

Runs on the node too: Python 3.7, standard library only.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from firstboot.errors import UserError
from firstboot.snapshot import File, Node, Snapshot, Symlink


@dataclass(frozen=True)
class Write:
    """A small file with this content. ``secret`` content never shows: not in repr, manifest or report."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: int = 0
    group: int = 0
    secret: bool = False

    def met_by(self, found: Optional[Node]) -> bool:
        return _same_file(self, found, hashlib.sha256(self.content).hexdigest())


@dataclass(frozen=True)
class Place:
    """A large file, known by its sha256 (hex); the executor is told apart where its bytes are."""

    path: str
    sha256: str
    size: int
    mode: int = 0o644
    owner: int = 0
    group: int = 0

    def met_by(self, found: Optional[Node]) -> bool:
        return _same_file(self, found, self.sha256)


@dataclass(frozen=True)
class Link:
    """A symbolic link with exactly this target, relative or absolute as written."""

    path: str
    target: str

    def met_by(self, found: Optional[Node]) -> bool:
        return found == Symlink(self.target)


@dataclass(frozen=True)
class Remove:
    """No file and no link at this path. Folders are never removed."""

    path: str

    def met_by(self, found: Optional[Node]) -> bool:
        return found is None


Edit = Union[Write, Place, Link, Remove]


def rewritten(found: Snapshot, path: str, text: str, like: Optional[str] = None) -> Write:
    """A file with another text; whose it is and who may read it stay as they are (as those of ``like``).

    Root's and for all to read where there was none.
    """
    content = text.encode("utf-8", "surrogateescape")
    before = found.follow(like or path)
    if not isinstance(before, File):
        return Write(path, content)
    mode = 0o644 if before.mode is None else before.mode
    return Write(path, content, mode, before.owner or 0, before.group or 0)


def _same_file(edit: Union[Write, Place], found: Optional[Node], sha256: str) -> bool:
    return isinstance(found, File) and found.sha256 == sha256 and same_access(edit, found)


def same_access(edit: Union[Write, Place], found: File) -> bool:
    """Whether mode, owner and group are as wanted, as far as the file system keeps them."""
    kept = (found.mode, found.owner, found.group)
    wanted = (edit.mode, edit.owner, edit.group)
    return all(have is None or have == want for have, want in zip(kept, wanted))


def owner_of(edit: Edit) -> Tuple[int, int]:
    """User and group id for the edit and for the parents made on its way."""
    return (edit.owner, edit.group) if isinstance(edit, (Write, Place)) else (0, 0)


def parent_mode(edit: Edit) -> int:
    """Folders made for a file of an ordinary user are that user's alone (~/.ssh); others are for all."""
    return 0o700 if owner_of(edit)[0] else 0o755


def check_path(path: str) -> str:
    """Return the path. UserError where it is not absolute and plain."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]):
        raise UserError(f"not an absolute, plain path: {path!r}")
    if "\0" in path or "\n" in path:
        raise UserError(f"a path holds a character that no node needs: {path!r}")
    return path


def to_json(edit: Edit) -> Dict[str, Any]:
    """All of an edit, secrets included: for the wire to a node only. Reports use bake.manifest."""
    data: Dict[str, Any] = {"edit": type(edit).__name__.lower()}
    data.update(vars(edit))
    if isinstance(edit, Write):
        data["content"] = base64.b64encode(edit.content).decode()
    return data


def from_json(data: Mapping[str, Any]) -> Edit:
    """The edit that to_json wrote. UserError for anything else."""
    values = dict(data)
    kinds: Dict[str, Any] = {"write": Write, "place": Place, "link": Link, "remove": Remove}
    try:
        kind = kinds[values.pop("edit")]
        if kind is Write:
            values["content"] = base64.b64decode(values["content"], validate=True)
        check_path(values["path"])
        edit: Edit = kind(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not an edit: {error}") from error
    return edit
