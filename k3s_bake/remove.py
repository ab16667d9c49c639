"""Nodes that leave their cluster: drained side by side, and forgotten.

So are those that are none any more: machines that cannot be reached, or that have been undone. Nothing is
done on them then, and the cluster alone says which of its nodes they were.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

from bake.spec import Role
from firstboot.errors import UserError, WorkFailed
from k3s_bake import back
from k3s_bake.adopt import Candidate, How, Machine, Outcome
from k3s_bake.back import Back
from k3s_bake.keeper import MASTERS, PODS, Keeper, leave
from k3s_bake.login import Login
from k3s_bake.unreached import NotReached


class Remove(Back):
    OWN: Mapping[str, Any] = {**PODS, "untouched": ""}
    """``untouched``: why nothing was done on the machine, where its cluster alone has forgotten it."""

    def __init__(self, nodes: Sequence[Candidate], how: How, master: Login) -> None:
        super().__init__(nodes, how)
        self._master = master
        self._unreached: dict[int, UserError] = {}
        """By place in ``outcomes``, while it is not known yet whether it can be forgotten all the same."""
        self._keeper: Keeper | None = None

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            keeper = self._keeper = await self.keeper(self._master, stack)
            if keeper is None:
                return

            async def fit(machine: Machine) -> None:
                await back.look(machine, is_node=False)
                keeper.check(machine)
                if machine.looked.config is None and machine.looked.machine["k3s"]:
                    raise back.no_node()
                machine.tell("looked")

            await self.log_in(stack, fit)
            for at, error in self._unreached.items():
                await self.safely(at, self._forget_unreached(keeper, self.outcomes[at], error))
            await self.cordon(keeper)
            await self.each(lambda machine: self._one(keeper, machine))

    def fail(self, at: int, error: UserError) -> None:
        """One that cannot be reached has not failed before its cluster was asked."""
        outcome = self.outcomes[at]
        is_reached = any(phase == "looking" for _, phase in outcome.timeline)
        if self._keeper and isinstance(error, NotReached) and not is_reached and at not in self._unreached:
            self._unreached[at] = error
            outcome.enter("not reached")
            self.how.told(outcome)
        else:
            super().fail(at, error)

    async def _one(self, keeper: Keeper, machine: Machine) -> None:
        if machine.looked.config is None:
            await self._forget_undone(keeper, machine)
            return
        pods = await leave(machine, keeper, "leave")
        self.done(machine.outcome, "removed", pods)

    async def _forget_unreached(self, keeper: Keeper, outcome: Outcome, error: UserError) -> None:
        """``error``: why it was not. It is raised where its cluster knows no such node."""
        host = outcome.candidate.login.host
        keeper.check_cluster(outcome.candidate.cluster)
        node = _listed(await keeper.nodes(), outcome.candidate, {host}, host)
        if node is None:
            raise error
        if node["ready"]:
            raise WorkFailed(
                f"{error.message}, and its cluster calls {node['name']} Ready",
                "It would come again. Switch it off, and run this again when it is NotReady: a minute later.",
            )
        await self._forget(keeper, outcome, node, error.message)

    async def _forget_undone(self, keeper: Keeper, machine: Machine) -> None:
        """No K3s is there: it cannot come again, even while its cluster still calls it Ready."""
        keeper.check_cluster(machine.candidate.cluster)
        listed = machine.looked.machine["addresses"].values()
        own = {str(ip_interface(one).ip) for addresses in listed for one in addresses}
        node = _listed(await keeper.nodes(), machine.candidate, own)
        if node is None or not keeper.may_be(str(node["name"]), str(machine.looked.machine["serial"])):
            raise back.no_node()
        if node["ready"] and node["address"] not in own:
            raise UserError(
                f"no K3s is there, and its cluster calls {node['name']} Ready at {node['address']}",
                "Is the host right in the file?",
            )
        await self._forget(keeper, machine.outcome, node, "K3s is gone from it")

    async def _forget(self, keeper: Keeper, outcome: Outcome, node: Mapping[str, Any], why: str) -> None:
        """By its master alone. Its pods are made anew elsewhere once there is no such node any more."""
        name = outcome.name = str(node["name"])
        is_master = bool(MASTERS & set(node["roles"]))
        own = keeper.looked.config
        outcome.candidate = replace(
            outcome.candidate,
            role=Role.MASTER if is_master else Role.WORKER,
            cluster=own.cluster if own else outcome.candidate.cluster,
        )
        outcome.address = str(node["address"])
        outcome.enter("forgetting")
        async with keeper.turn if is_master else nullcontext():
            await keeper.forget(name)
        self.done(outcome, "forgotten", {"untouched": why})


def _listed(
    nodes: Sequence[Mapping[str, Any]], one: Candidate, addresses: Collection[str], name: str | None = None
) -> Mapping[str, Any] | None:
    """What its cluster calls it: by the name that a file gives, else by an address, or by ``name``."""
    for node in nodes:
        if one.name and node["name"] == one.name:
            return node
        if not one.name and (node["address"] in addresses or node["name"] == name):
            return node
    return None
