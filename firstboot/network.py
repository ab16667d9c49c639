"""A static address for each program that sets addresses: its text, at bake and on the node alike; and what
the node changes for one that its card was given when it was flashed.

All pure. Not beside StaticAddress: uuid takes a Pi too long for what only reads a credential.
Runs on the node too: Python 3.7, standard library only.
"""

import ipaddress
import re
import uuid
from typing import List, Optional, Tuple

from firstboot.addresses import StaticAddress, is_wireless
from firstboot.edits import Edit, Remove, Write, rewritten
from firstboot.snapshot import Probe, Snapshot

DHCPCD = "/etc/dhcpcd.conf"
PROFILES = "/etc/NetworkManager/system-connections/k3s-bake-*.nmconnection"
NETWORKS = "/etc/systemd/network/10-k3s-bake-*.network"

PROBES = (Probe(DHCPCD), Probe(PROFILES), Probe(NETWORKS))
"""What ``edits`` has to know."""

PODS = ("veth*", "cni*", "flannel*")
"""Interfaces of pods and of K3s's network: not for a DHCP client, which may come down over hundreds."""

_BEGIN, _END = "# k3s-bake: begin", "# k3s-bake: end"
_BLOCK = re.compile(rf"^{_BEGIN}\n(?:(?!{_BEGIN}$).*\n)*?{_END}(?:\n|\Z)", re.MULTILINE)

_DHCPCD_OWN = re.compile(r"^[ \t]*(interface|ssid|profile)\b", re.MULTILINE)

_UUIDS = uuid.UUID("60fa15b2-7da4-4b31-89cc-5ea8a8c3a9b4")
"""The name space of our profiles: one name, one UUID, so that a second bake changes nothing."""


# the texts


def with_blocks(conf: str, address: Optional[StaticAddress]) -> str:
    """dhcpcd.conf with our blocks: pods' interfaces denied, and the address, if there is one, at the end.

    All below an ``interface`` (``ssid``, ``profile``) line is for it alone, so what is for all goes before.
    """
    text = _BLOCK.sub("", conf)
    text += "" if not text or text.endswith("\n") else "\n"
    own = _DHCPCD_OWN.search(text)
    at = own.start() if own else len(text)
    text = text[:at] + _block(f"denyinterfaces {' '.join(PODS)}") + text[at:]
    if address is None:
        return text
    return text + _block(
        f"interface {address.interface}",
        f"static ip_address={address.address}",
        f"static routers={address.gateway}",
        *([f"static domain_name_servers={' '.join(address.dns)}"] if address.dns else []),
    )


def _block(*lines: str) -> str:
    return "".join(f"{line}\n" for line in (_BEGIN, *lines, _END))


def wired_profile(address: StaticAddress) -> str:
    """A keyfile of NetworkManager that wins over what the image brought for the same interface."""
    return (
        f"{profile_head(address.interface)}type=ethernet\ninterface-name={address.interface}\n"
        f"autoconnect-priority=10\n\n{profile_addresses(address)}"
    )


def profile_head(name: str) -> str:
    return f"[connection]\nid={_profile_id(name)}\nuuid={uuid.uuid5(_UUIDS, name)}\n"


def _profile_id(name: str) -> str:
    return f"k3s-bake-{name}"


def profile_addresses(address: Optional[StaticAddress]) -> str:
    """The end of a profile."""
    if address is None:
        return "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    dns = {4: "", 6: ""}
    for server in address.dns:
        dns[ipaddress.ip_address(server).version] += f"{server};"
    lines = {version: f"dns={servers}\n" if servers else "" for version, servers in dns.items()}
    return (
        f"[ipv4]\nmethod=manual\naddress1={address.address},{address.gateway}\n{lines[4]}\n"
        f"[ipv6]\nmethod=auto\n{lines[6]}"
    )


def network_unit(interface: str, address: Optional[StaticAddress]) -> str:
    """A .network file of systemd-networkd; without an address, for DHCP."""
    head = f"# Written by k3s-bake.\n[Match]\nName={interface}\n\n[Network]\n"
    if address is None:
        return f"{head}DHCP=yes\n"
    dns = "".join(f"DNS={server}\n" for server in address.dns)
    return f"{head}Address={address.address}\nGateway={address.gateway}\n{dns}"


# the card's own address, on the node


def refusal(manager: Optional[str], address: StaticAddress) -> str:
    """Why that address cannot be set; empty where it can. ``manager`` as NodeConfig has it."""
    if manager is None:
        return "its image does not say which program sets addresses: dhcpcd, NetworkManager, systemd-networkd"
    if manager == "NetworkManager" and is_wireless(address.interface):
        return f"NetworkManager keeps the address of {address.interface} with its Wi-Fi"
    return ""


def edits(manager: str, address: StaticAddress, found: Snapshot) -> List[Edit]:
    """In the place of an address that the image has, on whichever interface; its Wi-Fi stays.

    ``found`` answers PROBES.
    """
    if manager == "dhcpcd":
        text = with_blocks(found.text(DHCPCD) or "", address)
        return [rewritten(found, DHCPCD, text)]
    if manager == "NetworkManager":
        return _profiles(address, found)
    return _networks(address, found)


def _profiles(address: StaticAddress, found: Snapshot) -> List[Edit]:
    wired, wifi = (PROFILES.replace("*", name) for name in (address.interface, "wifi"))
    made: List[Edit] = [Write(wired, wired_profile(address).encode(), 0o600)]
    for path in found.paths(PROFILES):
        if path == wifi:
            before, end, _ = (found.text(path) or "").partition("\n[ipv4]\n")
            text = f"{before}\n{profile_addresses(None)}" if end else before
            made.append(Write(path, text.encode("utf-8", "surrogateescape"), 0o600, secret=True))
        elif path != wired:
            made.append(Remove(path))
    return made


def _networks(address: StaticAddress, found: Snapshot) -> List[Edit]:
    unit = NETWORKS.replace("*", address.interface)
    made: List[Edit] = [Write(unit, network_unit(address.interface, address).encode())]
    for path in found.paths(NETWORKS):
        interface = interface_of(path)
        if is_wireless(interface) and path != unit:
            made.append(Write(path, network_unit(interface, None).encode()))
        elif path != unit:
            made.append(Remove(path))
    return made


def interface_of(path: str) -> str:
    """Of one of NETWORKS."""
    before, _, after = NETWORKS.partition("*")
    return path[len(before) : -len(after)]


def commands(manager: str, address: StaticAddress) -> List[Tuple[str, ...]]:
    """That make the program take what ``edits`` has changed."""
    if manager == "dhcpcd":
        # Raspbian's dhcpcd.conf is persistent: the router's address stays when it ends, beside the new one.
        flush = ("ip", "-4", "address", "flush", "dev", address.interface, "scope", "global")
        return [("systemctl", "stop", "dhcpcd"), flush, ("systemctl", "start", "dhcpcd")]
    if manager == "NetworkManager":
        up = ("nmcli", "--wait", "30", "connection", "up", _profile_id(address.interface))
        return [("nmcli", "connection", "reload"), up]
    return [("systemctl", "restart", "systemd-networkd")]
