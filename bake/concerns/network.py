"""Wi-Fi and a static address, for whichever program sets addresses on the node; pods' interfaces are not its.

An address that is not wanted any more goes, so that the node asks DHCP again. Wi-Fi is only ever set, never
taken away: it may be the one way to reach the node.
"""

import re
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec, StaticAddress, Wifi
from firstboot.addresses import is_wireless
from firstboot.edits import Edit, Link, Remove, Write
from firstboot.errors import UserError
from firstboot.network import (
    DHCPCD,
    NETWORKS,
    PODS,
    PROFILES,
    interface_of,
    network_unit,
    profile_addresses,
    profile_head,
    wired_profile,
    with_blocks,
)
from firstboot.snapshot import Probe

_SUPPLICANT = "/etc/wpa_supplicant/wpa_supplicant"
_RADIOS = "/var/lib/systemd/rfkill/*:wlan"
_NM_STATE = "/var/lib/NetworkManager/NetworkManager.state"
_NM_IGNORES = "/etc/NetworkManager/conf.d/90-k3s-bake.conf"
_COUNTRY = "/etc/modprobe.d/k3s-bake-wifi.conf"
_WANTS = "/etc/systemd/system/multi-user.target.wants"

PROBES = (
    Probe(DHCPCD),
    Probe(f"{_SUPPLICANT}.conf"),
    Probe(f"{_SUPPLICANT}-*.conf", "digest"),
    Probe(_RADIOS),
    Probe(PROFILES, "digest"),
    Probe(_NM_STATE),
    Probe(_NM_IGNORES),
    Probe(_COUNTRY),
    Probe(NETWORKS),
    Probe(f"{_WANTS}/wpa_supplicant@*.service"),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    manager = facts.network_manager
    if manager == "dhcpcd":
        yield from _dhcpcd(spec, facts)
    elif manager == "NetworkManager":
        yield from _network_manager(spec, facts)
    elif manager == "systemd-networkd":
        yield from _networkd(spec, facts)
    elif spec.wifi or spec.address:
        raise UserError(
            "the image has no program that sets Wi-Fi or addresses, as far as k3s-bake knows them",
            "It knows dhcpcd, NetworkManager and systemd-networkd: use such a base, or set neither.",
        )
    if spec.wifi:
        yield from _radio(facts)


def secrets(facts: NodeFacts) -> Iterator[str]:
    """The files that hold one now."""
    yield from facts.found.paths(PROFILES.replace("*", "wifi"))
    yield from facts.found.paths(f"{_SUPPLICANT}-*.conf")
    if re.search(r"^\s*(psk|password)=", facts.text(f"{_SUPPLICANT}.conf") or "", re.MULTILINE):
        yield f"{_SUPPLICANT}.conf"  # a stock one holds no network


def _dhcpcd(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    text = facts.text(DHCPCD) or ""
    changed = with_blocks(text, spec.address)
    if changed != text:
        yield facts.rewritten(DHCPCD, changed)
    if spec.wifi:
        yield _secret(f"{_SUPPLICANT}.conf", supplicant_conf(spec.wifi))


def supplicant_conf(wifi: Wifi) -> str:
    """wpa_supplicant.conf. Its quotes know no escapes, so a name that needs them goes in hexadecimal."""
    plain = re.fullmatch(r"[ !#-\[\]-~]+", wifi.ssid)
    ssid = f'"{wifi.ssid}"' if plain else wifi.ssid.encode("utf-8", "surrogateescape").hex()
    psk = wifi.psk if len(wifi.psk) == 64 else f'"{wifi.psk}"'  # 64 hexadecimal digits are the key itself
    return (
        "# Written by k3s-bake.\n"
        "ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev\n"
        "update_config=1\n"
        f"country={wifi.country}\n"
        "\n"
        f"network={{\n\tssid={ssid}\n\tpsk={psk}\n\tkey_mgmt=WPA-PSK\n}}\n"
    )


def _network_manager(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    ignored = ";".join(f"interface-name:{name}" for name in PODS)
    yield Write(_NM_IGNORES, f"# Written by k3s-bake.\n[keyfile]\nunmanaged-devices={ignored}\n".encode())
    wifi, address = spec.wifi, spec.address
    wireless = address is not None and is_wireless(address.interface)
    if address and wireless and not wifi:
        raise UserError(
            f"NetworkManager keeps the address of {address.interface} with its Wi-Fi, and none is given",
            "Give the Wi-Fi too: --wifi-ssid, --wifi-country.",
        )
    kept = {PROFILES.replace("*", "wifi")}
    if wifi:
        text = wifi_profile(wifi, address if wireless else None)
        yield _secret(PROFILES.replace("*", "wifi"), text)
        # NetworkManager sets no country; the kernel's module takes it, as it would from cmdline.txt.
        yield Write(_COUNTRY, f"options cfg80211 ieee80211_regdom={wifi.country}\n".encode())
        state = facts.text(_NM_STATE) or ""
        if "WirelessEnabled=false" in state:  # as Raspberry Pi OS is shipped from Bookworm on
            yield facts.rewritten(_NM_STATE, state.replace("WirelessEnabled=false", "WirelessEnabled=true"))
    if address and not wireless:
        path = PROFILES.replace("*", address.interface)
        yield Write(path, wired_profile(address).encode(), 0o600)
        kept.add(path)
    yield from (Remove(path) for path in facts.found.paths(PROFILES) if path not in kept)


def wifi_profile(wifi: Wifi, address: StaticAddress | None) -> str:
    """A keyfile of NetworkManager. A name that may need escapes is a list of bytes, as it takes it too."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", wifi.ssid)
    octets = wifi.ssid.encode("utf-8", "surrogateescape")
    ssid = wifi.ssid if plain else "".join(f"{octet};" for octet in octets)
    psk = wifi.psk.replace("\\", "\\\\").replace(" ", "\\s")
    interface = f"interface-name={address.interface}\n" if address else ""
    return (
        f"{profile_head('wifi')}type=wifi\n{interface}\n"
        f"[wifi]\nmode=infrastructure\nssid={ssid}\n\n"
        f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={psk}\n\n"
        f"{profile_addresses(address)}"
    )


def _networkd(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    wifi, address = spec.wifi, spec.address
    networks: dict[str, StaticAddress | None] = {}
    if wifi:
        interface = address.interface if address and is_wireless(address.interface) else "wlan0"
        networks[interface] = None
        yield _secret(f"{_SUPPLICANT}-{interface}.conf", supplicant_conf(wifi))
        unit = "/lib/systemd/system/wpa_supplicant@.service"
        yield Link(f"{_WANTS}/wpa_supplicant@{interface}.service", unit)
    if address:
        networks[address.interface] = address
    for interface, given in networks.items():
        yield Write(NETWORKS.replace("*", interface), network_unit(interface, given).encode())
    for path in facts.found.paths(NETWORKS):
        interface = interface_of(path)
        if interface not in networks and not is_wireless(interface):
            yield Remove(path)


def _radio(facts: NodeFacts) -> Iterator[Edit | Note]:
    """What systemd-rfkill restores at boot: Raspbian ships its radio blocked until a country is known."""
    for path in facts.found.paths(_RADIOS):
        if (facts.text(path) or "").strip() == "1":
            yield facts.rewritten(path, "0\n")
    if not (facts.has("wpasupplicant") or facts.has("iwd")):
        yield Note("Wi-Fi needs the package wpasupplicant, which the base lacks")


def _secret(path: str, text: str) -> Write:
    return Write(path, text.encode(), 0o600, secret=True)
