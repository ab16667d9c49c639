"""Nodes that leave their cluster: drained side by side, and forgotten. Also those that are none any more."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from k3s_bake import back
from k3s_bake.adopt import Candidate, How, Machine
from k3s_bake.back import Back
from k3s_bake.keeper import leave
from k3s_bake.login import Login


class Remove(Back):
    def __init__(self, nodes: Sequence[Candidate], how: How, master: Login) -> None:
        super().__init__(nodes, how)
        self._master = master

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            keeper = await self.keeper(self._master, stack)
            if keeper is None:
                return

            async def fit(machine: Machine) -> None:
                await back.look(machine)
                keeper.check(machine)
                machine.tell("looked")

            async def one(machine: Machine) -> None:
                pods = await leave(machine, keeper, "leave")
                self.done(machine, "removed", {"name": machine.outcome.name, **pods})

            await self.log_in(stack, fit)
            await self.cordon(keeper)
            await self.each(one)
