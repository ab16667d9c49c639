"""Nodes on their way back: out of their cluster, or to what they were. A result for each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from bake.spec import Role
from firstboot.contract import CONFIG, HOST_KEY, JOIN_KEY, K3S_DATASTORE
from firstboot.errors import UserError, WorkFailed
from k3s_bake import fleet_report, ssh
from k3s_bake.adopt import Candidate, How, Looked, Machine, Outcome
from k3s_bake.crew import Crew, interrupt
from k3s_bake.found import snapshot_of
from k3s_bake.keeper import Keeper
from k3s_bake.login import Login
from k3s_bake.preflight import lan_address

_UNTOUCHED = ("waiting", "connecting", "not reached", "looking", "looked")
_NO_NEW_PODS = ("cordoned", "draining", "leaving")
_SO_FAR = {
    "cordoned": "It takes no new pods. Run it again; or 'k3s kubectl uncordon {name}', on its master.",
    "draining": "It takes no new pods, and some may have gone. Run it again; or 'k3s kubectl uncordon "
    "{name}', on its master.",
    "leaving": "It may be off by now, and its cluster may list it still. Run it again.",
    "forgetting": "Its cluster may have forgotten it by now. Run it again.",
    "going back": "It may be going on with that. Run it again.",
}
"""What is true of a node where its phase was cut off."""
Sure = Callable[[str], Awaitable[bool]]
"""Whether the person means the master of that name, whose cluster's data will be gone."""
SECRETS = (JOIN_KEY, HOST_KEY, K3S_DATASTORE)


class Back(Crew):
    OWN: Mapping[str, Any] = {}
    """What a command says of each in JSON, beyond what all say: as it is where nothing was done."""

    def __init__(self, nodes: Sequence[Candidate], how: How) -> None:
        self.how = how
        self.outcomes = [Outcome(one, one.name or "") for one in nodes]
        self.machines: dict[int, Machine] = {}
        self._answers: dict[str, Mapping[str, Any]] = {}

    def data(self) -> list[dict[str, Any]]:
        """Of each, as they were named: what fleet_report.common says, and the command's own."""
        return [self._data(one) for one in self.outcomes]

    def _data(self, one: Outcome) -> dict[str, Any]:
        # Without a file nobody has said what it is before it was looked at.
        known = {} if one.candidate.cluster else {"role": None}
        answer = self._answers.get(str(one.candidate.login))
        return {
            **fleet_report.common(one),
            **known,
            **self.OWN,
            **({} if answer is None else self.own(one.name, answer)),
        }

    def own(self, name: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """With what is known in the end alone."""
        return answer

    def interrupt(self) -> None:
        """Whatever was not done yet is said to be interrupted."""
        for one in self.outcomes:
            if not one.error and str(one.candidate.login) not in self._answers:
                interrupt(one, so_far(one))

    def fail(self, at: int, error: UserError) -> None:
        outcome = self.outcomes[at]
        if outcome.phase in _NO_NEW_PODS:
            uncordon = f"'k3s kubectl uncordon {outcome.name}', on its master"
            told = f"It takes no new pods: {uncordon}, if it is to stay."
            error = type(error)(error.message, f"{error.hint} {told}".strip())
        super().fail(at, error)

    def done(self, outcome: Outcome, phase: str, answer: Mapping[str, Any]) -> None:
        self._answers[str(outcome.candidate.login)] = answer
        outcome.enter(phase)
        self.how.told(outcome)

    async def keeper(self, master: Login, stack: AsyncExitStack) -> Keeper | None:
        """None where it is not to be had: then each has failed."""
        try:
            jumps = await stack.enter_async_context(self.how.jumps)
            found = await ssh.opened(master, self.how.person, accept_new=self.how.accept_new, jumps=jumps)
            stack.push_async_callback(found.close)
            answer = await found.call("look", probes=[[CONFIG, "content"]])
            keeper = Keeper(found, Looked(snapshot_of(answer["nodes"]), answer["machine"]))
            await keeper.nodes()
        except UserError as error:
            self.fail_all(type(error)(f"{master}: {error.message}", error.hint))
            return None
        return keeper

    async def cordon(self, keeper: Keeper) -> None:
        """All that are well so far, before the first is drained: or its pods went to one of them."""
        names = [one.outcome.name for one in self.machines.values() if one.looked.config]
        try:
            if names and not (await keeper.remote.call("cordon", names=names))["done"]:
                raise WorkFailed("its master did not keep new pods from it", "Run it again.")
            for one in self.machines.values():
                if one.outcome.name in names:
                    one.tell("cordoned")
        except UserError as error:
            for at in list(self.machines):
                self.fail(at, error)

    def fail_all(self, error: UserError) -> None:
        """All that have not failed by themselves."""
        for at, outcome in enumerate(self.outcomes):
            if not outcome.error:
                self.fail(at, error)


def is_untouched(one: Outcome) -> bool:
    """Nothing was changed on it, nor of it in its cluster."""
    entered = [phase for _, phase in one.timeline if phase != "failed"]
    return not set(entered).difference(_UNTOUCHED)


def so_far(one: Outcome) -> str:
    """Of one that was interrupted. All other phases are those of its agent, once it has begun anew."""
    if is_untouched(one):
        return "Nothing was changed there."
    return _SO_FAR.get(one.phase, "It is reset, and goes on joining by itself.").format(name=one.name)


async def look(machine: Machine, *, is_node: bool = True) -> None:
    """What it is, and its name. UserError where it is another than a cluster.toml says, and where it is no
    node of ours, unless that is all right."""
    machine.tell("looking")
    answer = await machine.remote.call(
        "look", probes=[[CONFIG, "content"], *([p, "digest"] for p in SECRETS)]
    )
    machine.looked = Looked(snapshot_of(answer["nodes"]), answer["machine"])
    config, named = machine.looked.config, machine.candidate
    if config is None and is_node:
        raise no_node()
    name, hint = machine.looked.name, "Is the host right in the file?"
    if named.name and machine.looked.machine["ours"] and name != named.name:
        raise UserError(f"it is called {name}, not {named.name}", hint)
    if config:
        if named.cluster not in (None, config.cluster):
            raise UserError(f"it is of the cluster {config.cluster}, not of {named.cluster}", hint)
        machine.candidate = replace(named, role=Role(config.role), cluster=config.cluster)
        machine.outcome.candidate = machine.candidate
    machine.outcome.name = name
    machine.outcome.address = lan_address(machine.looked.machine, named.login.host) or ""


def no_node() -> UserError:
    return UserError("no agent of ours has run there", "Is it a node at all?")


def leads(machine: Machine) -> bool:
    """Whether it is the master that began its cluster."""
    config = machine.looked.config
    return config is not None and not config.joins


def holds_cluster(machine: Machine) -> bool:
    """Whether its cluster's data are on it; others may have them, too."""
    return leads(machine) and machine.looked.found.get(K3S_DATASTORE) is None


async def require(sure: Sure, machine: Machine) -> None:
    """UserError where the person does not mean it."""
    if not await sure(machine.outcome.name):
        raise UserError("all of its cluster's data would be gone", "--yes deletes them.")
