"""Machines that run become nodes, side by side: one outcome for each, whatever happens to the others."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bake import spec_json, trust, wish, zipapp
from bake.artifacts import Artifact
from bake.cache import Home
from bake.download import Web
from bake.facts import facts_of
from bake.spec import Datastore, File, FirstBoot, K3s, NodeSpec, Role
from bake.wish import Wish, credential_of
from firstboot.contract import Credential
from firstboot.edits import Place
from firstboot.errors import UserError, WorkFailed
from k3s_bake import adopt, preflight
from k3s_bake.adopt import Candidate, How, Machine, Outcome

_AT_ONCE = 64
"""Machines that are logged in to at the same moment."""


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


@dataclass(frozen=True)
class Supplies:
    """What every node needs of this machine, made on first use."""

    cluster: trust.Cluster | None
    """None: a dry run, and there is no such cluster yet."""
    agent: Artifact

    @property
    def first_boot(self) -> FirstBoot:
        key = self.cluster.public_key if self.cluster else wish.NO_AUTHORITY
        return FirstBoot(File(self.agent.name, self.agent.sha256, self.agent.size), key)


@dataclass
class Fleet:
    order: Order
    how: How
    outcomes: list[Outcome] = field(default_factory=list)
    """There from the beginning, so that what was done is known when it is interrupted."""
    _supplies: "Supplies | None" = None
    _machines: dict[int, Machine] = field(default_factory=dict)
    _k3s: dict[str, tuple[K3s, dict[str, Path]]] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.outcomes = [Outcome(candidate) for candidate in self.order.candidates]

    async def check(self) -> None:
        """Look at each machine, and say what stands in its way."""
        async with AsyncExitStack() as stack:
            await self._look(stack)
            for machine in self._machines.values():
                machine.tell("checked")

    async def adopt(self) -> None:
        """All the way. What a machine did not take is in its outcome."""
        self._supplies = await asyncio.to_thread(self._supply)
        async with AsyncExitStack() as stack:
            await self._look(stack)
            await self._each(self._plan)
            if self.order.dry_run:
                return
            await self._each(self._change)
            await self._ask_kubernetes()
            await self._each(self._ping)

    def _supply(self) -> Supplies:
        order, say = self.order, self.order.web.progress.say
        is_new = order.dry_run and not trust.exists(order.cluster, order.home)
        cluster = None if is_new else trust.open_cluster(order.cluster, order.home, say)
        return Supplies(cluster, zipapp.build(order.home, order.web.offline, say))

    async def _each(self, step: Callable[[Machine], Coroutine[Any, Any, None]]) -> None:
        """Of those that are well so far."""
        await asyncio.gather(*(self._safely(at, step(one)) for at, one in list(self._machines.items())))

    async def _safely(self, at: int, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except UserError as error:
            self.outcomes[at].fail(error)
            self._machines.pop(at, None)
            self.how.told(self.outcomes[at])

    # looking

    async def _look(self, stack: AsyncExitStack) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(at: int) -> None:
            async with gate:
                entered = adopt.logged_in(self.order.candidates[at], self.outcomes[at], self.how)
                machine = await stack.enter_async_context(entered)
            self._machines[at] = machine
            await machine.look()
            self._check(machine)

        await asyncio.gather(*(self._safely(at, one(at)) for at in range(len(self.outcomes))))
        self._check_names()

    def _check(self, machine: Machine) -> None:
        """UserError with the first thing that stops it."""
        outcome, found = machine.outcome, machine.looked.machine
        outcome.name = machine.looked.name
        outcome.address = preflight.lan_address(found, machine.candidate.login.host) or ""
        outcome.problems = preflight.problems(
            found, machine.candidate.role, time.time(), take_over=self.order.take_over
        )
        config = machine.looked.config
        if config and not self.order.take_over:
            wanted = (self.order.cluster, machine.candidate.role.value)
            if (config.cluster, config.role) != wanted:
                raise UserError(
                    f"it is a {config.role} of the cluster {config.cluster}", "--take-over makes it another."
                )
        for problem in outcome.problems:
            if problem.stops:
                raise UserError(problem.message, problem.remedy)

    def _check_names(self) -> None:
        names = {str(at): self._name(one) or "" for at, one in self._machines.items()}
        for at, problem in preflight.clashes(names).items():
            machine = self._machines[int(at)]
            if machine.candidate.name is None and not machine.looked.is_joined:
                continue  # its agent makes a name of the board's number
            self._machines.pop(int(at))
            machine.outcome.problems.append(problem)
            machine.outcome.fail(UserError(problem.message, problem.remedy))

    def _name(self, machine: Machine) -> str | None:
        """What it is to be called; None: what its agent makes of its number."""
        config = machine.looked.config
        if machine.candidate.name or (config and not self.order.take_over):
            return machine.candidate.name or (config.name if config else None)
        name = preflight.name_for(machine.looked.machine["hostname"])
        same = [one for one in self._machines.values() if one.looked.machine["hostname"] == name]
        return name if len(same) == 1 else None

    # planning

    @property
    def _leader(self) -> Machine | None:
        """The master that starts the cluster, or did."""
        masters = [one for one in self._machines.values() if one.candidate.role is Role.MASTER]
        leading = [one for one in masters if one.looked.config and not one.looked.config.joins]
        return next(iter(leading or [one for one in masters if not one.candidate.values.get("join")]), None)

    async def _plan(self, machine: Machine) -> None:
        spec, sources = await self._spec(machine)
        machine.spec, machine.sources = spec, sources
        machine.outcome.plan = machine.plan(spec)
        if self.order.dry_run:
            machine.tell("planned")

    async def _spec(self, machine: Machine) -> tuple[NodeSpec, dict[str, Path]]:
        """What the machine is to be, and where its files are. UserError for what no node can be."""
        order, looked, supplies = self.order, machine.looked, self._supplies
        if supplies is None:
            raise WorkFailed("nothing was made ready")
        arch = facts_of(looked.found, live=True).architecture
        sources = {supplies.agent.sha256: supplies.agent.path}
        first_boot, name = supplies.first_boot, self._name(machine)
        credential = Credential()  # a stand-in, where it has one already
        if supplies.cluster and not order.dry_run and not looked.has_credential:
            role = machine.candidate.role
            async with self._turn:
                credential = await asyncio.to_thread(credential_of, supplies.cluster, role, name)
        if looked.recorded and looked.config and not order.take_over:
            return await self._recorded(machine, first_boot, credential, arch, sources)
        k3s, files = await self._k3s_for(arch, order.parts)
        values = {**machine.candidate.values, **self._joining(machine)}
        values |= {"role": machine.candidate.role, "name": name, "cluster": order.cluster}
        return NodeSpec(k3s=k3s, first_boot=first_boot, credential=credential, **values), sources | files

    async def _recorded(
        self,
        machine: Machine,
        first_boot: FirstBoot,
        credential: Credential,
        arch: str,
        sources: dict[str, Path],
    ) -> tuple[NodeSpec, dict[str, Path]]:
        """A node of ours stays what it was told to be, but for what a person says now."""
        spec = spec_json.from_json(json.loads(machine.looked.recorded or ""))
        given = dict(machine.candidate.values)
        if not machine.looked.is_joined and spec.role is Role.WORKER:
            given |= {"master": self._joining(machine).get("master", spec.master)}
        if machine.candidate.name:
            given["name"] = machine.candidate.name
        if spec.credential is not None or not machine.looked.has_credential:
            given["credential"] = credential
        spec = replace(spec, first_boot=first_boot, **given)
        if self.order.given_k3s:
            k3s, files = await self._k3s_for(arch, self.order.parts)
            return replace(spec, k3s=k3s), sources | files
        missing = {
            edit.sha256 for edit in machine.plan(spec).edits if isinstance(edit, Place)
        } - sources.keys()
        if missing:
            version = str(spec.k3s.version) if spec.k3s.version else self.order.parts.k3s
            k3s, files = await self._k3s_for(arch, replace(self.order.parts, k3s=version))
            return replace(spec, k3s=k3s), sources | files
        return spec, sources

    def _joining(self, machine: Machine) -> dict[str, Any]:
        """How it finds its cluster: workers, and all masters but one, ask that one."""
        leader = self._leader
        masters = sum(one.role is Role.MASTER for one in self.order.candidates)
        several = (
            {"datastore": Datastore.ETCD} if masters > 1 and machine.candidate.role is Role.MASTER else {}
        )
        if machine is leader:
            return several
        joins = {"join": True} if machine.candidate.role is Role.MASTER else {}
        return several | joins | ({"master": leader.outcome.address} if leader else {})

    async def _k3s_for(self, arch: str, parts: Wish) -> tuple[K3s, dict[str, Path]]:
        """Fetched once for each processor."""
        async with self._turn:
            key = f"{arch} {parts.k3s}"
            if key not in self._k3s:
                self._k3s[key] = await asyncio.to_thread(
                    wish.k3s_of, parts, arch, self.order.home, self.order.web
                )
            return self._k3s[key]

    # changing

    async def _change(self, machine: Machine) -> None:
        if machine.spec is None or machine.outcome.plan is None:
            raise WorkFailed("nothing was planned")
        begun = time.monotonic()
        if self.order.take_over and (machine.looked.config or machine.looked.machine["k3s"]):
            machine.tell("leaving")
            await machine.remote.call("leave")
            await machine.look()
            await self._plan(machine)
        await machine.apply(machine.spec, machine.outcome.plan, machine.sources)
        machine.outcome.conf = time.monotonic() - begun
        if machine.outcome.pending:
            machine.tell("pending")
            return
        begun = time.monotonic()
        await machine.joined()
        machine.outcome.inst = time.monotonic() - begun

    async def _ask_kubernetes(self) -> None:
        """Whether each is Ready, in the words of the one who knows."""
        leader = self._leader
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
            one.outcome.address: one.outcome.name for one in self._machines.values() if one is not machine
        }
        others.pop("", None)
        answer = await machine.remote.call("ping", addresses=list(others))
        machine.outcome.pings = {others[address]: took for address, took in answer["milliseconds"].items()}
