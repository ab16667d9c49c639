"""One machine that runs, on its way to becoming a node: looked at, planned for, changed, awaited."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bake.artifacts import Link
from bake.concerns import record
from bake.facts import facts_of
from bake.inspection import is_there
from bake.node import PROBES, Plan, plan
from bake.spec import NodeSpec, Role
from bake.trust import RENEW
from firstboot import certificate
from firstboot.contract import CONFIG, GOLDEN, JOIN_CERTIFICATE, JOIN_KEY, REASONS, NodeConfig
from firstboot.edits import Place, to_json
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import Snapshot
from k3s_bake import ssh
from k3s_bake.found import snapshot_of
from k3s_bake.login import Login, Person
from k3s_bake.peers import Peers
from k3s_bake.preflight import Problem
from k3s_bake.wake import wake

_POLL = 0.4
_BOOT = 300.0
"""Seconds for a restart of the system."""

_BLOCKED = 15.0
"""Seconds for which a node stays blocked until that is believed: only a person mends it."""

_ELSEWHERE = "other-cluster"
"""The reason of a node whose master is none of its cluster's."""


@dataclass(frozen=True)
class Candidate:
    """A machine that a person names, and what it is to be."""

    login: Login
    role: Role
    name: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Further values of NodeSpec."""
    cluster: str | None = None
    """Where a cluster.toml names it."""


@dataclass(frozen=True)
class Looked:
    """What was found there."""

    found: Snapshot
    machine: Mapping[str, Any]

    @property
    def config(self) -> NodeConfig | None:
        """Of the agent that it has already."""
        with contextlib.suppress(UserError):
            return NodeConfig.from_json(self.found.text(CONFIG) or "")
        return None

    @property
    def recorded(self) -> str | None:
        """What an earlier bake or adoption made it to be."""
        return self.found.text(record.PATH)

    def has_credential(self, now: float, name: str | None) -> bool:
        """One for this name, or any, that is good for long enough: ``now`` in seconds since 1970."""
        try:
            found = certificate.read(self.found.text(JOIN_CERTIFICATE) or "")
        except ValueError:
            return False
        fits = name is None or found.key_id == name or found.key_id.startswith(GOLDEN)
        return fits and self.found.get(JOIN_KEY) is not None and found.expires > now + RENEW

    @property
    def is_joined(self) -> bool:
        return bool(self.machine["ours"] and self.machine["ours"]["joined"])

    @property
    def name(self) -> str:
        """What its agent calls it, or its host name."""
        return str((self.machine["ours"] or {}).get("name") or self.machine["hostname"])


@dataclass
class Outcome:
    """Of one machine, in the end or on the way."""

    candidate: Candidate
    name: str = ""
    address: str = ""
    phase: str = "waiting"
    reason: str = ""
    error: str = ""
    hint: str = ""
    code: int = 0
    """2: something for a person to mend; 1: work that failed."""
    conf: float | None = None
    """Seconds until all was changed that had to be."""
    inst: float | None = None
    """Seconds from then until it was Ready."""
    plan: Plan | None = None
    problems: list[Problem] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    """Commands that failed, each with what it said."""
    pending: tuple[str, ...] = ()
    """What takes effect at the next boot."""
    ready: bool | None = None
    """As Kubernetes says."""
    pings: dict[str, float | None] = field(default_factory=dict)
    """Milliseconds to the other nodes, by their names."""

    sent: int = 0
    """Bytes of large files."""
    timeline: list[tuple[float, str]] = field(default_factory=list)
    """Seconds from the beginning, and the phase that began then."""
    _began: float = field(default_factory=time.monotonic)

    def enter(self, phase: str, reason: str = "") -> None:
        if not self.timeline or self.timeline[-1][1] != phase:
            self.timeline.append((time.monotonic() - self._began, phase))
        self.phase, self.reason = phase, reason

    def count(self, sent: int) -> None:
        self.sent += sent

    @property
    def lasts(self) -> float:
        """Seconds since the phase began."""
        begun = self.timeline[-1][0] if self.timeline else 0.0
        return time.monotonic() - self._began - begun

    def fail(self, error: UserError) -> None:
        self.error, self.hint, self.code = error.message, error.hint, error.exit_code
        self.enter("failed")


@dataclass(frozen=True)
class How:
    person: Person
    accept_new: bool = False
    reboot: bool = True
    wait: bool = True
    """Until it is Ready."""
    timeout: float = 600.0
    """Seconds from the change to Ready."""
    told: Callable[[Outcome], None] = lambda outcome: None
    """Called whenever the phase of a machine changes."""
    jumps: ssh.Jumps = field(default_factory=ssh.Jumps)
    peers: Peers = field(default_factory=Peers)


class Machine:
    """A candidate, logged in to."""

    def __init__(self, candidate: Candidate, outcome: Outcome, remote: ssh.Remote, how: How) -> None:
        self.candidate = candidate
        self.outcome = outcome
        self.remote = remote
        self.looked = Looked(Snapshot({}, ()), {})
        self.spec: NodeSpec | None = None
        self.sources: Mapping[str, Path | Link] = {}
        """Large files by their sha256."""
        self.untouched: frozenset[str] = frozenset()
        """Paths of secrets of which only is known that they are to be there."""
        self._how = how
        self._woken = False
        """Its agent starts anew, by a command or a boot."""

    def tell(self, phase: str, reason: str = "") -> None:
        if (phase, reason) != (self.outcome.phase, self.outcome.reason):
            self.outcome.enter(phase, reason)
            self._how.told(self.outcome)

    async def look(self) -> Looked:
        """One question: all files that any concern asks for, and what the machine is."""
        self.tell("looking")
        probes = [[probe.path, probe.read] for probe in PROBES]
        answer = await self.remote.call("look", probes=probes)
        self.looked = Looked(snapshot_of(answer["nodes"]), answer["machine"])
        return self.looked

    def plan(self, spec: NodeSpec) -> Plan:
        """What is left to do."""
        todo = plan(spec, self.looked.found, live=True)
        kept = (step for step in todo.steps if not (step.edit.path in self.untouched and is_there(step)))
        return replace(todo, steps=tuple(kept))

    async def apply(
        self, spec: NodeSpec, todo: Plan, sources: Mapping[str, Path | Link], keep: Sequence[str] = ()
    ) -> None:
        """Carry a plan out, large files first; then what the running system needs, a boot included.

        What is at the paths of ``keep`` now stays at hand there, for a plan that puts it back.
        """
        # What a run that was cut off has changed, and not told the running system.
        unfinished = set(map(str, self.looked.machine.get("unfinished", ())))
        paths = sorted({*unfinished, *(step.edit.path for step in todo.steps)})
        facts = facts_of(self.looked.found, live=True)
        agent, is_on = spec.first_boot is not None, bool(self.looked.machine.get("k3s_is_on"))
        unit = self.looked.found.get(f"/etc/systemd/system/{spec.role.unit}.service")
        is_new = not self._woken and unit is None
        needed = wake(paths, boot=facts.boot, unit=spec.role.unit, agent=agent, is_on=is_on, is_new=is_new)
        boots = bool(needed.reboot) and self._how.reboot
        self.outcome.pending = () if boots else needed.reboot
        if not todo.steps and not boots and unfinished == set(needed.reboot):
            return
        self._woken = True
        for edit in todo.edits:
            if isinstance(edit, Place):
                await self._how.peers.bring(self, edit, sources)
        self.tell("changing")
        answer = await self.remote.call(
            "apply",
            changes=[to_json(edit) for edit in todo.edits],
            keep=list(keep),
            first=needed.first,
            then=() if boots else needed.then,
            paths=paths,
            left=needed.reboot,
        )
        self.outcome.failed = answer["failed"]
        if boots:
            await self._how.peers.leave(self)
            await self._reboot()

    async def _reboot(self) -> None:
        self.tell("rebooting")
        before, login = self.looked.machine["boot_id"], self.candidate.login
        with contextlib.suppress(WorkFailed):  # it may be down before its answer is here
            await self.remote.call("reboot")
        await self.remote.close()
        end = time.monotonic() + _BOOT
        hint = "Is it on? A screen, or its card's k3s-bake-status.txt, says more."
        while time.monotonic() < end:
            await asyncio.sleep(1)
            try:
                self.remote = await ssh.opened(login, self._how.person, jumps=self._how.jumps)
                if (await self.remote.call("state"))["boot_id"] != before:
                    return
                await self.remote.close()
            except UserError as error:  # while it boots, it may refuse the login, too (pam_nologin)
                hint = error.hint
        raise WorkFailed("it did not come back from its restart", hint)

    async def joined(self) -> None:
        """Until Kubernetes says that it is Ready, as its agent knows. UserError where it is blocked."""
        end = time.monotonic() + self._how.timeout
        before = (self.looked.machine["ours"] or {}).get("since") if self._woken else None
        while True:  # its unit, too: Kubernetes calls a node Ready for a while that is not there any more
            state = await self.remote.call("state", unit=self.candidate.role.unit)
            if state["since"] and state["since"] != before:  # else its agent has not started anew yet
                self.tell(str(state["phase"]), str(state["reason"]))
                self.outcome.name = str(state["name"])
                if (state["phase"], state["reason"], state["active"]) == ("joined", "", True):
                    return
            is_stuck = self.outcome.phase == "blocked" or self.outcome.reason == _ELSEWHERE
            if (is_stuck and self.outcome.lasts > _BLOCKED) or time.monotonic() > end:
                raise await self._late(state)
            await asyncio.sleep(_POLL)

    async def last_words(self) -> str:
        """Of K3s's log there; empty where it says nothing."""
        log = (await self.remote.call("state", lines=5, unit=self.candidate.role.unit))["log"]
        lines = [re.sub('^time="[^"]*" ', "", line)[:200] for line in log]
        return "K3s said: " + "; ".join(lines) if lines else ""

    async def _late(self, state: Mapping[str, Any]) -> UserError:
        reason = str(state["reason"])
        if reason == _ELSEWHERE:
            hint = f"Where that one has begun anew: k3s-bake reset {self.candidate.login}."
            return UserError("its cluster is another one than that of the master which is heard", hint)
        if state["phase"] == "blocked":
            return UserError(f"it is blocked: {reason}", REASONS.get(reason, ""))
        how = f"{state['phase']} ({reason})" if reason else state["phase"]
        words = f"not Ready after {self._how.timeout:.0f} s: {how}"
        hints = [REASONS.get(reason, ""), await self.last_words()]
        return WorkFailed(words, " ".join(filter(None, hints)))


@contextlib.asynccontextmanager
async def logged_in(candidate: Candidate, outcome: Outcome, how: How) -> AsyncIterator[Machine]:
    """UserError and WorkFailed as ssh.opened."""
    outcome.enter("connecting")
    how.told(outcome)
    remote = await ssh.opened(candidate.login, how.person, accept_new=how.accept_new, jumps=how.jumps)
    machine = Machine(candidate, outcome, remote, how)
    try:
        yield machine
    finally:
        await machine.remote.close()
