"""What a node that joins does next. Pure: configuration, memory, what is heard and the clock in; a step out.

Runs on the node too: Python 3.7, standard library only.
"""

from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

from firstboot.contract import Announcement, NodeConfig
from firstboot.token import Grant

ROUND = 4.0
"""Seconds of a round of listening: fresh short ones find what one long one misses where packets get lost."""

FIRST, LONGEST = 2.0, 60.0
"""Seconds between two questions to one master: at first, doubled with each failure, and at most."""

LISTENED = 3.0
"""Seconds that a node has listened for before it uses its first grant: a second cluster of the same name
would have been heard."""

SETTLED = 15.0
"""Seconds after a grant until nobody else is asked: strangers without number hold up nobody."""

AT_ONCE = 8
"""Masters to ask."""

NEWS = 0.5
"""Seconds between two questions to a master that announces something new meanwhile."""

FEW, EACH = 4, 0.3
"""Nodes that may ask at once, and seconds that a Pi needs for each one more."""

CROWD = 30.0
"""Seconds at most: anyone can announce nodes that are not there."""

KEPT = 60.0
"""Seconds for which a grant that could not be used yet is as good as new."""

_TELLING = (
    "two-clusters",
    "other-cluster",
    "name-taken",
    "wrong-name",
    "not-allowed",
    "newer-than-master",
    "credential-refused",
    "no-credential",
    "bad-answer",
    "not-ready",
    "unreachable",
    "untrusted-master",
)
"""Reasons from the one that a person should hear first. What a stranger can bring about comes last."""

_FOR_A_PERSON = frozenset(_TELLING[: _TELLING.index("bad-answer")])
"""Those that only a person can mend. The node is blocked, and goes on asking: it heals once that is done."""


@dataclass(frozen=True)
class Memory:
    """What a node knows of itself over power cuts."""

    name: str = ""
    phase: str = "checking"
    reason: str = ""
    since: int = 0
    """Of phase and reason, in seconds since 1970."""
    conf: str = ""
    inst: str = ""
    address: str = ""
    """Of the master that let the node in."""
    server: str = ""
    ca: str = ""
    """Which K3s cluster it was let in to: never another one."""
    joined: bool = False
    """Kubernetes has said once that the node is Ready."""


@dataclass(frozen=True)
class Try:
    """The last question to one master."""

    asked: float
    """By the clock that View.now is of."""
    said: str = ""
    """What the master announced of itself then."""
    failures: int = 0
    wait: float = FIRST
    reason: str = ""
    grant: Optional[Grant] = None


@dataclass(frozen=True)
class View:
    now: float
    """Seconds of a clock that never jumps."""
    config: NodeConfig
    memory: Memory = field(default_factory=Memory)
    serial: str = ""
    network: bool = True
    """Whether this node has an address in a network."""
    heard: Sequence[Announcement] = ()
    tries: Mapping[str, Try] = field(default_factory=dict)
    """By the masters' addresses."""
    listened: float = LISTENED
    """Seconds until now."""


@dataclass(frozen=True)
class Listen:
    """Hear who is there for a round; meanwhile this is how it stands."""

    phase: str
    reason: str
    seconds: float = ROUND


@dataclass(frozen=True)
class Ask:
    """All of them at once: those who never answer hold up the others for one answer's time at most."""

    masters: Mapping[str, str]
    """Addresses, each with what is announced there."""


@dataclass(frozen=True)
class Start:
    address: str
    grant: Grant


Step = Union[Listen, Ask, Start]


def next_step(view: View) -> Step:
    """Whoever was not asked yet is asked first: of two clusters, neither is joined by chance."""
    found = candidates(view)
    tries = {address: view.tries[address] for address in found if address in view.tries}
    chosen = _chosen({key: last.grant for key, last in tries.items() if last.grant}, view.memory.ca)
    due = due_of(view, found)
    if isinstance(chosen, Start):
        waited = view.now - tries[chosen.address].asked
        due = [address for address in due if address not in tries] if waited < SETTLED else []
    if due:
        return Ask({address: found[address] for address in due[:AT_ONCE]})
    if isinstance(chosen, Start):
        left = LISTENED - view.listened
        is_meant = bool(view.memory.ca) or chosen.address == view.config.master  # by a person
        return chosen if left <= 0 or is_meant else Listen("asking", "", max(left, 0.5))
    return Listen(*_standing(view, found, chosen))


def candidates(view: View) -> Dict[str, str]:
    """Addresses of masters, each with what it announces: those heard, the one configured, the last one."""
    found: Dict[str, str] = {}
    for one in view.heard:
        ours = (one.cluster, one.role) == (view.config.cluster, "master")
        if ours and one.addr and one.serial != view.serial:
            found.setdefault(one.addr, f"{one.phase} {one.since}")
    for address in (view.config.master, view.memory.address):
        if address:
            found.setdefault(address, "")
    return found


def due_of(view: View, found: Mapping[str, str]) -> List[str]:
    """Whom to ask now: who was named or known before strangers, then those with the fewest failures.

    A master that announces something new is asked at once: it may have become ready.
    """

    def is_due(address: str) -> bool:
        last = view.tries.get(address)
        if last is None:
            return True
        news = found[address] and found[address] != last.said
        return view.now >= last.asked + (NEWS if news and not last.grant else last.wait)

    def order(address: str) -> Tuple[bool, int]:
        is_named = address in (view.config.master, view.memory.address)
        return not is_named, view.tries[address].failures if address in view.tries else 0

    return sorted(filter(is_due, found), key=order)


def crowd(view: View) -> float:
    """Seconds that a master needs to answer all who are on their way: who asks waits for a part of them, so
    that a hundred that hear the same master do not come at once."""
    others = [one for one in view.heard if one.cluster == view.config.cluster and one.phase != "joined"]
    return min(CROWD, EACH * max(0, len(others) - FEW))


def failed(
    last: Optional[Try], said: str, reason: str, now: float, chance: float, waited: bool = False
) -> Try:
    """The next question waits longer, each node for another time: ``chance`` is from 0 to 1.

    A master that has let the node wait for it (``waited``) is asked again soon.
    """
    failures = last.failures + 1 if last and not waited else 1
    longest = min(LONGEST, FIRST * 2 ** min(failures, 10))
    return Try(now, said, failures, FIRST + (longest - FIRST) * chance, reason)


def granted(said: str, grant: Grant, now: float) -> Try:
    return Try(now, said, 0, KEPT, "", grant)


def _chosen(grants: Mapping[str, Grant], ca: str) -> Union[Start, str]:
    """Which grant to use; else a reason against all of them, or none.

    By the authenticated answers' CA hash: masters that share it are one cluster.
    """
    if not grants:
        return ""
    if not ca and len({grant.ca for grant in grants.values()}) > 1:
        return "two-clusters"
    for address, grant in grants.items():
        if not ca or grant.ca == ca:
            return Start(address, grant)
    return "other-cluster"


def _standing(view: View, found: Mapping[str, str], against: str) -> Tuple[str, str]:
    """Phase and reason while nothing can be done."""
    reasons = {view.tries[address].reason for address in found if address in view.tries} | {against}
    told = next((reason for reason in _TELLING if reason in reasons), "")
    if told in _FOR_A_PERSON:
        return "blocked", told
    if not view.network:
        return "searching", "no-network"
    if not found:
        return "searching", "no-master"
    return "asking", told


PATIENCE = 30.0
"""Seconds between two requests to take a node back whose password is rejected. It need not be longer: the
master does so only where the board's number is the old one's and Kubernetes has lost the old node."""

RENEWED = 600.0
"""Seconds after which a node that does not become Ready gets a new token: the old one may have expired."""

_SLOW = 60.0
"""Seconds that K3s may take to come up before it is called failed."""


@dataclass(frozen=True)
class Seen:
    """A node that was started: as it is here, and as its master says."""

    running: bool
    """K3s's unit is active."""
    ready: Optional[bool]
    """None: no master has answered."""
    reason: str = ""
    """Why none has."""
    rejected: bool = False
    """K3s logs that its password is not the one known of this name."""
    seconds: float = 0.0
    """For which it has not been Ready."""
    starting: bool = False
    """K3s's unit is not active yet, and has not failed either."""


_TELLING_WHEN_JOINED = frozenset({"other-cluster", "credential-refused", "untrusted-master"})
"""A master that answers, but is not believed or does not believe, is not lost."""


def watched(seen: Seen, joined: bool) -> Tuple[str, str]:
    """Phase and reason of a node that was started; ``joined``: it has been Ready once."""
    if seen.ready:
        return "joined", ""
    if seen.rejected:
        return "starting", "password-rejected"
    if not (seen.running or seen.starting) and seen.seconds > _SLOW:
        return "starting", "k3s-failed"
    if seen.ready is None and seen.running and joined:
        return "joined", seen.reason if seen.reason in _TELLING_WHEN_JOINED else "master-lost"
    return "starting", seen.reason
