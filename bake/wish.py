"""From what a person asks for to a job that can be done: everything found, fetched and checked."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bake import base as bases
from bake import containerd_archive, disk, image
from bake.artifacts import Artifact, resolve_airgap, resolve_k3s
from bake.cache import Home
from bake.catalogue import DEFAULT_BASE
from bake.download import Web
from bake.k3s_version import DEFAULT_K3S, K3sVersion
from bake.spec import Containerd, File, K3s, NodeSpec


@dataclass(frozen=True)
class Wish:
    """One image, in a person's words."""

    output: Path
    base: str = DEFAULT_BASE
    k3s: str = DEFAULT_K3S
    """Version, channel or path."""
    k3s_version: str | None = None
    """What a path holds."""
    airgap: str | None = None
    """``none``, ``auto`` or a path; None: auto, where the K3s is a release."""
    containerd: tuple[Path, ...] = ()
    """Archives; none: the one in K3s."""
    node: Mapping[str, Any] = field(default_factory=dict)
    """Values of NodeSpec."""
    force: bool = False


def job(wish: Wish, home: Home, web: Web) -> image.Job:
    """The job, with all that it needs on this machine. UserError and WorkFailed as those it calls."""
    NodeSpec(k3s=K3s(File("k3s", "0" * 64, 0)), **wish.node)  # refuses bad values before long downloads
    base = bases.resolve(wish.base, home, web)
    layout = disk.read_disk(base.path)
    arch = disk.architecture(base.path, layout.root)
    k3s, sources = _k3s(wish, arch, home, web)
    containerd: Containerd | None = None
    if wish.containerd:
        containerd, programs = containerd_archive.unpack(wish.containerd, arch, home.cache / "containerd")
        sources |= programs
    spec = NodeSpec(k3s=k3s, containerd=containerd, not_before=_today(), **wish.node)
    return image.Job(base, spec, sources, wish.output, wish.force)


def _k3s(wish: Wish, arch: str, home: Home, web: Web) -> tuple[K3s, dict[str, Path]]:
    binary = resolve_k3s(wish.k3s, wish.k3s_version, arch, home, web)
    airgap = resolve_airgap(_airgap(wish, binary.version), binary.version, arch, home, web)
    sources = {file.sha256: file.path for file in (binary, airgap) if file is not None}
    return K3s(_file(binary), binary.version, _file(airgap) if airgap else None), sources


def _airgap(wish: Wish, version: K3sVersion | None) -> str:
    if wish.airgap is not None:
        return wish.airgap
    # With a container runtime of its own K3s imports no images; a binary of one's own may be no release.
    return "none" if wish.containerd or version is None or wish.k3s_version else "auto"


def _today() -> date:
    """The day in UTC; SOURCE_DATE_EPOCH (reproducible-builds.org) takes the clock's place."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(given) if given.isdecimal() else time.time(), UTC).date()


def _file(artifact: Artifact) -> File:
    return File(artifact.name, artifact.sha256, artifact.size)
