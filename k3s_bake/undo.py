"""Machines that become what they were before they were adopted."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from bake.spec import Role
from k3s_bake import back
from k3s_bake.adopt import Candidate, How, Machine
from k3s_bake.back import Back, Sure
from k3s_bake.keeper import MASTERS


class Undo(Back):
    OWN: Mapping[str, Any] = {"back": [], "left": [], "still_listed": None}
    """Paths that were put back, and that were left alone; ``still_listed``: its cluster goes on, and was not
    told; None: nobody knows whether it goes on."""

    def __init__(self, nodes: Sequence[Candidate], how: How, sure: Sure) -> None:
        super().__init__(nodes, how)
        self._sure = sure
        self._undone: set[str] = set()
        self._clusters: dict[str, str] = {}
        """By name of a node that is undone and that had joined one."""
        self._masters: dict[str, set[str | None]] = {}
        """By cluster: names of its masters, as those say that are undone; None: there may be more."""
        self._counted: set[str] = set()
        """Clusters of which one has named all."""

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            await self.log_in(stack, self._one)

    async def _one(self, machine: Machine) -> None:
        await back.look(machine, is_node=False)
        if machine.looked.machine["k3s"] and back.holds_cluster(machine):
            await back.require(self._sure, machine)
        name, config, is_joined = machine.outcome.name, machine.looked.config, machine.looked.is_joined
        if config and is_joined and machine.candidate.role is Role.MASTER:
            told = await _masters(machine)
            self._masters.setdefault(config.cluster, set()).update(told)
            self._counted.update(() if None in told else {config.cluster})
        machine.tell("going back")
        answer = await machine.remote.call("undo")
        self._undone.add(name)
        if config and is_joined:
            self._clusters[name] = config.cluster
        self.done(machine.outcome, "as it was", answer)

    def own(self, name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**answer, "still_listed": self._is_listed(name)}

    def _is_listed(self, name: str) -> bool | None:
        cluster = self._clusters.get(name)
        if cluster is None:
            return False
        masters = self._masters.get(cluster, set())
        left = masters - self._undone - ({None} if cluster in self._counted else set())
        if masters and not left:
            return False
        return None if left == {None} else True


async def _masters(machine: Machine) -> set[str | None]:
    """Of its cluster, as its own K3s says. One whose state is its own alone is the only one."""
    name, found = machine.outcome.name, machine.looked.machine
    nodes = (await machine.remote.call("nodes"))["nodes"] if found["k3s_is_on"] else None
    if nodes is None:
        is_only = back.holds_cluster(machine) and not found["etcd"]
        return {name} if is_only else {name, None}
    return {name, *(str(node["name"]) for node in nodes if MASTERS & set(node["roles"]))}
