"""What a node answers to a look, as the plan reads it."""

from collections.abc import Mapping
from typing import Any

from bake.node import PROBES
from firstboot.snapshot import File, Folder, Node, Snapshot, Special, Symlink

_KINDS: Mapping[str, Any] = {"File": File, "Folder": Folder, "Symlink": Symlink, "Special": Special}


def snapshot_of(nodes: Mapping[str, Mapping[str, Any]]) -> Snapshot:
    """Of what ``firstboot.remote`` answers to a look."""
    found: dict[str, Node] = {}
    for path, data in nodes.items():
        values = dict(data)
        kind = _KINDS[values.pop("kind")]
        if values.get("content") is not None:
            values["content"] = values["content"].encode("utf-8", "surrogateescape")
        if "names" in values:
            values["names"] = tuple(values["names"])
        found[path] = kind(**values)
    return Snapshot(found, PROBES)
