"""From what a person asks for to a job that can be done: everything found, fetched and checked."""

import os
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bake import base as bases
from bake import containerd_archive, disk, image, trust, zipapp
from bake.artifacts import Artifact, Link, link_airgap, link_k3s, resolve_airgap, resolve_k3s
from bake.cache import Home
from bake.catalogue import DEFAULT_BASE
from bake.download import Web
from bake.engine import Engine
from bake.k3s_version import DEFAULT_K3S, K3sVersion
from bake.spec import Containerd, File, FirstBoot, K3s, NodeSpec, Role
from firstboot.contract import MASTER, WORKER, Credential
from firstboot.errors import UserError

NO_AUTHORITY = "ssh-ed25519 " + b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 ".ljust(51, b"\0")).decode()


@dataclass(frozen=True)
class Wish:
    """Images of one base with the same parts, in a person's words."""

    nodes: Mapping[Path, Mapping[str, Any]]
    """The image of each node, and its values of NodeSpec."""
    base: str = DEFAULT_BASE
    k3s: str = DEFAULT_K3S
    """Version, channel or path."""
    k3s_version: str | None = None
    """What a path holds."""
    airgap: str | None = None
    """``none``, ``auto`` or a path; None: auto, where the K3s is a release."""
    containerd: tuple[Path, ...] = ()
    """Archives; none: the one in K3s."""
    links: bool = False
    """Machines fetch K3s themselves: nothing of it is fetched here."""
    first_boot: bool | None = None
    """Whether an agent makes the nodes join; None: where they do not join a given server anyway."""
    credential: bool = True
    """Whether each image carries what its agent proves itself with."""
    dry_run: bool = False
    """Nothing is written: no authority is made for a new cluster, either."""
    force: bool = False
    engine: Engine = Engine.AUTO


def jobs(wish: Wish, home: Home, web: Web) -> list[image.Job]:
    """The jobs, with all that they need on this machine. UserError and WorkFailed as those it calls."""
    epoch = _epoch()
    for values in wish.nodes.values():  # bad values are refused before long downloads
        stand_in = File("k3s", "0" * 64, 0)
        first_boot = FirstBoot(stand_in, "") if _has_agent(wish, values) else None
        NodeSpec(k3s=K3s(stand_in), first_boot=first_boot, **values)
    base = bases.resolve(wish.base, home, web)
    layout = disk.read_sound_disk(base.path)
    arch = disk.architecture(base.path, layout.root)
    k3s, sources = k3s_of(wish, arch, home, web)
    containerd: Containerd | None = None
    if wish.containerd:
        containerd, programs = containerd_archive.unpack(wish.containerd, arch, home.cache / "containerd")
        sources |= programs
    agent = None
    if any(_has_agent(wish, values) for values in wish.nodes.values()):
        agent = zipapp.build(home, web.offline, web.progress.say)
        sources[agent.sha256] = agent.path
    made = []
    for output, values in wish.nodes.items():
        values = dict(values)
        if agent and _has_agent(wish, values):
            values |= _first_boot(wish, values, agent, home, web)
        spec = NodeSpec(k3s=k3s, containerd=containerd, not_before=_day(epoch), **values)
        made.append(image.Job(base, layout, spec, sources, output, home, wish.force, wish.engine, epoch))
    return made


def _has_agent(wish: Wish, values: Mapping[str, Any]) -> bool:
    joins = bool(values.get("server") and values.get("token"))
    return not joins if wish.first_boot is None else wish.first_boot


def _first_boot(
    wish: Wish, values: Mapping[str, Any], agent: Artifact, home: Home, web: Web
) -> dict[str, Any]:
    """Values of NodeSpec, with keys and certificates from the cluster's authority, made on first use."""
    name, say = values.get("cluster", NodeSpec.cluster), web.progress.say
    if wish.dry_run and not trust.exists(name, home):
        say(f"the signing key of cluster '{name}' is made when an image is: this shows one of zeros")
        return {"first_boot": FirstBoot(_file(agent), NO_AUTHORITY), "credential": Credential()}
    cluster = trust.open_cluster(name, home, say)
    credential = credential_of(cluster, values["role"]) if wish.credential else None
    return {"first_boot": FirstBoot(_file(agent), cluster.public_key), "credential": credential}


def credential_of(cluster: trust.Cluster, role: Role, name: str | None = None) -> Credential:
    """What a node proves itself with: one of its own where it has a name, else the one that all may use."""
    principal = WORKER if role is Role.WORKER else MASTER
    join = cluster.golden(principal) if name is None else cluster.card(name, principal)
    host = cluster.host() if role is Role.MASTER else None
    return Credential(
        join_key=join.key,
        join_certificate=join.certificate,
        host_key=host.key if host else "",
        host_certificate=host.certificate if host else "",
    )


def k3s_of(wish: Wish, arch: str, home: Home, web: Web) -> tuple[K3s, dict[str, Path]]:
    """The K3s of a processor, and where its files are, by their sha256."""
    binary = resolve_k3s(wish.k3s, wish.k3s_version, arch, home, web)
    airgap = resolve_airgap(_airgap(wish, binary.version), binary.version, arch, home, web)
    sources = {file.sha256: file.path for file in (binary, airgap) if file is not None}
    return K3s(_file(binary), binary.version, _file(airgap) if airgap else None), sources


def k3s_links(wish: Wish, arch: str, home: Home, web: Web) -> tuple[K3s, dict[str, Path | Link]]:
    """As ``k3s_of``, with releases left where they are in the web."""
    version, binary = link_k3s(wish.k3s, wish.k3s_version, arch, home, web)
    choice = _airgap(wish, version)
    airgap: Artifact | Link | None
    if choice == "auto":
        airgap = link_airgap(version, arch, home, web)
    else:
        airgap = resolve_airgap(choice, version, arch, home, web)
    sources: dict[str, Path | Link] = {binary.sha256: binary}
    if airgap:
        sources[airgap.sha256] = airgap if isinstance(airgap, Link) else airgap.path
    return K3s(_file(binary), version, _file(airgap) if airgap else None), sources


def _airgap(wish: Wish, version: K3sVersion | None) -> str:
    if wish.airgap is not None:
        return wish.airgap
    # With a container runtime of its own K3s imports no images; a binary of one's own may be no release.
    return "none" if wish.containerd or version is None or wish.k3s_version else "auto"


def _epoch() -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org): the time of all that is written, and of the bake.

    UserError for what is no time that a FAT and an ext4 can both keep, from 1980 to 2106.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not given:
        return None
    if not re.fullmatch("[0-9]{9,10}", given) or not disk.EARLIEST <= int(given) < 1 << 32:
        raise UserError(
            f"SOURCE_DATE_EPOCH is {given[:40]!r}, no time that can be written",
            "Seconds since 1970, of a day after 1979, like $(date +%s); or unset it.",
        )
    return int(given)


def _day(epoch: int | None) -> date:
    """In UTC."""
    return datetime.fromtimestamp(time.time() if epoch is None else epoch, UTC).date()


def _file(artifact: Artifact | Link) -> File:
    return File(artifact.name, artifact.sha256, artifact.size)
