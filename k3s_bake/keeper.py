"""The master that stays: it drains nodes and forgets them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bake.spec import Role
from firstboot.errors import UserError, WorkFailed
from k3s_bake import ssh
from k3s_bake.adopt import Looked, Machine

MASTERS = {"control-plane", "master", "etcd"}
"""Roles, as Kubernetes calls them."""
PODS: Mapping[str, Any] = {"drained": None, "pods_left": [], "why_left": ""}
"""As firstboot.kubernetes.Drained, where nothing was drained."""
_DRAINS = 4
"""Nodes that are drained at the same time: each is a kubectl on the master, of some 60 MB."""
_POLL = 0.5


@dataclass(frozen=True)
class Keeper:
    remote: ssh.Remote
    looked: Looked
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_DRAINS))
    """For one that is drained."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of one master: etcd loses its members one after the other."""
    serials: dict[str, str] = field(default_factory=dict)
    """Boards' numbers by the names of their nodes, as it has registered them."""

    def check(self, machine: Machine) -> None:
        """UserError where it is that machine itself, or the master of another cluster."""
        if self.looked.machine["boot_id"] == machine.looked.machine["boot_id"]:
            raise UserError("it is the master that is to stay", "--master names another one.")
        config = machine.looked.config
        if config:
            self.check_cluster(config.cluster)

    def check_cluster(self, cluster: str | None) -> None:
        """UserError where that is another one, as far as both are known."""
        own = self.looked.config
        if own and cluster not in (None, own.cluster):
            raise UserError(
                f"it is of the cluster {cluster}, and {self.looked.name} a master of {own.cluster}",
                "--master names one of its own cluster.",
            )

    async def nodes(self) -> Sequence[Mapping[str, Any]]:
        """As firstboot.kubernetes.KubernetesNode. WorkFailed where its Kubernetes does not answer."""
        answer = await self.remote.call("nodes")
        self.serials.update(answer["serials"])
        found: Sequence[Mapping[str, Any]] | None = answer["nodes"]
        if found is None:
            raise WorkFailed("its Kubernetes does not answer", "Is it a master, and does its K3s run?")
        return found

    def may_be(self, name: str, serial: str) -> bool:
        """Whether the board of that number may be the node, as far as it is known: DHCP may have given it the
        address of another one."""
        return self.serials.get(name, serial) == serial

    async def drain(self, name: str) -> Mapping[str, Any]:
        """As firstboot.kubernetes.Drained."""
        await self.remote.call("drain", name=name)
        while True:
            answer = await self.remote.call("drained", name=name)
            if answer["ended"]:
                return {key: answer[key] for key in PODS}
            await asyncio.sleep(_POLL)

    async def forget(self, name: str) -> None:
        if not (await self.remote.call("forget_node", name=name))["done"]:
            raise WorkFailed(f"its master did not forget {name}", f"k3s kubectl delete node {name}, there.")


async def leave(machine: Machine, keeper: Keeper, verb: str) -> Mapping[str, Any]:
    """Its pods go elsewhere, then it is off, and its cluster forgets it. ``verb``: leave or reset.

    What became of its pods. WorkFailed where it is not forgotten.
    """
    name = machine.outcome.name
    async with keeper.room:
        machine.tell("draining")
        pods = await keeper.drain(name)
    if machine.candidate.role is not Role.MASTER:
        await _off(machine, keeper, verb)
        return pods
    async with keeper.turn:
        await keeper.forget(name)  # while its etcd still votes: one of two alone decides nothing
        await _off(machine, keeper, verb)
    return pods


async def _off(machine: Machine, keeper: Keeper, verb: str) -> None:
    machine.tell("leaving")
    await machine.remote.call(verb)
    await keeper.forget(machine.outcome.name)  # only now, or it would come again
