"""Is a running machine fit to become a node, and if not, why? Pure, over what firstboot.machine tells."""

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bake.spec import Datastore, ExternalDatastore, Role
from firstboot.contract import REASONS, is_label

MB = 1 << 20
_MEMORY = {Role.MASTER: 512 * MB, Role.WORKER: 256 * MB}
"""The least that K3s asks for; what the firmware keeps for itself is allowed for."""
_KEPT = 96 * MB
_ROOM = {Role.MASTER: 1024 * MB, Role.WORKER: 512 * MB}
_SKEW = 120.0
"""Seconds between a node's clock and this one's: more, and certificates of one are not valid on another."""
API, VXLAN = 6443, 8472
"""Ports of K3s: workers speak to masters at the first, by TCP; nodes to each other at the second, by UDP."""

_STOCK = frozenset({"raspberrypi", "localhost", "debian", "ubuntu"})
_VIRTUAL = re.compile(r"cni|flannel|docker|veth|br-|virbr|wg|tun|tap|kube")


@dataclass(frozen=True)
class Problem:
    code: str
    message: str
    remedy: str
    stops: bool = True
    """False: worth knowing, no more."""


def problems(
    machine: Mapping[str, Any], role: Role, now: float, *, take_over: bool = False, firmware: bool = True
) -> list[Problem]:
    """All that stands in the way of one machine; those that stop it first.

    ``now``: seconds since 1970; ``firmware``: as NodeFacts has it.
    """
    found = [
        *_board(machine, role, firmware),
        *_room(machine, role),
        *_kubernetes(machine, role, take_over),
        *_clock(machine, now),
        *_addresses(machine),
    ]
    return sorted(found, key=lambda one: not one.stops)


def clashes(names: Mapping[str, str], joined: Collection[str]) -> dict[str, Problem]:
    """By node, where two are to have one name. ``names``: what each is to be called, or is.

    The one of them that has ``joined`` under it keeps it.
    """
    counted = Counter(names.values())
    having = Counter(names[node] for node in joined)
    remedy = "Name each in cluster.toml, or one there: sudo hostnamectl set-hostname NAME"
    return {
        node: Problem("name-clash", f"another node is called {name}, too", remedy)
        for node, name in names.items()
        if counted[name] > 1 and not (node in joined and having[name] == 1)
    }


def taken(name: str, serial: str, nodes: Collection[str], serials: Mapping[str, str]) -> Problem | None:
    """Where the cluster has such a node. ``serials``: by name, of the boards that its master has let in."""
    if serials.get(name, "" if name in nodes else serial) == serial:
        return None
    remedy = f"Name this one in cluster.toml. If it takes that one's place: k3s-bake release {name}"
    return Problem("name-taken", f"the cluster has another board called {name}", remedy)


def unreachable(
    answers: Mapping[str, Mapping[str, Any]], masters: Collection[str]
) -> dict[str, list[Problem]]:
    """By address, what does not get through: of what each node's firstboot.reach said.

    None of it stops an adoption, which opens the nodes' own firewalls.
    """
    found: dict[str, list[Problem]] = {address: [] for address in answers}
    remedy = "adopt opens the nodes' own firewalls; one between them, or a Wi-Fi's isolation, is yours."
    for address, answer in answers.items():
        for other, ports in answer["reached"].items():
            why = ports.get(str(API))
            if other in masters and other in answers and why:
                message = f"it does not reach {other} at TCP {API}: {why}"
                found[address].append(Problem("unreachable", message, remedy, stops=False))
        if VXLAN in answer["taken"]:
            continue
        for other in answers:
            if other != address and other not in answer["heard"]:
                message = f"nothing of {other} arrives at UDP {VXLAN}"
                found[address].append(Problem("unreachable", message, remedy, stops=False))
    return found


def switched(
    before: Datastore | ExternalDatastore,
    wanted: Datastore | ExternalDatastore,
    machine: Mapping[str, Any],
    *,
    take_over: bool,
) -> list[Problem]:
    """What another datastore would cost a master that has been one. K3s takes nothing over to a database, nor
    from one; from sqlite to its own etcd it does."""
    if isinstance(wanted, ExternalDatastore) and machine["etcd"]:
        message = "K3s keeps to the etcd of its own that it has on its disk, whatever datastore it is given"
        return [Problem("datastore", message, "k3s-bake undo takes it away, with all that it holds.")]
    states = [one.state if isinstance(one, ExternalDatastore) else None for one in (before, wanted)]
    has_joined = bool(machine["ours"] and machine["ours"]["joined"])
    if states[0] == states[1] or not has_joined or take_over:
        return []
    message = f"the cluster's state is in {_called(before)}, and does not move to {_called(wanted)}"
    return [Problem("datastore", message, "--take-over begins with what is there: what runs now is lost.")]


def _called(datastore: Datastore | ExternalDatastore) -> str:
    return datastore.url if isinstance(datastore, ExternalDatastore) else f"K3s's own {datastore}"


def not_reached(failed: Mapping[str, str], places: int) -> list[Problem]:
    """``failed``: why, by each place of a datastore that a master does not reach, of so many."""
    remedy = "Does it run, and listen there for other machines? Does a firewall let this one through?"
    return [
        Problem(
            "datastore", f"it does not reach its datastore at {place}: {why}", remedy, len(failed) == places
        )
        for place, why in failed.items()
    ]


def name_for(hostname: str) -> str | None:
    """A machine's own name, where it can be a node's; None for one that every card has."""
    name = hostname.lower()
    return name if is_label(name) and name not in _STOCK else None


def lan_address(machine: Mapping[str, Any], host: str) -> str | None:
    """Where other nodes reach it: what the person named, if that is an address of its own, else its first."""
    own = [one for name, listed in machine["addresses"].items() if not _VIRTUAL.match(name) for one in listed]
    plain = [str(ipaddress.ip_interface(one).ip) for one in own]
    return host if host in plain else next(iter(plain), None)


def _board(machine: Mapping[str, Any], role: Role, firmware: bool) -> Iterator[Problem]:
    if machine["reason"] == "armv6":
        yield Problem("armv6", REASONS["armv6"], "K3s has no program for it.")
    elif machine["reason"] and not firmware:
        remedy = (
            "Put cgroup_enable=memory on the kernel's command line: GRUB_CMDLINE_LINUX in /etc/default/grub "
            "(then update-grub), or cmdline.txt of a Pi that boots from the network. Then reboot."
        )
        yield Problem(machine["reason"], "its memory cgroup is off", remedy)
    elif machine["reason"]:
        # cmdline.txt is mended by the adoption itself, and a boot turns it on.
        yield Problem(machine["reason"], "its memory cgroup is off", "A reboot turns it on.", stops=False)
    least = _MEMORY[role] - _KEPT
    if machine["memory"] < least:
        have = f"{machine['memory'] // MB} MB of memory"
        yield Problem("memory", have, f"A {role} needs {_MEMORY[role] // MB} MB at the very least.")


def _room(machine: Mapping[str, Any], role: Role) -> Iterator[Problem]:
    yield from _writing(machine["read_only"], machine["volatile"])
    for path in ("/var/lib", "/usr/local"):
        free = machine["free"].get(path, 0)
        if free < _ROOM[role] // (1 if path == "/var/lib" else 4):
            yield Problem("room", f"{free // MB} MB are free in {path}", "Make room, or use a larger card.")
            return


def _writing(read_only: Sequence[str], volatile: bool) -> Iterator[Problem]:
    if volatile:
        yield Problem(
            "volatile",
            "its root is an overlay in memory, which a restart undoes",
            "sudo raspi-config turns it off (Overlay File System); then restart it.",
        )
    if "/" in read_only:
        yield Problem("read-only", "its root is mounted read-only", "Is the card damaged? dmesg says why.")
    elif read_only:
        places = " and ".join(read_only)
        yield Problem(
            "read-only",
            f"{places} {'is' if len(read_only) == 1 else 'are'} mounted read-only",
            f"sudo mount -o remount,rw {read_only[0]}; an 'ro' in /etc/fstab makes it so at each boot.",
        )


def _kubernetes(machine: Mapping[str, Any], role: Role, take_over: bool) -> Iterator[Problem]:
    if machine["others"]:
        names = " and ".join(machine["others"])
        yield Problem("other-kubernetes", f"{names} is installed there", "Remove it: two disturb each other.")
    if machine.get("resetting"):
        yield Problem("reset", "a reset of it was cut off in the middle", "k3s-bake reset finishes it.")
        return
    if machine["ours"] or take_over:
        return
    if machine["k3s"]:
        yield Problem(
            "other-k3s",
            "K3s of somebody else is installed there",
            "k3s-uninstall.sh removes it, --take-over uses the machine all the same.",
        )
        return
    needed = {6443, 6422} if role is Role.MASTER else {10250}
    for port in sorted(needed & set(machine["taken"])):
        yield Problem("port", f"port {port} is taken", f"sudo ss -ltnp 'sport = :{port}' says by whom.")


def _addresses(machine: Mapping[str, Any]) -> Iterator[Problem]:
    """Two DHCP clients, dhcpcd beside NetworkManager say, are given two addresses of one network."""
    for name, listed in machine["addresses"].items():
        found = [ipaddress.ip_interface(one) for one in listed if not _VIRTUAL.match(name)]
        counted = Counter(one.network for one in found)
        for network in [each for each, count in counted.items() if count > 1]:
            both = " and ".join(str(one.ip) for one in found if one.network == network)
            yield Problem(
                "two-addresses",
                f"{name} has {both}: do two DHCP clients ask?",
                "K3s takes now one, now the other: leave one of dhcpcd, NetworkManager, ifupdown on.",
                stops=False,
            )


def _clock(machine: Mapping[str, Any], now: float) -> Iterator[Problem]:
    wrong = machine["time"] - now
    if abs(wrong) > _SKEW:
        when = "ahead of" if wrong > 0 else "behind"
        words = f"its clock is {_span(abs(wrong))} {when} this machine's"
        remedy = "adopt sets it by this one, unless NTP keeps it: timedatectl shows that."
        yield Problem("clock", words, remedy, stops=False)


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
