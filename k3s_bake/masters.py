"""Ask a cluster's masters, as its operator: find one, believe only its certificate."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bake import cluster_store
from bake.trust import Cluster
from firstboot import mdns, token
from firstboot.contract import JOIN_PORT, REASONS, Announcement, is_address, is_label
from firstboot.errors import UserError, WorkFailed
from firstboot.token import NotAnswered

_LISTEN = 4.0
"""Seconds for which masters are listened for."""

_ANSWER = 60.0
"""Seconds: to forget a node takes a master some."""

Say = Callable[[str], None]


def ask(cluster: Cluster, verb: str, request: Mapping[str, Any], master: str | None) -> dict[str, Any]:
    """The answer of the first master that gives one: at ``master``, else of those heard, else the last known.

    Revocations that wait are delivered to it, too. WorkFailed with each one's reason where none answers.
    """
    trust = cluster.operator()
    failures: dict[str, str] = {}
    for address in _some(cluster, master):
        try:
            answer = _answer(address, verb, request, trust)
        except NotAnswered as failed:
            failures[address] = failed.reason
            continue
        if _last(cluster) != [address]:
            cluster_store.write(cluster.folder / cluster_store.LAST_MASTER, f"{address}\n")
        _deliver_waiting(cluster, address, trust)
        return answer
    raise _nobody(cluster, failures)


def deliver(cluster: Cluster, master: str | None) -> list[str]:
    """Addresses of the masters that took what is revoked: all that are heard, since each keeps its own list.

    WorkFailed where none does: it waits for the next time.
    """
    trust = cluster.operator()
    waiting = cluster.undelivered()
    took, failures = [], {}
    for address in _all(cluster, master):
        try:
            _hand_over(cluster, address, trust)
        except NotAnswered as failed:
            failures[address] = failed.reason
        else:
            took.append(address)
    if not took:
        raise _nobody(cluster, failures)
    cluster.delivered(waiting)
    for address, reason in failures.items():
        cluster.say(f"{address} did not take it: {REASONS[reason]}")
    return took


def _some(cluster: Cluster, master: str | None) -> Iterator[str]:
    """Addresses to try, those at hand first; listening on only where they do not do."""
    if master is not None:
        yield _resolved(master)
        return
    tried: list[str] = []

    def fresh(addresses: Sequence[str]) -> Iterator[str]:
        for address in addresses:
            if address not in tried:
                tried.append(address)
                yield address

    yield from fresh(_heard(cluster, lambda heard: bool(_of(cluster, heard))))
    yield from fresh(_last(cluster))
    yield from fresh(_heard(cluster, None))


def _all(cluster: Cluster, master: str | None) -> list[str]:
    if master is not None:
        return [_resolved(master)]
    return list(dict.fromkeys([*_heard(cluster, None), *_last(cluster)]))


def _heard(cluster: Cluster, enough: mdns.Enough | None) -> list[str]:
    return _of(cluster, mdns.browse(_LISTEN, enough=enough))


def _of(cluster: Cluster, heard: Sequence[Announcement]) -> list[str]:
    return [one.addr for one in heard if (one.cluster, one.role) == (cluster.name, "master") and one.addr]


def _last(cluster: Cluster) -> list[str]:
    address = cluster_store.read(cluster.folder / cluster_store.LAST_MASTER).strip()
    return [address] if is_address(address) else []


def _resolved(master: str) -> str:
    if is_address(master):
        return master
    try:
        return str(socket.getaddrinfo(master, JOIN_PORT, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        raise UserError(f"no address is known for '{master}'", "--master takes an address, too.") from error


def _answer(address: str, verb: str, request: Mapping[str, Any], trust: token.Trust) -> dict[str, Any]:
    answer = token.ask(address, verb, dict(request), trust, _ANSWER)
    if "error" in answer:
        reason = answer["error"]
        raise NotAnswered(reason if isinstance(reason, str) and reason in REASONS else "bad-answer")
    return answer


def _hand_over(cluster: Cluster, address: str, trust: token.Trust) -> None:
    nodes = [name for name in cluster.undelivered() if is_label(name)]
    request = {"lines": [one.line for one in cluster.revoked()], "names": nodes}
    if _answer(address, "revoke", request, trust).get("done") is not True:
        raise NotAnswered("bad-answer")


def _deliver_waiting(cluster: Cluster, address: str, trust: token.Trust) -> None:
    waiting = cluster.undelivered()
    if not waiting:
        return
    try:
        _hand_over(cluster, address, trust)
    except NotAnswered as failed:
        cluster.say(f"{address} did not take what is revoked: {REASONS[failed.reason]}")
    else:
        cluster.delivered(waiting)
        cluster.say(f"delivered to {address} that it is revoked: {', '.join(waiting)}")


def _nobody(cluster: Cluster, failures: Mapping[str, str]) -> WorkFailed:
    if not failures:
        return WorkFailed(
            f"no master of cluster '{cluster.name}' is heard in this network", "--master ADDRESS names one."
        )
    told = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    hints = dict.fromkeys(REASONS[reason] for reason in failures.values())
    return WorkFailed(f"no master of cluster '{cluster.name}' answers ({told})", " ".join(hints))
