"""Nodes that begin anew: K3s's state gone, and their agents join as on a first boot.

Nothing is changed before all of them have been looked at and found fit. Then masters come first, the one that
starts the cluster before those that join it, and workers last: they need its new keys.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from bake.spec import Role
from firstboot.contract import HOST_KEY, JOIN_KEY, K3S_DATASTORE
from firstboot.errors import UserError, WorkFailed
from k3s_bake import back
from k3s_bake.adopt import Candidate, How, Machine
from k3s_bake.back import Back, Sure, holds_cluster, leads
from k3s_bake.keeper import MASTERS, PODS, Keeper, leave
from k3s_bake.login import Login


class Reset(Back):
    OWN: Mapping[str, Any] = {**PODS, "reset_seconds": None, "ready_seconds": None}

    def __init__(self, nodes: Sequence[Candidate], how: How, master: Login | None, sure: Sure) -> None:
        super().__init__(nodes, how)
        self.leads: list[str] = []
        """Names of the masters that begin a new cluster each."""
        self._master, self._sure = master, sure
        self._keeper: Keeper | None = None

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            await self.log_in(stack, self._look)
            if self._master is not None and self.machines:
                self._keeper = await self.keeper(self._master, stack)
            for at, machine in list(self.machines.items()):
                await self.safely(at, self._check(machine))
            if any(outcome.error for outcome in self.outcomes):
                self.fail_all(
                    UserError("left as it was", "Another one cannot be reset: nothing was changed.")
                )
            for group in self._groups():
                if any(outcome.error for outcome in self.outcomes):
                    for at, _ in group:
                        self.fail(at, WorkFailed("left as it was", "Its master is to be Ready first."))
                    continue
                await asyncio.gather(*(self.safely(at, self._one(machine)) for at, machine in group))

    # before anything is changed

    async def _look(self, machine: Machine) -> None:
        await back.look(machine)
        if machine.looked.found.get(HOST_KEY if leads(machine) else JOIN_KEY) is None:
            raise UserError("it has no credential any more", "k3s-bake adopt takes it in again.")
        machine.tell("looked")

    async def _check(self, machine: Machine) -> None:
        """UserError with what speaks against it. A datastore elsewhere keeps a cluster that has no etcd."""
        if self._keeper is not None:
            self._keeper.check(machine)
        if machine.looked.found.get(K3S_DATASTORE) is not None:
            return
        if leads(machine):
            others = await self._other_masters(machine)
            if others:
                raise UserError(
                    f"it would begin a second cluster: {', '.join(others)} would go on with the first",
                    "Reset all of them; or 'k3s-bake remove' it, 'undo' it, and adopt it, another first.",
                )
            await back.require(self._sure, machine)
        elif machine.candidate.role is Role.MASTER and not (self._keeper or any(map(leads, self._all()))):
            raise UserError(
                "the other masters have to forget it, or etcd counts on it", "--master names one that stays."
            )

    async def _other_masters(self, machine: Machine) -> list[str]:
        """Of its cluster, that are not reset; none where nobody says."""
        asked = [machine.remote, *([self._keeper.remote] if self._keeper else [])]
        answers = [(await remote.call("nodes"))["nodes"] or [] for remote in asked]
        named = {outcome.name for outcome in self.outcomes}
        found = {node["name"] for nodes in answers for node in nodes if MASTERS & set(node["roles"])}
        return sorted(found - named)

    def _all(self) -> list[Machine]:
        return list(self.machines.values())

    def _groups(self) -> Iterator[list[tuple[int, Machine]]]:
        """Whoever is reset at the same time."""
        every = list(self.machines.items())
        masters = [one for one in every if one[1].candidate.role is Role.MASTER]
        for one in sorted(masters, key=lambda one: not leads(one[1])):
            yield [one]
        workers = [one for one in every if one not in masters]
        if workers:
            yield workers

    # one

    async def _one(self, machine: Machine) -> None:
        answer: dict[str, object] = {}
        begun = time.monotonic()
        if self._keeper is not None:
            answer.update(await leave(machine, self._keeper, "reset"))
        else:
            machine.tell("leaving")
            await machine.remote.call("reset")
        await machine.remote.call("begin")
        machine.tell("begun")
        if holds_cluster(machine):
            self.leads.append(machine.outcome.name)
        answer["reset_seconds"] = round(time.monotonic() - begun, 3)
        if self.how.wait:
            begun = time.monotonic()
            await machine.joined()
            answer["ready_seconds"] = round(time.monotonic() - begun, 3)
        machine.outcome.ready = self.how.wait or None
        self.done(machine.outcome, "joined" if self.how.wait else "reset", answer)
