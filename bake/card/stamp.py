"""What makes a card its own node: a credential over the preallocated file on its FAT, nothing mounted.

Where that file lies is read in the image, and recorded in its manifest for images that are packed.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bake import disk
from bake.card.target import Target
from bake.fat_layout import Place, places
from firstboot.contract import (
    CONFIG,
    CREDENTIAL,
    CREDENTIAL_BYTES,
    KNOWN_HOSTS,
    Credential,
    NodeConfig,
)
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import Snapshot


@dataclass(frozen=True)
class Stampable:
    """What an image's cards can be told, and where."""

    cluster: str
    role: str
    joins: bool
    """False: a master that starts the cluster."""
    name: str | None
    """What it was baked to be called."""
    network_manager: str | None
    """What sets addresses there, as its agent was told; None: it sets none that a card brings along."""
    known_hosts: str
    """By what its nodes know their masters: of one authority alone."""
    credential: tuple[Place, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """ValueError for what asdict and JSON did not make of it."""
        try:
            made = cls(
                **{**data, "credential": tuple((int(at), int(size)) for at, size in data["credential"])}
            )
            NodeConfig.from_json(NodeConfig(made.cluster, made.role, made.name, made.joins).to_json())
        except (TypeError, KeyError, UserError) as error:
            raise ValueError("no record of a card") from error
        good = sum(size for _, size in made.credential) == CREDENTIAL_BYTES
        if not good or not all(at > 0 and size > 0 for at, size in made.credential):
            raise ValueError("no record of a card")
        return made


def record(image: Path, boot: int, found: Snapshot) -> dict[str, Any] | None:
    """For the manifest of an image with these files. ``boot`` is the first byte of its FAT. None: it has no
    agent, or its credential is used up."""
    made = _stampable(image, boot, found.text(CONFIG) or "", found.text(KNOWN_HOSTS) or "")
    return asdict(made) if made else None


def of_image(image: Path) -> Stampable | None:
    """What a raw image says itself; None: it was not baked to join by itself, or it has booted.

    UserError for what is no card image at all.
    """
    layout = disk.read_disk(image)
    texts = (b"".join(disk.content(image, layout.root, path)) for path in (CONFIG, KNOWN_HOSTS))
    return _stampable(image, layout.boot.start, *(text.decode("utf-8", "replace") for text in texts))


def _stampable(image: Path, boot: int, config: str, known: str) -> Stampable | None:
    if not config:
        return None
    try:
        node = NodeConfig.from_json(config)
        where = places(image, boot, CREDENTIAL, CREDENTIAL_BYTES)
    except (UserError, WorkFailed):
        return None
    with image.open("rb") as stream:
        area = b"".join(os.pread(stream.fileno(), size, at) for at, size in where)
    if area.strip(b"\0 \n") and Credential.from_bytes(area) is None:
        return None
    manager = node.network_manager
    return Stampable(node.cluster, node.role, node.joins, node.name, manager, known, tuple(where))


def of_manifest(path: Path) -> Stampable | None:
    """What the manifest of a packed image says; None where there is none. UserError where it is garbled."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["card"]
        return None if data is None else Stampable.from_json(data)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is garbled", "Put the manifest of this image there, or --no-stamp."
        ) from error


def put(target: Target, where: tuple[Place, ...], credential: Credential) -> None:
    """Over what was written to a card, and read back. WorkFailed where the card did not take it, and where
    there is something else in its place."""
    before = b"".join(target.read(at, size) for at, size in where)
    if before.strip(b"\0 \n") and Credential.from_bytes(before) is None:
        raise WorkFailed(
            "the image has no place for a credential where its manifest says so",
            "The manifest beside it is of another image: put its own there, or --no-stamp.",
        )
    left = credential.to_bytes()
    for at, size in where:
        piece, left = left[:size], left[size:]
        target.overwrite(at, piece)
    target.flush()
    if b"".join(target.read(at, size) for at, size in where) != credential.to_bytes():
        raise WorkFailed("the card did not take its credential", "It is worn out or false: use another card.")
