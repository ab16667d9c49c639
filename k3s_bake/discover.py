"""What answers in the local network: our nodes, which say so, and whatever has an SSH server.

To find the others every address is tried, once, at the port of SSH. Nobody logs in anywhere.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstboot.contract import Announcement
from firstboot.errors import UserError

MOST = 4096
"""Addresses that are tried: of a /20. Each takes a moment, and larger networks are no home's."""

_AT_ONCE = 256
_ARP = Path("/proc/net/arp")
_BANNER = re.compile(rb"SSH-[0-9.]+-([ -~]{1,80})")
_PI = frozenset({"b8:27:eb", "dc:a6:32", "e4:5f:01", "d8:3a:dd", "28:cd:c1", "2c:cf:67", "88:a2:9e"})
"""How the MAC addresses of Raspberry Pis begin: by IEEE's registry, of Raspberry Pi (Trading) Ltd and the
Raspberry Pi Foundation."""


@dataclass(frozen=True)
class Neighbour:
    address: str
    name: str = ""
    """As this machine's resolver knows it; by mDNS where it asks there (libnss-mdns)."""
    mac: str = ""
    ssh: str = ""
    """What its SSH server calls itself; empty where none answers."""
    node: Announcement | None = None
    """What it announces, if it is one of ours."""

    @property
    def is_pi(self) -> bool:
        return self.mac[:8].lower() in _PI


def addresses(networks: Iterable[ipaddress.IPv4Network], own: Sequence[str]) -> list[str]:
    """Each that a neighbour can have. UserError for networks that are too large to be tried."""
    every = list(dict.fromkeys(networks))
    if sum(network.num_addresses for network in every) > MOST:
        listed = ", ".join(map(str, every))
        raise UserError(
            f"{listed} has too many addresses to try", "--network names a part of it: 10.0.0.0/24."
        )
    hosts = (str(host) for network in every for host in network.hosts())
    return [host for host in dict.fromkeys(hosts) if host not in own]


def macs(arp: str) -> dict[str, str]:
    """By address: of /proc/net/arp, whose rows have address, type, flags and MAC first."""
    rows = (line.split() for line in arp.splitlines()[1:])
    return {row[0]: row[3] for row in rows if len(row) > 3 and row[3] != "00:00:00:00:00:00"}


def banner(line: bytes) -> str:
    """What an SSH server says of itself, RFC 4253, 4.2; empty for anything else."""
    found = _BANNER.match(line)
    return found[1].decode("ascii") if found else ""


async def scan(hosts: Sequence[str], seconds: float) -> dict[str, str]:
    """Those that answer as SSH servers, each with what it calls itself. ``seconds`` for each to answer."""
    gate = asyncio.Semaphore(_AT_ONCE)
    found: dict[str, str] = {}

    async def one(host: str) -> None:
        async with gate:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(host, 22, limit=1024), seconds
                )
                try:
                    line = await asyncio.wait_for(reader.readline(), seconds)
                finally:
                    writer.close()
                if said := banner(line):
                    found[host] = said

    await asyncio.gather(*map(one, hosts))
    return found


async def names(hosts: Iterable[str], seconds: float) -> dict[str, str]:
    """As this machine's resolver knows them, in so much time."""
    loop = asyncio.get_running_loop()
    found: dict[str, str] = {}

    async def one(host: str) -> None:
        with contextlib.suppress(OSError):
            flags = socket.NI_NAMEREQD
            found[host], _ = await loop.getnameinfo((host, 22), flags)

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*map(one, hosts)), seconds)
    return found


def neighbours(
    ssh: Mapping[str, str], named: Mapping[str, str], known: Mapping[str, str], heard: Sequence[Announcement]
) -> list[Neighbour]:
    """Ours first, then Raspberry Pis, then the others; each by its address. ``known``: MACs by address."""
    nodes = {node.addr: node for node in heard if node.addr}
    silent = {host for host, mac in known.items() if Neighbour(host, mac=mac).is_pi}
    every = [
        Neighbour(host, named.get(host, ""), known.get(host, ""), ssh.get(host, ""), nodes.get(host))
        for host in {*ssh, *nodes, *silent}
    ]
    return sorted(every, key=lambda one: (one.node is None, not one.is_pi, ipaddress.ip_address(one.address)))


def read_macs() -> dict[str, str]:
    """Of those that this machine has spoken with of late."""
    try:
        return macs(_ARP.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return {}
