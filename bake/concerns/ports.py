"""The cluster's ports, opened in the files of whichever firewalls the node has; without one, nothing.

Whether a firewall is on is its owner's business: its rules are right should it be turned on later.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bake import firewall
from bake.concerns import Note
from bake.facts import NodeFacts
from bake.firewall import Network, Port
from bake.spec import Datastore, NodeSpec, Role
from firstboot.contract import JOIN_PORT
from firstboot.edits import Edit, Write
from firstboot.errors import UserError
from firstboot.snapshot import Probe

API = Port("tcp", 6443)
KUBELET = Port("tcp", 10250)
JOIN = Port("tcp", JOIN_PORT)
MDNS = Port("udp", 5353)
WIREGUARD = Port("udp", 51820, 51821)  # IPv4 and IPv6
FLANNEL = Port("udp", 8472)
"""VXLAN. The paper of 2021 that this tool grew from prints 8470, which is a misprint."""
ETCD = Port("tcp", 2379, 2380)

_UFW = {4: "/etc/ufw/user.rules", 6: "/etc/ufw/user6.rules"}
_UFW_SWITCH = "/etc/ufw/ufw.conf"
_FIREWALLD = "/etc/firewalld/firewalld.conf"
_ZONES = "/etc/firewalld/zones"
_STOCK_ZONES = "/usr/lib/firewalld/zones"
_NFTABLES = "/etc/nftables.conf"
_NFTABLES_WANTED = (
    "/etc/systemd/system/sysinit.target.wants/nftables.service",
    "/etc/systemd/system/multi-user.target.wants/nftables.service",
)
_PERSISTENT = {4: "/etc/iptables/rules.v4", 6: "/etc/iptables/rules.v6"}

PROBES = (
    *(Probe(path) for path in (*_UFW.values(), _UFW_SWITCH)),
    Probe(_FIREWALLD),
    Probe(f"{_ZONES}/*.xml"),
    Probe(f"{_STOCK_ZONES}/*.xml"),
    Probe(_NFTABLES),
    *(Probe(path) for path in _NFTABLES_WANTED),
    *(Probe(path) for path in _PERSISTENT.values()),
)


def needed(spec: NodeSpec) -> tuple[Port, ...]:
    """The ports that other nodes must reach on this one."""
    backend = str(spec.config.get("flannel-backend", "vxlan"))
    flannel = {"vxlan": (FLANNEL,), "wireguard-native": (WIREGUARD,)}.get(backend, ())
    mdns = (MDNS,) if spec.first_boot else ()
    if spec.role is Role.WORKER:
        return (KUBELET, *flannel, *mdns)
    # Without a datastore elsewhere a master joins others through etcd only, which it takes from them
    # without being told to.
    several = spec.datastore is Datastore.ETCD or spec.server is not None or spec.join
    etcd = (ETCD,) if several and spec.external is None else ()
    join = (JOIN,) if spec.first_boot else ()
    return (_api(spec), KUBELET, *flannel, *etcd, *join, *mdns)


def _api(spec: NodeSpec) -> Port:
    given = str(spec.config.get("https-listen-port", API.first))
    if not re.fullmatch(r"[0-9]{1,5}", given) or not 0 < int(given) < 1 << 16:
        raise UserError(f"{given[:80]!r} cannot be the https-listen-port", f"like {API.first}")
    return Port("tcp", int(given))


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    network = None if spec.network is None else ipaddress.ip_network(spec.network)
    there = [open_ports for is_there, open_ports in _FIREWALLS if is_there(facts)]
    for open_ports in there:
        yield from open_ports(facts, needed(spec), network)
    if not there:
        yield Note("no firewall: nothing to open")


def _ufw(facts: NodeFacts, ports: Sequence[Port], network: Network | None) -> Iterator[Edit | Note]:
    for version, path in _UFW.items():
        change = partial(firewall.with_ufw, ports=ports, network=network, version=version)
        yield from _edited(facts, path, change)
    if not re.search(r"^ENABLED=[\"']?yes", facts.text(_UFW_SWITCH) or "", re.MULTILINE | re.IGNORECASE):
        yield Note("ufw is off: the ports are open in its rules should it be turned on")


def _firewalld(facts: NodeFacts, ports: Sequence[Port], network: Network | None) -> Iterator[Edit | Note]:
    named = re.search(r"^DefaultZone=([\w-]+)\s*$", facts.text(_FIREWALLD) or "", re.MULTILINE)
    zone = named[1] if named else "public"
    path = f"{_ZONES}/{zone}.xml"
    stock = path if facts.exists(path) else f"{_STOCK_ZONES}/{zone}.xml"
    change = partial(firewall.with_firewalld, ports=ports, network=network)
    yield from _edited(facts, path, change, source=stock)


def _nftables(facts: NodeFacts, ports: Sequence[Port], network: Network | None) -> Iterator[Edit | Note]:
    opened = firewall.with_nftables(facts.text(_NFTABLES) or "", ports, network)
    if facts.exists(_NFTABLES):
        yield from _edited(facts, _NFTABLES, lambda _: opened)
    if firewall.MARK not in opened:
        yield Note(f"{_NFTABLES} filters no input in a table of its own: nothing to open in it")


def _persistent(facts: NodeFacts, ports: Sequence[Port], network: Network | None) -> Iterator[Edit | Note]:
    for version, path in _PERSISTENT.items():
        if facts.exists(path):
            change = partial(firewall.with_iptables, ports=ports, network=network, version=version)
            yield from _edited(facts, path, change)
        else:
            yield Note(f"there is no {path}, so nothing is filtered: nothing to open")


_Open = Callable[[NodeFacts, Sequence[Port], Network | None], Iterator[Edit | Note]]
_FIREWALLS: tuple[tuple[Callable[[NodeFacts], bool], _Open], ...] = (
    (lambda facts: facts.has("ufw"), _ufw),
    (lambda facts: facts.has("firewalld"), _firewalld),
    (lambda facts: facts.has("nftables") and any(map(facts.exists, _NFTABLES_WANTED)), _nftables),
    (lambda facts: facts.has("iptables-persistent") or facts.has("netfilter-persistent"), _persistent),
)


def _edited(
    facts: NodeFacts, path: str, change: Callable[[str], str], source: str | None = None
) -> Iterator[Write]:
    """The file as changed, where that makes a difference."""
    source = source or path
    text = facts.text(source)
    if text is None:
        raise UserError(f"the image has no {source}", "Its firewall's package is damaged: use another base.")
    try:
        changed = change(text)
    except ValueError as error:
        raise UserError(f"{source} is garbled: {error}", "Mend it in the base, or use another.") from error
    if changed != text:
        yield facts.rewritten(path, changed, like=source)
