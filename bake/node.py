"""The description of a node, and the plan: the difference between it and what was found."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bake.concerns import (
    Note,
    cgroups,
    clock,
    containerd,
    first_boot,
    identity,
    iptables,
    join_service,
    k3s,
    network,
    ports,
    record,
    swap,
)
from bake.facts import PROBES as FACT_PROBES
from bake.facts import NodeFacts, facts_of
from bake.spec import NodeSpec
from firstboot.edits import Edit, Write
from firstboot.snapshot import Node, Probe, Snapshot


@dataclass(frozen=True)
class Concern:
    name: str
    probes: tuple[Probe, ...]
    wants: Callable[[NodeSpec, NodeFacts], Iterator[Edit | Note]]
    secrets: Callable[[NodeFacts], Iterator[str]] = lambda _: iter(())
    """The paths that hold a secret now."""


CONCERNS = (
    Concern("cgroups", cgroups.PROBES, cgroups.wants),
    Concern("iptables", iptables.PROBES, iptables.wants),
    Concern("swap", swap.PROBES, swap.wants),
    Concern("clock", clock.PROBES, clock.wants),
    Concern("ports", ports.PROBES, ports.wants),
    Concern("containerd", containerd.PROBES, containerd.wants),
    Concern("k3s", k3s.PROBES, k3s.wants, k3s.secrets),
    Concern("identity", identity.PROBES, identity.wants),
    Concern("network", network.PROBES, network.wants, network.secrets),
    Concern("first_boot", first_boot.PROBES, first_boot.wants, first_boot.secrets),
    Concern("join_service", join_service.PROBES, join_service.wants, join_service.secrets),
    Concern("record", record.PROBES, record.wants),
)

PROBES = tuple(dict.fromkeys(FACT_PROBES + tuple(probe for concern in CONCERNS for probe in concern.probes)))


@dataclass(frozen=True)
class Step:
    """One edit still to be done: for which concern, and what is there now (None: nothing)."""

    concern: str
    edit: Edit
    before: Node | None


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...]
    notes: tuple[tuple[str, str], ...]
    """(concern, text) in the order of the concerns."""
    secret: bool
    """Whether the node holds a secret, written now or before: its image must be nobody else's to read."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        return tuple(step.edit for step in self.steps)


def plan(spec: NodeSpec, found: Snapshot, *, live: bool = False) -> Plan:
    """What is left to do, on an image or (``live``) a node that runs. Pure; empty after it was carried out.

    UserError where the target cannot become such a node. ``found`` answers PROBES.
    """
    facts = facts_of(found, live=live)
    steps: list[Step] = []
    notes: list[tuple[str, str]] = []
    kept = {path for concern in CONCERNS for path in concern.secrets(facts)}
    secret = False
    for concern in CONCERNS:
        for want in concern.wants(spec, facts):
            if isinstance(want, Note):
                notes.append((concern.name, want.text))
                continue
            if not found.covers(want.path):  # else absence would be a guess: a mistake in the concern
                raise AssertionError(f"{concern.name} edits {want.path} without having asked for it")
            secret = secret or (isinstance(want, Write) and want.secret)
            before = found.get(want.path)
            kept.discard(want.path)
            if not want.met_by(before):
                steps.append(Step(concern.name, want, before))
    return Plan(tuple(steps), tuple(notes), secret or bool(kept))
