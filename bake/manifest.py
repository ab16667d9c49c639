"""What a bake did, as data: for `--dry-run --json`, and for the manifest beside the image.

With what was there before each edit, so that it can be undone by hand; with no secret, nor a hash of one,
which could be guessed against offline.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from bake import spec_json
from bake.node import Plan, Step
from bake.spec import NodeSpec
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.snapshot import File, Node, Symlink

_KEPT = 256 << 10
"""Bytes: larger files are told by their hash alone."""

_TOKEN = re.compile(rb"K3S_TOKEN|--(agent-)?token\b|K10[0-9a-f]{64}")


def document(
    *,
    base: Mapping[str, Any],
    spec: NodeSpec,
    todo: Plan,
    card: Mapping[str, Any] | None,
    block_map: str,
    grown: int,
    seconds: Mapping[str, float],
) -> str:
    """The manifest. ``block_map`` is the text of the one beside it; ``card`` is what bake.card.stamp.record
    gives: what ``k3s-bake flash`` goes by."""
    data = {
        "tool": f"k3s-bake {version('k3s-bake')}",
        "base": base,
        "k3s": {"version": spec.k3s.version and str(spec.k3s.version), "sha256": spec.k3s.binary.sha256},
        "spec": spec_json.to_json(spec),
        "card": card,
        "bmap": hashlib.sha256(block_map.encode()).hexdigest(),
        "grown": grown,
        "seconds": seconds,
        "notes": [{"concern": concern, "text": text} for concern, text in todo.notes],
        "edits": steps(todo),
    }
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def steps(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"concern": step.concern, "edit": edit(step.edit), "before": _before(step)} for step in plan.steps
    ]


def edit(change: Edit) -> dict[str, Any]:
    """One edit for people and programs to read."""
    data: dict[str, Any] = {"kind": type(change).__name__.lower(), "path": change.path}
    if isinstance(change, Link):
        data["target"] = change.target
    elif not isinstance(change, Remove):
        data |= {"mode": f"{change.mode:04o}", "owner": change.owner, "group": change.group}
    if isinstance(change, Place):
        data |= {"size": change.size, "sha256": change.sha256}
    elif isinstance(change, Write):
        data |= {"secret": True} if change.secret else _content(change.content)
    return data


def hides(step: Step) -> bool:
    """Whether what was there must not be shown: it is a secret, or may be one.

    What others may not read is not shown to them here either; nor is a unit of K3s's own installer that has
    a token in its command line.
    """
    before = step.before
    if not isinstance(before, File):
        return False
    private = before.mode is not None and not before.mode & 0o004
    return getattr(step.edit, "secret", False) or private or bool(_TOKEN.search(before.content or b""))


def _before(step: Step) -> dict[str, Any] | None:
    if hides(step):
        return {"kind": "file", "secret": True}
    return None if step.before is None else _node(step.before)


def _node(node: Node) -> dict[str, Any]:
    if isinstance(node, Symlink):
        return {"kind": "link", "target": node.target}
    if not isinstance(node, File):
        return {"kind": type(node).__name__.lower()}
    data: dict[str, Any] = {"kind": "file", "size": node.size}
    if node.mode is not None:
        data |= {"mode": f"{node.mode:04o}", "owner": node.owner, "group": node.group}
    if node.content is not None and len(node.content) == node.size:  # not just the head of it
        return data | _content(node.content)
    return data | ({"sha256": node.sha256} if node.sha256 else {})


def _content(content: bytes) -> dict[str, Any]:
    data = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if len(content) > _KEPT:
        return data
    # Bytes that are no UTF-8 come as lone surrogates, which JSON can carry (as \\udcXX).
    return data | {"text": content.decode("utf-8", "surrogateescape")}
