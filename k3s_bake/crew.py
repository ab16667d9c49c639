"""Machines that are logged in to and dealt with side by side: what fails at one stops no other."""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from firstboot.errors import UserError, WorkFailed
from k3s_bake import adopt
from k3s_bake.adopt import How, Machine, Outcome

Step = Callable[[Machine], Coroutine[Any, Any, None]]

_AT_ONCE = 64
"""Machines that are logged in to at the same moment."""


INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


def interrupt(outcome: Outcome, hint: str) -> None:
    """What it says of itself where a person has stopped the run: its phase is how far it was."""
    outcome.error, outcome.hint, outcome.code = f"interrupted: {outcome.phase}", hint, INTERRUPTED


class Crew:
    how: How
    outcomes: list[Outcome]
    """There from the beginning, so that what was done is known when it is interrupted."""
    machines: dict[int, Machine]
    """Those that are well so far, by their places in ``outcomes``."""

    async def log_in(self, stack: AsyncExitStack, then: Step) -> None:
        """To all, until ``stack`` ends; and this with each, as soon as it is there."""
        gate = asyncio.Semaphore(_AT_ONCE)
        await stack.enter_async_context(self.how.jumps)

        async def one(at: int) -> None:
            async with gate:
                entered = adopt.logged_in(self.outcomes[at].candidate, self.outcomes[at], self.how)
                machine = await stack.enter_async_context(entered)
            self.machines[at] = machine
            await then(machine)

        await asyncio.gather(*(self.safely(at, one(at)) for at in range(len(self.outcomes))))
        self.machines = dict(sorted(self.machines.items()))  # as they were named, whichever answered first

    async def each(self, step: Step) -> None:
        """Of those that are well so far."""
        await asyncio.gather(*(self.safely(at, step(one)) for at, one in list(self.machines.items())))

    async def safely(self, at: int, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except UserError as error:
            self.fail(at, error)
        except Exception as error:  # noqa: BLE001 (a mistake of ours with one node stops no other)
            traceback.print_exc()
            self.fail(at, WorkFailed(f"k3s-bake failed: {type(error).__name__}", "Please report this."))

    def fail(self, at: int, error: UserError) -> None:
        self.outcomes[at].fail(error)
        self.machines.pop(at, None)
        self.how.told(self.outcomes[at])
