"""What each machine of a fleet is to be, and where the files for it are."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bake import spec_json, trust, wish, zipapp
from bake.artifacts import Artifact, Link
from bake.cache import Home
from bake.concerns import network
from bake.concerns.k3s import REGISTRIES, UNITS
from bake.download import Web
from bake.facts import facts_of
from bake.spec import Datastore, ExternalDatastore, File, FirstBoot, K3s, NodeSpec, Role
from bake.wish import Wish, credential_of
from firstboot.contract import K3S_DATASTORE, K3S_TOKEN, Credential
from firstboot.edits import Place
from firstboot.errors import UserError
from firstboot.snapshot import Snapshot
from k3s_bake.adopt import Looked, Machine

Sources = dict[str, Path | Link]
"""Large files by their sha256."""


@dataclass(frozen=True)
class Supplies:
    """What every node needs of this machine."""

    cluster: trust.Cluster | None
    """None: a dry run, and there is no such cluster yet."""
    agent: Artifact
    parts: Wish
    """K3s and what else is staged; its nodes are not looked at."""
    given_k3s: bool
    """A person named a K3s: nodes that have another change theirs."""
    home: Home
    web: Web

    @property
    def first_boot(self) -> FirstBoot:
        key = self.cluster.public_key if self.cluster else wish.NO_AUTHORITY
        return FirstBoot(File(self.agent.name, self.agent.sha256, self.agent.size), key)


def supplies(name: str, parts: Wish, given_k3s: bool, home: Home, web: Web, *, dry_run: bool) -> Supplies:
    """The authority, made on first use but for a dry run, and the agent. Raises as those it calls."""
    say = web.progress.say
    is_new = dry_run and not trust.exists(name, home)
    cluster = None if is_new else trust.open_cluster(name, home, say)
    return Supplies(cluster, zipapp.build(home, web.offline, say), parts, given_k3s, home, web)


@dataclass
class Wanted:
    """For machines that are planned for side by side."""

    supplies: Supplies
    dry_run: bool = False
    _k3s: dict[str, tuple[K3s, Sources]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def new(self, machine: Machine, values: Mapping[str, Any]) -> tuple[NodeSpec, Sources]:
        """Of a machine that is no node yet. ``values`` of NodeSpec; UserError for what no node can be."""
        k3s, files = await self._k3s_for(_architecture(machine.looked), self.supplies.parts)
        credential = await self._credential(machine, values.get("name"))
        spec = NodeSpec(k3s=k3s, first_boot=self.supplies.first_boot, credential=credential, **values)
        return spec, self._sources | files

    async def again(self, machine: Machine, values: Mapping[str, Any]) -> tuple[NodeSpec, Sources]:
        """Of a node of ours: it stays what it was told to be, but for the ``values`` that are given now."""
        spec = spec_json.loads(machine.looked.recorded or "")
        given = dict(values)
        if spec.external and "datastore" not in given and machine.looked.found.get(K3S_DATASTORE) is None:
            raise UserError("its datastore's password is not there any more", "--file names its file.")
        name = machine.looked.name if machine.looked.is_joined else given.get("name", spec.name)
        if spec.credential is not None or not machine.looked.has_credential(time.time(), name):
            given["credential"] = await self._credential(machine, name)
        machine.untouched = _secrets_of(spec, given, machine.looked.found)
        spec = replace(spec, first_boot=self.supplies.first_boot, **given)
        parts = self.supplies.parts
        if not self.supplies.given_k3s:
            placed = {edit.sha256 for edit in machine.plan(spec).edits if isinstance(edit, Place)}
            if not placed - self._sources.keys():
                return spec, self._sources
            parts = replace(parts, k3s=str(spec.k3s.version) if spec.k3s.version else parts.k3s)
        k3s, files = await self._k3s_for(_architecture(machine.looked), parts)
        if k3s.version is None and k3s.binary.sha256 == spec.k3s.binary.sha256:
            k3s = replace(k3s, version=spec.k3s.version)  # the same program is of the same version
        return replace(spec, k3s=k3s), self._sources | files

    @property
    def _sources(self) -> Sources:
        return {self.supplies.agent.sha256: self.supplies.agent.path}

    async def _credential(self, machine: Machine, name: str | None) -> Credential:
        """A new one; a stand-in for one that the machine has, or that a dry run would make."""
        if machine.looked.has_credential(time.time(), name):
            return Credential()
        cluster, role = self.supplies.cluster, machine.candidate.role
        if cluster is None or self.dry_run:
            host = "x" if role is Role.MASTER else ""
            return Credential(None, "x", "x", host, host)
        async with self._turn:
            return await asyncio.to_thread(credential_of, cluster, role, name)

    async def _k3s_for(self, arch: str, parts: Wish) -> tuple[K3s, Sources]:
        """Found, and fetched where that is to be, once for each processor."""
        async with self._turn:
            key = f"{arch} {parts.k3s}"
            if key not in self._k3s:
                home, web = self.supplies.home, self.supplies.web
                self._k3s[key] = await asyncio.to_thread(_k3s_of, parts, arch, home, web)
            return self._k3s[key]


def _k3s_of(parts: Wish, arch: str, home: Home, web: Web) -> tuple[K3s, Sources]:
    if parts.links:
        return wish.k3s_links(parts, arch, home, web)
    k3s, files = wish.k3s_of(parts, arch, home, web)
    return k3s, {**files}


def joining(
    role: Role, leader: str | None, masters: int, datastore: Datastore | ExternalDatastore | None = None
) -> dict[str, Any]:
    """Values for how a machine finds its cluster. ``leader``: the address of the master that starts it; None
    for that one itself, or where none is known. ``datastore``: what was said of it."""
    values: dict[str, Any] = {} if leader is None else {"master": leader}
    if role is Role.MASTER:
        is_shared = isinstance(datastore, ExternalDatastore)
        values |= {"datastore": Datastore.ETCD} if masters > 1 and not is_shared else {}
        values |= {"join": True} if leader is not None else {}
    return values


def datastore_of(looked: Looked) -> Datastore | ExternalDatastore | None:
    """What a node of ours was told; None where no record says."""
    with contextlib.suppress(UserError):
        return spec_json.loads(looked.recorded or "").datastore
    return None


def _architecture(looked: Looked) -> str:
    return facts_of(looked.found, live=True).architecture


def _secrets_of(recorded: NodeSpec, given: Mapping[str, Any], found: Snapshot) -> frozenset[str]:
    """Paths of what a record has stand-ins for, and nobody has given anew."""
    places = {
        "token": [K3S_TOKEN],
        "registries": [REGISTRIES],
        "datastore": [K3S_DATASTORE],
        "env": [f"{UNITS}/{recorded.role.unit}.service.env"],
        "wifi": network.secrets(facts_of(found, live=True)),
    }
    return frozenset(path for name, paths in places.items() if name not in given for path in paths)
