"""Announce a node by mDNS, and hear others: hints, which prove nothing. zeroconf's and ifaddr's only door.

Anybody in the network can send us what breaks or fills zeroconf, so that it only ever runs in child processes
of little memory. Runs on the node too: Python 3.7; zeroconf 0.38.7 there, the newest elsewhere.
"""

import ipaddress
import json
import os
import random
import re
import select
import socket
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from firstboot.confined import MEMORY, Child, data_bytes
from firstboot.contract import JOIN_PORT, SERVICE, Announcement

MOST, MOST_BYTES = 256, 64 << 10
"""Announcements, and bytes of them, that one browse hears; what comes later is for the next."""

_LOOK = 0.2
"""Seconds."""

_MOST_TXT = 1300
_MOST_UNTOLD = 16
_VIRTUAL = re.compile(
    r"(lo$|cni|flannel|cali|docker|podman|veth|br-|virbr|lxc|lxdbr|kube|tun|wg|tailscale|zt)"
)
_QUERY, _IN, _PTR, _TXT = 0, 1, 12, 16  # of DNS

Enough = Callable[[List[Announcement]], bool]


def ready() -> None:
    """Import zeroconf here once, so that children need not: it takes a board a second."""
    _zeroconf()


def _zeroconf() -> Any:
    import zeroconf  # here, because what answers joins imports this module's neighbours and must be quick

    return zeroconf


def lan_addresses() -> List[str]:
    """Our IPv4 addresses in local networks: none of containers, virtual machines or VPNs."""
    return [str(interface.ip) for interface in _lan()]


def lan_networks() -> List[ipaddress.IPv4Network]:
    return [interface.network for interface in _lan()]


def _lan() -> List[ipaddress.IPv4Interface]:
    import ifaddr

    found = [
        ipaddress.IPv4Interface(f"{address.ip}/{address.network_prefix}")
        for adapter in ifaddr.get_adapters()
        if not _VIRTUAL.match(adapter.name)
        for address in adapter.ips
        if address.is_IPv4
    ]
    return lan_of(found)


def lan_of(found: Sequence[ipaddress.IPv4Interface]) -> List[ipaddress.IPv4Interface]:
    """Self-assigned addresses (169.254) only where there are no others."""
    given = [one for one in found if not one.ip.is_link_local and not one.ip.is_loopback]
    return given or [one for one in found if not one.ip.is_loopback]


def browse(
    seconds: float, addresses: Optional[List[str]] = None, enough: Optional[Enough] = None
) -> List[Announcement]:
    """Who announces itself now, in our networks, as heard within ``seconds``, or until ``enough`` says so.

    At once and empty where we have no address. A child that dies of what it hears is followed by another.
    """
    ours = [one for one in _lan() if addresses is None or str(one.ip) in addresses]
    if not ours:
        return []
    ready()
    heard = _Heard([one.network for one in ours], enough)
    end = time.monotonic() + seconds
    while not heard.done and time.monotonic() < end:
        child = Child(lambda pipe: _listen(pipe, ours), speaks=True, seconds=seconds + 1)
        try:
            _gather(child.pipe, heard, end)
        finally:
            child.end()
        if not heard.done:
            time.sleep(max(0.0, min(0.5, end - time.monotonic())))
    return heard.announcements()


class _Heard:
    """What children say, line by line, of which nothing is taken on trust."""

    def __init__(self, networks: Sequence[ipaddress.IPv4Network], enough: Optional[Enough]) -> None:
        self.done = False
        self._networks = networks
        self._enough = enough
        self._found: Dict[Tuple[str, ...], Announcement] = {}
        self._bytes = 0

    def announcements(self) -> List[Announcement]:
        return list(self._found.values())

    def line(self, line: bytes) -> None:
        self._bytes += len(line)
        found = _announcement(line)
        if found is not None and _within(found.addr, self._networks):
            self._found[(found.cluster, found.name, found.serial, found.addr)] = found
            self.look()
        self.done = self.done or len(self._found) >= MOST or self._bytes >= MOST_BYTES

    def look(self) -> None:
        """Whether it is enough may hang on the time, too: a master may be asked again only after a while."""
        if self._found and self._enough is not None:
            self.done = self.done or self._enough(self.announcements())


def _announcement(line: bytes) -> Optional[Announcement]:
    try:
        txt = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    good = isinstance(txt, dict) and all(isinstance(value, str) for value in txt.values())
    return Announcement.from_txt(txt) if good else None


def _within(address: str, networks: Sequence[ipaddress.IPv4Network]) -> bool:
    return bool(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _gather(pipe: int, heard: _Heard, end: float) -> None:
    """Until the child ends, time is up, or enough was heard."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    rest = b""
    while not heard.done and time.monotonic() < end:
        if not poll.poll(max(0.0, min(_LOOK, end - time.monotonic())) * 1000):
            heard.look()
            continue
        piece = os.read(pipe, 4096)
        if not piece or len(rest) > MOST_BYTES:
            return
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not heard.done:
                heard.line(line)


def txt_of(data: bytes) -> Dict[str, str]:
    """A TXT record's keys and values; of a key that comes twice, the first. Empty for what is garbled."""
    found: Dict[str, str] = {}
    while data and len(data) <= _MOST_TXT:
        size, data = data[0], data[1:]
        if size > len(data):
            return {}
        key, _, value = data[:size].partition(b"=")
        try:
            found.setdefault(key.decode("ascii").lower(), value.decode("utf-8"))
        except UnicodeDecodeError:
            return {}
        data = data[size:]
    return found if not data else {}


def _listen(pipe: int, ours: Sequence[ipaddress.IPv4Interface]) -> None:
    """In a child: a line of JSON to the pipe for each announcement, for ever."""
    zeroconf = _zeroconf()
    networks = [one.network for one in ours]
    said: Set[Announcement] = set()
    untold: Dict[str, None] = {}

    def take(listener: Any, instance: Any, now: float, updates: List[Any]) -> None:
        for record in (update.new for update in updates):
            if record.type == _PTR and record.name.lower() == SERVICE and len(untold) < _MOST_UNTOLD:
                untold.setdefault(record.alias)
            elif record.type == _TXT and record.name.lower().endswith(SERVICE) and record.ttl > 0:
                untold.pop(record.name, None)
                found = Announcement.from_txt(txt_of(record.text))
                if found and _within(found.addr, networks) and found not in said and len(said) < MOST:
                    said.add(found)
                    os.write(pipe, json.dumps(found.to_txt()).encode() + b"\n")

    listener = type("Listener", (zeroconf.RecordUpdateListener,), {"async_update_records": take})
    instance = zeroconf.Zeroconf(interfaces=[str(one.ip) for one in ours])
    instance.add_listener(listener(), None)
    time.sleep(random.uniform(0.02, 0.12))  # noqa: S311  # as mDNS asks, where a hundred boards start at once
    unicast = False
    while True:
        query = zeroconf.DNSOutgoing(_QUERY)
        for kind, name in [(_PTR, SERVICE), *((_TXT, name) for name in list(untold))]:
            question = zeroconf.DNSQuestion(name, kind, _IN)
            # In turn: answers to all get lost in Wi-Fi, answers to one in another program on our port.
            question.unicast = unicast
            query.add_question(question)
        instance.send(query)
        unicast = not unicast
        time.sleep(0.5)


class Announcer:
    """Says what a node is, where avahi does not run: in a child, for as long as this process lives."""

    def __init__(self) -> None:
        self._announcement: Optional[Announcement] = None
        self._addresses: List[str] = []
        self._child: Optional[Child] = None

    def say(self, announcement: Announcement) -> None:
        """From now on; what was said before is replaced."""
        if announcement != self._announcement:
            self._end(0)  # without a goodbye: what comes next replaces it everywhere
            self._announcement = announcement
        self.check()

    def check(self) -> None:
        """To be called now and then: starts a child where it died, or where our addresses have changed."""
        announcement, addresses = self._announcement, lan_addresses()
        if self._child and (addresses != self._addresses or self._child.ended()):
            self._end(0)
        if self._child is None and announcement is not None and addresses:
            ready()
            self._addresses = addresses
            said = announcement
            self._child = Child(lambda pipe: _announce(pipe, said, addresses), speaks=False)

    def stop(self) -> None:
        """With a goodbye, so that nobody goes on believing it."""
        self._announcement = None
        self._end(2)

    def _end(self, seconds: float) -> None:
        if self._child is not None:
            self._child.end(seconds)
        self._child = None


def _announce(pipe: int, announcement: Announcement, addresses: Sequence[str]) -> None:
    """In a child: until the parent closes the pipe or dies, or memory is nearly used up."""
    said = [announcement.addr] if announcement.addr in addresses else addresses
    info = _zeroconf().ServiceInfo(
        SERVICE,
        f"{announcement.name}.{SERVICE}",
        port=JOIN_PORT,
        properties=announcement.to_txt(),
        server=f"{announcement.name}.local.",
        addresses=[socket.inet_aton(address) for address in said],
    )
    instance = _zeroconf().Zeroconf(interfaces=list(addresses))
    instance.register_service(info, allow_name_change=True)  # a copied card is to be seen, too
    most = data_bytes() + MEMORY * 3 // 4
    while not select.select([pipe], [], [], 2.0)[0]:
        if data_bytes() > most:
            return
    instance.close()
