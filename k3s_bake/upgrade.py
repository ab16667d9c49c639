"""Another K3s for a cluster that runs: masters first, one after the other, then workers, a few at a time.

Each is Ready with it before the next begins. The first that is not is given back what it had, and nothing
more is changed.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from bake import spec_json
from bake.concerns.k3s import BINARY, IMAGES
from bake.spec import NodeSpec, Role
from firstboot.errors import UserError, WorkFailed
from k3s_bake.adopt import Machine
from k3s_bake.fleet import Fleet

_POLL = 0.5


async def upgrade(fleet: Fleet, at_once: int) -> None:
    """``at_once``: workers. What became of each machine is in the fleet's outcomes."""
    async with AsyncExitStack() as stack:
        await fleet.ready(stack)
        if any(outcome.error for outcome in fleet.outcomes):
            return  # nothing was changed yet
        master = fleet.leader
        if master is None:
            for at in range(len(fleet.outcomes)):
                fleet.fail(at, UserError("no master is among them", "It is asked whether each is Ready."))
            return
        for group in _groups(list(fleet.machines.items()), at_once):
            if any(outcome.error for outcome in fleet.outcomes):
                for _, machine in group:
                    machine.tell("left as it was")
            else:
                steps = (fleet.safely(at, _one(machine, master, fleet)) for at, machine in group)
                await asyncio.gather(*steps)


def _groups(machines: Sequence[tuple[int, Machine]], at_once: int) -> Iterator[list[tuple[int, Machine]]]:
    for one in machines:
        if one[1].candidate.role is Role.MASTER:
            yield [one]
    workers = [one for one in machines if one[1].candidate.role is Role.WORKER]
    for start in range(0, len(workers), at_once):
        yield workers[start : start + at_once]


async def _one(machine: Machine, master: Machine, fleet: Fleet) -> None:
    spec, outcome = machine.spec, machine.outcome
    if spec is None or outcome.plan is None or machine.looked.recorded is None:
        raise UserError("it is no node of ours", "k3s-bake adopt makes it one.")
    if spec.k3s.version is None:
        raise UserError("which version is that K3s?", "--k3s-version names it.")
    begun = time.monotonic()
    before = spec_json.loads(machine.looked.recorded).k3s
    keep = [BINARY, *([f"{IMAGES}/{before.airgap.name}"] if before.airgap else [])]
    await machine.apply(spec, outcome.plan, machine.sources, keep)
    outcome.conf = time.monotonic() - begun
    begun = time.monotonic()
    try:
        await _ready(machine, master, str(spec.k3s.version), fleet.how.timeout)
    except UserError as error:
        back = replace(spec, k3s=before)
        raise await _back(machine, master, back, error, fleet.how.timeout) from error
    outcome.inst = time.monotonic() - begun
    await machine.remote.call("apply", changes=[], first=[], then=[])  # what was kept to go back goes


async def _ready(machine: Machine, master: Machine, version: str, timeout: float) -> None:
    """Until Kubernetes calls it Ready with that version. WorkFailed where that takes too long."""
    machine.tell("starting", version)
    end = time.monotonic() + timeout
    while True:
        nodes: Sequence[Mapping[str, Any]] = (await master.remote.call("nodes"))["nodes"] or []
        here = [node for node in nodes if node["name"] == machine.outcome.name]
        unit = machine.candidate.role.unit
        state = await machine.remote.call("state", unit=unit)
        if state["active"] and any(node["ready"] and node["k3s"] == version for node in here):
            machine.outcome.ready = True
            machine.tell("joined")
            return
        if time.monotonic() > end:
            words = f"not Ready with {version} after {timeout:.0f} s"
            raise WorkFailed(words, await machine.last_words())
        await asyncio.sleep(_POLL)


async def _back(
    machine: Machine, master: Machine, spec: NodeSpec, error: UserError, timeout: float
) -> WorkFailed:
    """What to say of it, once it has the K3s of ``spec`` again."""
    machine.tell("going back")
    await machine.look()
    try:
        await machine.apply(spec, machine.plan(spec), machine.sources)
        await _ready(machine, master, str(spec.k3s.version), timeout)
    except UserError as second:
        return WorkFailed(f"{error.message}; going back failed: {second.message}", error.hint)
    return WorkFailed(f"{error.message}; it has {spec.k3s.version} again", error.hint)
