"""What paths were before an adoption changed them, kept on the node, so that it can be undone.

Runs on the node: Python 3.7, standard library only.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.paths import K3S_CONFIG, STATUS
from firstboot.snapshot import File, Node, Probe, Symlink
from firstboot.tree import FolderTree

FOLDER = "/var/lib/k3s-bake/before"
"""Root's alone: what is kept may be a secret."""

_LIST = f"{FOLDER}/list.json"
_AGENTS = (K3S_CONFIG, "/etc/hostname", "/etc/issue")
"""What the agent goes on changing: put back whatever is there now."""

_NAMES = "/etc/hosts"
"""Of which only the line with the node's own name is ours: it is mended, not put back."""

Entries = Dict[str, Dict[str, Any]]


class Before:
    def __init__(self, root: str, tree: FolderTree) -> None:
        self._root = root
        self._tree = tree

    def remember(self, edits: Sequence[Edit]) -> None:
        """Before they are carried out. What is known of a path from earlier stays."""
        entries = self._entries()
        found = self._tree.read([Probe(path, "digest") for path in [*_AGENTS, *(e.path for e in edits)]])
        new: List[str] = []
        """Their shapes go into the list, and the bytes of files beside it."""
        for path in _AGENTS:
            if path not in entries:
                new.append(path)
                entries[path] = {"was": _shape(found.get(path)), "made": None}
        for edit in edits:
            if edit.met_by(found.get(edit.path)) or edit.path in (*_AGENTS, _NAMES):
                continue
            if edit.path not in entries:
                new.append(edit.path)
                entries[edit.path] = {"was": _shape(found.get(edit.path))}
            entries[edit.path]["made"] = _shape_of(edit)
        files = {
            path: node for path, node in ((path, found.get(path)) for path in new) if isinstance(node, File)
        }
        kept = [Place(f"{FOLDER}/{file.sha256}", file.sha256, file.size, 0o600) for file in files.values()]
        listed = Write(_LIST, json.dumps(entries).encode(), 0o600, secret=True)
        self._tree.apply([*kept, listed], {file.sha256: self._source(path) for path, file in files.items()})
        Path(self._root, FOLDER[1:]).chmod(0o700)

    def is_known(self) -> bool:
        return bool(self._entries())

    def undo(self) -> Tuple[List[str], List[str]]:
        """Paths put back, and those left alone because somebody has changed them since."""
        entries = self._entries()
        found = self._tree.read([Probe(path, "digest") for path in entries])
        back: List[Edit] = []
        left: List[str] = []
        for path, entry in entries.items():
            was, made = _edit(path, entry["was"]), entry["made"]
            if was.met_by(found.get(path)):
                continue
            ours = made is None or path.endswith(STATUS) or _edit(path, made).met_by(found.get(path))
            if ours:
                back.append(was)
            else:
                left.append(path)
        sources = {edit.sha256: self._place(edit.sha256) for edit in back if isinstance(edit, Place)}
        self._tree.apply(back, sources)
        return sorted(edit.path for edit in back), sorted(left)

    def forget(self) -> None:
        """What was kept goes."""
        folder = Path(self._root, FOLDER[1:])
        for path in folder.glob("*"):
            path.unlink()
        if folder.is_dir():
            folder.rmdir()

    def _source(self, path: str) -> str:
        """The file itself, wherever the links in its folder's path lead."""
        source = Path(self._root, path[1:])
        return str(source.parent.resolve() / source.name)

    def _place(self, sha256: str) -> str:
        return str(Path(self._root, FOLDER[1:], sha256))

    def _entries(self) -> Entries:
        try:
            found = json.loads(Path(self._root, _LIST[1:]).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _shape(node: Optional[Node]) -> Dict[str, Any]:
    if isinstance(node, File):
        access = [node.mode, node.owner, node.group]
        return {"kind": "file", "sha256": node.sha256, "size": node.size, "access": access}
    if isinstance(node, Symlink):
        return {"kind": "link", "target": node.target}
    return {"kind": "nothing"}


def _shape_of(edit: Edit) -> Dict[str, Any]:
    if isinstance(edit, Link):
        return {"kind": "link", "target": edit.target}
    if isinstance(edit, Remove):
        return {"kind": "nothing"}
    sha256 = hashlib.sha256(edit.content).hexdigest() if isinstance(edit, Write) else edit.sha256
    size = len(edit.content) if isinstance(edit, Write) else edit.size
    return {"kind": "file", "sha256": sha256, "size": size, "access": [edit.mode, edit.owner, edit.group]}


def _edit(path: str, shape: Mapping[str, Any]) -> Edit:
    if shape["kind"] == "nothing":
        return Remove(path)
    if shape["kind"] == "link":
        return Link(path, shape["target"])
    mode, owner, group = shape["access"]  # None on FAT, which keeps none
    return Place(
        path, shape["sha256"], shape["size"], 0o644 if mode is None else mode, owner or 0, group or 0
    )
