"""Machines that run become nodes, side by side: one outcome for each, whatever happens to the others."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bake.cache import Home
from bake.download import Web
from bake.facts import facts_of
from bake.spec import ExternalDatastore, Role
from bake.wish import Wish
from firstboot.board import name_of
from firstboot.contract import NAME, NodeConfig, is_label
from firstboot.errors import UserError, WorkFailed
from k3s_bake import calling, preflight
from k3s_bake.adopt import Candidate, How, Machine, Outcome
from k3s_bake.crew import Crew
from k3s_bake.preflight import Problem
from k3s_bake.wanted import Supplies, Wanted, datastore_of, joining, supplies


@dataclass(frozen=True)
class Order:
    cluster: str
    candidates: Sequence[Candidate]
    parts: Wish
    """K3s and what else is staged; its nodes are not looked at."""
    given_k3s: bool
    """A person named a K3s: nodes that have another change theirs."""
    home: Home
    web: Web
    dry_run: bool = False
    take_over: bool = False


@dataclass
class Fleet(Crew):
    order: Order
    how: How
    outcomes: list[Outcome] = field(default_factory=list)
    _wanted: Wanted | None = None
    machines: dict[int, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outcomes = [Outcome(candidate, candidate.name or "") for candidate in self.order.candidates]

    async def check(self) -> None:
        """Look at each machine, and say what stands in its way."""
        async with AsyncExitStack() as stack:
            await self._look(stack)
            if len(self.machines) > 1:
                await calling.try_ports(list(self.machines.values()))
            for machine in self.machines.values():
                machine.outcome.name = self._name_to_be(machine)
                machine.tell("fit")

    async def adopt(self) -> None:
        """All the way. What a machine did not take is in its outcome."""
        async with AsyncExitStack() as stack:
            if self.order.dry_run:
                await self.ready(stack)
                return
            await self._ready_to_plan(stack)
            # Masters first: whoever waits for one knows then whether there will be one.
            await self.each(self._plan_master)
            # Workers are not planned for all together: their credentials are signed one by one.
            await self.each(self._plan_and_change)
            if self.how.wait:
                await self._ask_kubernetes()
                await self.each(self._ping)

    async def ready(self, stack: AsyncExitStack) -> None:
        """Each is looked at and planned for; until ``stack`` ends they are logged in to."""
        await self._ready_to_plan(stack)
        await self.each(self._plan)

    async def _ready_to_plan(self, stack: AsyncExitStack) -> None:
        await self._look(stack)
        if self.machines:  # a key is made for a cluster that there will be, and not for a mistyped name
            self._wanted = Wanted(await asyncio.to_thread(self._supply), self.order.dry_run)

    def _supply(self) -> Supplies:
        order = self.order
        return supplies(
            order.cluster, order.parts, order.given_k3s, order.home, order.web, dry_run=order.dry_run
        )

    # looking

    async def _look(self, stack: AsyncExitStack) -> None:
        """All of them: only then it is known whom to join, and who can be called what."""

        async def look(machine: Machine) -> None:
            await machine.look()
            self._check(machine)
            await self._check_datastore(machine)
            machine.tell("looked")

        await self.log_in(stack, look)
        self._check_names()
        await self._check_taken()

    def _check(self, machine: Machine) -> None:
        """UserError with the first thing that stops it."""
        outcome, found = machine.outcome, machine.looked.machine
        outcome.name = machine.candidate.name or machine.looked.name
        facts = facts_of(machine.looked.found, live=True)
        outcome.address = preflight.lan_address(found, machine.candidate.login.host) or ""
        role, take_over = machine.candidate.role, self.order.take_over
        outcome.problems = preflight.problems(
            found, role, time.time(), take_over=take_over, firmware=facts.firmware
        )
        config = machine.looked.config
        if config and self._is_anothers(machine) and not self.order.take_over:
            raise UserError(
                f"it is a {config.role} of the cluster {config.cluster}", "--take-over makes it another."
            )
        for problem in outcome.problems:
            if problem.stops:
                raise UserError(problem.message, problem.remedy)

    async def _check_datastore(self, machine: Machine) -> None:
        """Of a master whose datastore is elsewhere, or is to be. UserError where that cannot be."""
        if machine.candidate.role is not Role.MASTER:
            return
        before = None if self._is_anothers(machine) else datastore_of(machine.looked)
        wanted = machine.candidate.values.get("datastore", before)
        found = []
        if before is not None:
            take_over = self.order.take_over
            found = preflight.switched(before, wanted, machine.looked.machine, take_over=take_over)
        if isinstance(wanted, ExternalDatastore) and not found:
            answer = await machine.remote.call("call_all", places=wanted.places)
            found = preflight.not_reached(answer["failed"], len(wanted.places))
        machine.outcome.problems += found
        for problem in found:
            if problem.stops:
                raise UserError(problem.message, problem.remedy)

    def _is_anothers(self, machine: Machine) -> bool:
        """A node of another cluster or role, or of somebody else's K3s."""
        config = machine.looked.config
        if config is None:
            return bool(machine.looked.machine["k3s"])
        return (config.cluster, config.role) != (self.order.cluster, machine.candidate.role.value)

    def _check_names(self) -> None:
        names = {str(at): self._name_to_be(one) for at, one in self.machines.items()}
        joined = {at for at in names if self.machines[int(at)].looked.is_joined}
        for at, problem in preflight.clashes(names, joined).items():
            self._stop(int(at), problem)

    async def _check_taken(self) -> None:
        """Names that nodes of the cluster have which are not among these machines."""
        new = {at: one for at, one in self.machines.items() if not self._is_in(one)}
        if self.leader is None or not self._is_in(self.leader) or not new:
            return
        with contextlib.suppress(UserError):  # its K3s is down: then nobody is let in under any name
            told = await self.leader.remote.call("nodes")
            nodes = [node["name"] for node in told["nodes"] or []]
            for at, machine in new.items():
                name, serial = self._name_to_be(machine), str(machine.looked.machine["serial"])
                problem = preflight.taken(name, serial, nodes, told["serials"])
                if problem:
                    self._stop(at, problem)

    def _is_in(self, machine: Machine) -> bool:
        return machine.looked.is_joined and not self._is_anothers(machine)

    def _stop(self, at: int, problem: Problem) -> None:
        self.outcomes[at].problems.append(problem)
        self.fail(at, UserError(problem.message, problem.remedy))

    def _name(self, machine: Machine) -> str | None:
        """What it is to be called; None: what its agent makes of its number."""
        config, given = machine.looked.config, machine.candidate.name or _brought(machine)
        if given or config:
            return given or (config.name if config else None)
        return preflight.name_for(machine.looked.machine["hostname"])

    def _name_to_be(self, machine: Machine) -> str:
        if machine.looked.is_joined:
            return machine.looked.name
        order, role = self.order, machine.candidate.role
        joins = role is Role.WORKER or machine is not self.leader
        config = NodeConfig(order.cluster, role.value, self._name(machine), joins)
        return name_of(config, "", str(machine.looked.machine["serial"]))

    # planning

    @property
    def leader(self) -> Machine | None:
        """The master that starts the cluster, or did."""
        masters = [one for one in self.machines.values() if one.candidate.role is Role.MASTER]
        leading = [one for one in masters if one.looked.config and not one.looked.config.joins]
        return next(iter(leading or [one for one in masters if not one.candidate.values.get("join")]), None)

    async def _plan(self, machine: Machine) -> None:
        if self._wanted is None:
            raise WorkFailed("nothing was made ready")
        looked, candidate, leader = machine.looked, machine.candidate, self.leader
        masters = sum(one.role is Role.MASTER for one in self.order.candidates)
        address = leader.outcome.address if leader not in (None, machine) else None
        joins = joining(candidate.role, address, masters, candidate.values.get("datastore"))
        if looked.recorded and looked.config and not self._is_anothers(machine):
            # What its card is called counts, too: the record tells how the image was baked.
            name = candidate.name or ("" if looked.is_joined else _brought(machine))
            named = {"name": name} if name else {}
            led = {"master": address} if address and not looked.is_joined else {}
            planned = await self._wanted.again(machine, {**candidate.values, **named, **led})
        else:
            own = {"role": candidate.role, "name": self._name(machine), "cluster": self.order.cluster}
            planned = await self._wanted.new(machine, {**candidate.values, **joins, **own})
        machine.spec, machine.sources = planned
        machine.outcome.plan = machine.plan(planned[0])
        if self.order.dry_run:
            machine.tell("planned")

    async def _plan_master(self, machine: Machine) -> None:
        if machine.candidate.role is Role.MASTER:
            await self._plan(machine)

    # changing

    async def _plan_and_change(self, machine: Machine) -> None:
        if machine.outcome.plan is None:
            await self._plan(machine)
        await self._change(machine)

    async def _change(self, machine: Machine) -> None:
        if machine.spec is None or machine.outcome.plan is None:
            raise WorkFailed("nothing was planned")
        begun = time.monotonic()
        await self._set_clock(machine)
        if self._is_anothers(machine):
            machine.tell("leaving")
            await machine.remote.call("leave")
            await machine.look()
            await self._plan(machine)
        await machine.apply(machine.spec, machine.outcome.plan, machine.sources)
        machine.outcome.conf = time.monotonic() - begun
        if machine.outcome.pending or not self.how.wait:
            machine.tell("pending" if machine.outcome.pending else "changed")
            return
        masters = any(one.role is Role.MASTER for one in self.order.candidates)
        if masters and self.leader is None:
            raise WorkFailed("it waits for its master, which failed", "It joins as soon as there is one.")
        begun = time.monotonic()
        await machine.joined()
        machine.outcome.inst = time.monotonic() - begun

    async def _set_clock(self, machine: Machine) -> None:
        """Before K3s makes a certificate, or looks at one. Where NTP keeps it, ours may be wrong."""
        problems = machine.outcome.problems
        wrong = [one for one in problems if one.code == "clock"]
        if wrong:
            joined = self._is_in(machine)
            if (await machine.remote.call("set_clock", now=time.time(), joined=joined))["set"]:
                machine.outcome.problems = [one for one in problems if one not in wrong]

    async def _ask_kubernetes(self) -> None:
        """Whether each is Ready, in the words of the one who knows."""
        leader = self.leader
        if leader is None:
            return
        try:
            nodes = (await leader.remote.call("nodes"))["nodes"] or []
        except UserError:
            return
        ready: Mapping[str, bool] = {node["name"]: node["ready"] for node in nodes}
        for outcome in self.outcomes:
            outcome.ready = ready.get(outcome.name)

    async def _ping(self, machine: Machine) -> None:
        others = {
            one.outcome.address: one.outcome.name for one in self.machines.values() if one is not machine
        }
        others.pop("", None)
        answer = await machine.remote.call("ping", addresses=list(others))
        machine.outcome.pings = {others[address]: took for address, took in answer["milliseconds"].items()}


def _brought(machine: Machine) -> str:
    """The name that its card gave; empty where it gave none, or a later one took its place."""
    name = (machine.looked.found.text(NAME) or "").strip()
    return name if is_label(name) else ""
