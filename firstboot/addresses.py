"""A static address of a node, wherever it is given: in cluster.toml, at bake, or when its card is flashed.

Runs on the node too: Python 3.7, standard library only.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Tuple

from firstboot.errors import UserError


@dataclass(frozen=True)
class StaticAddress:
    """IPv4. UserError from its constructor for an address, gateway, server or interface that cannot be.

    What passes is text without spaces and line ends: it becomes part of configuration files.
    """

    address: str
    """With its prefix: ``10.0.0.2/24``."""
    gateway: str
    dns: Tuple[str, ...] = ()
    interface: str = "eth0"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9.]+/[0-9]+", self.address):
            raise UserError(
                f"{self.address[:80]!r} is not an IPv4 address with its prefix", "like 10.0.0.2/24"
            )
        try:
            own, gateway = ipaddress.IPv4Interface(self.address), ipaddress.IPv4Address(self.gateway)
            network = own.network
            scoped = [server for server in self.dns if ipaddress.ip_address(server) and "%" in server]
        except ValueError as error:
            raise UserError(
                f"a static address cannot be: {error}", "like 10.0.0.2/24 and 10.0.0.1"
            ) from error
        if gateway not in network:
            raise UserError(f"the gateway {self.gateway} is not in {network}", "It is the router's address.")
        ends = (network.network_address, network.broadcast_address) if network.prefixlen < 31 else ()
        if own.ip in ends or own.ip.is_loopback or own.ip.is_multicast:
            raise UserError(f"{own.ip} is no host's address in {network}", "like 10.0.0.2/24")
        if gateway == own.ip or gateway in ends:
            raise UserError(f"the gateway cannot be {gateway}", "It is the router's address.")
        if scoped:
            raise UserError("a name server's address has no interface in it", "like 10.0.0.1 or 2001:db8::1")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", self.interface):  # IFNAMSIZ is 16, NUL included
            raise UserError(f"{self.interface[:80]!r} is not an interface", "like eth0 or wlan0")


def is_wireless(interface: str) -> bool:
    return interface.startswith("wl")  # systemd.net-naming-scheme(7), and wlan0 before it
