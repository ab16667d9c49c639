"""What the bench and the node agree on: names, paths, phases, the agent's configuration, the wire format.

Runs on the node too: Python 3.7, standard library only.
"""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from firstboot.addresses import StaticAddress
from firstboot.errors import UserError
from firstboot.paths import *  # noqa: F403 (they are agreed on, too)
from firstboot.paths import CONFIG, CREDENTIAL_BYTES

# The join service of a master.
JOIN_PORT = 6422
JOIN_USER = "k3s-join"
JOIN_UNIT = "k3s-bake-join.service"
HELPER_SOCKET = "/run/k3s-bake/helper.sock"
AUTHORITY = "/etc/k3s-bake/authority.pub"
PRINCIPALS = "/etc/k3s-bake/principals"
REVOKED = "/etc/k3s-bake/revoked_keys"
WORKER, MASTER, OPERATOR = "k3s-worker", "k3s-master", "k3s-operator"
"""Principals of join certificates: what their holder may ask for."""

GOLDEN = "golden/"
"""A key id that begins so is no node's name (those have no slash): any node may use its certificate."""

MAX_ANSWER = 64 << 10
"""Bytes of a request to a master, and of its answer."""

# DNS-SD: the wire format, docs/joining.md describes it.
SERVICE = "_k3s-bake._tcp.local."
WIRE_VERSION = "1"
TXT_SIZES = {
    "v": 3,
    "cluster": 63,
    "role": 6,
    "name": 63,
    "phase": 9,
    "reason": 24,
    "addr": 39,
    "serial": 64,
    "k3s": 32,
    "since": 10,
    "conf": 7,
    "inst": 7,
}
"""The keys of the TXT record and the most bytes of their values. ``since`` in seconds since 1970, ``conf``
and ``inst`` (configuration and installation time) in seconds."""

NETWORK_MANAGERS = ("NetworkManager", "dhcpcd", "systemd-networkd")
"""What may set a node's addresses."""

PHASES = ("checking", "clock", "searching", "asking", "starting", "joined", "blocked")

REASONS: Dict[str, str] = {
    "armv6": "This board's processor (ARMv6) cannot run K3s: use a Pi 2 or newer.",
    "no-memory-cgroup": "The kernel has its memory cgroup off: look at cmdline.txt, or update the kernel.",
    "no-credential": "The card holds no credential: bake it with one, or flash it again.",
    "no-network": "The node has no address yet: look at the cable, the Wi-Fi and the router.",
    "no-master": "No master of this cluster is heard: is it on, and in the same network?",
    "unreachable": "The master does not answer on port 6422: is it still starting, is a firewall between?",
    "untrusted-master": "What answers as a master is none of this cluster: it was sent nothing.",
    "credential-refused": "The master refuses this card's certificate: it is revoked or expired.",
    "not-ready": "The master's K3s is not up yet.",
    "bad-answer": "The master's answer makes no sense: are both of one version of k3s-bake?",
    "name-taken": "Another board has joined under this name: k3s-bake release NAME admits this one.",
    "wrong-name": "The card's certificate is for another name: flash it again.",
    "not-allowed": "This card's certificate does not permit that: a worker's card in a master?",
    "newer-than-master": "This node's K3s is newer than the master's: update the master first.",
    "two-clusters": "Two masters of this cluster's name are two clusters: turn one off.",
    "other-cluster": "The master heard is of another cluster than the one joined before.",
    "k3s-failed": "K3s does not come up on this node: journalctl -u 'k3s*' says why.",
    "password-rejected": "The master knows this name by another password: it is asked to take the node back.",
    "master-lost": "The master does not answer; K3s goes on running.",
}
"""Why a node waits or is blocked: codes for programs and the TXT record, each with a remedy for people."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_label(text: str) -> bool:
    """A DNS label (RFC 1123) in lower case: what names of nodes and clusters are."""
    return bool(_LABEL.fullmatch(text))


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def seconds_text(seconds: float) -> str:
    """As the TXT record has room for: never longer, never cut."""
    whole = min(max(int(seconds), 0), 9_999_999)
    return f"{abs(max(seconds, 0.0)):.1f}" if whole < 10_000 else str(whole)


def host_alias(cluster: str) -> str:
    """The name under which a master's host certificate is trusted, whatever its address."""
    return f"k3s-bake-{cluster}"


def known_hosts(cluster: str, authority: str) -> str:
    """``authority`` is a public key, ``ssh-ed25519 AAAA...``."""
    return f"@cert-authority {host_alias(cluster)} {authority.strip()}\n"


@dataclass(frozen=True)
class NodeConfig:
    """What the agent is told at bake; nothing in it is secret."""

    cluster: str
    role: str
    """``master`` or ``worker``."""
    name: Optional[str] = None
    """None: made of the cluster's name and the board's serial number."""
    joins: bool = True
    """False for a master that starts a cluster by itself."""
    master: Optional[str] = None
    """Address to ask where no master is heard."""
    boot: str = "/boot"
    not_before: Optional[str] = None
    """Day (ISO 8601) of the bake: the clock starts no earlier."""
    network_manager: Optional[str] = None
    """One of NETWORK_MANAGERS; None: there is none of them, or an earlier version's bake did not say."""

    @property
    def unit(self) -> str:
        return "k3s" if self.role == "master" else "k3s-agent"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "NodeConfig":
        """UserError for what to_json did not write."""
        try:
            config = cls(**json.loads(text))
            good = is_label(config.cluster) and config.role in ("master", "worker")
            good = good and (config.name is None or is_label(config.name))
            good = good and config.network_manager in (None, *NETWORK_MANAGERS)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{CONFIG} is garbled: {error}", "Bake the image again.") from error
        if not good:
            raise UserError(f"{CONFIG} is garbled", "Bake the image again.")
        return config


@dataclass(frozen=True)
class Announcement:
    """What a node says of itself by mDNS. Heard, it is a hint and proves nothing."""

    cluster: str
    role: str
    name: str
    phase: str
    reason: str = ""
    addr: str = ""
    serial: str = ""
    k3s: str = ""
    since: int = 0
    conf: str = ""
    inst: str = ""

    def to_txt(self) -> Dict[str, str]:
        """The TXT record; a value that is too long is cut."""
        values = dict(asdict(self), v=WIRE_VERSION)
        return {key: str(values[key])[:size] for key, size in TXT_SIZES.items() if values[key]}

    @classmethod
    def from_txt(cls, txt: Mapping[str, str]) -> Optional["Announcement"]:
        """None for another version of the format, and for anything that no node of ours says."""
        if txt.get("v") != WIRE_VERSION:
            return None
        values: Dict[str, Any] = {key: txt.get(key, "") for key in TXT_SIZES if key != "v"}
        if any(len(value) > TXT_SIZES[key] or not value.isprintable() for key, value in values.items()):
            return None
        good = (
            is_label(values["cluster"])
            and is_label(values["name"])
            and values["role"] in ("master", "worker")
            and values["phase"] in PHASES
            and values["reason"] in ("", *REASONS)
            and (not values["addr"] or is_address(values["addr"]))
            and re.fullmatch(r"[0-9a-zA-Z]*", values["serial"])
            and re.fullmatch(r"[0-9A-Za-z.+-]*", values["k3s"])
            and re.fullmatch(r"[0-9]*", values["since"])
        )
        if not good:
            return None
        for key in ("conf", "inst"):  # worth no more than themselves
            if not re.fullmatch(r"[0-9]*(\.[0-9]+)?", values[key]):
                values[key] = ""
        values["since"] = int(values["since"] or 0)
        return cls(**values)


_ADDRESS = ("address", "gateway", "dns", "interface")
"""Fields of a Credential."""


@dataclass(frozen=True)
class Credential:
    """What a card brings along: who it is, and the keys and certificates that prove it (OpenSSH's forms).

    And an address of its own, if it has one: all or nothing of a StaticAddress. UserError from its
    constructor for one that cannot be.
    """

    name: Optional[str] = None
    join_key: str = ""
    join_certificate: str = ""
    host_key: str = ""
    """Of a master: its join service's own, with its certificate."""
    host_certificate: str = ""
    address: Optional[str] = None
    gateway: Optional[str] = None
    dns: Tuple[str, ...] = ()
    interface: str = StaticAddress.interface

    def __post_init__(self) -> None:
        alone = (self.gateway, self.dns, self.interface) != (None, (), StaticAddress.interface)
        if self.static_address is None and alone:
            raise UserError("gateway, name servers and interface go with an address", "like 10.0.0.2/24")

    def __repr__(self) -> str:
        return f"Credential(name={self.name!r}, address={self.address!r})"

    @property
    def static_address(self) -> Optional[StaticAddress]:
        """None: DHCP's, or the image's own."""
        if self.address is None:
            return None
        if self.gateway is None:
            raise UserError("a static address needs a gateway", "like 10.0.0.1")
        return StaticAddress(self.address, self.gateway, self.dns, self.interface)

    def to_bytes(self) -> bytes:
        """CREDENTIAL_BYTES bytes: always the same place, so that a card is stamped by overwriting it.

        UserError for more than it has room for.
        """
        values = asdict(self)
        if self.address is None:  # an image of an earlier version knows no such keys
            for key in _ADDRESS:
                del values[key]
        text = json.dumps(values).encode()
        if len(text) >= CREDENTIAL_BYTES:
            raise UserError("the credential has no room for all that", "Give it three name servers at most.")
        return text.ljust(CREDENTIAL_BYTES - 1) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Optional["Credential"]:
        """None for anything that to_bytes did not write: cut off, overwritten, empty."""
        try:
            values = json.loads(data.decode("ascii").strip("\0 \n"))
            dns = values.pop("dns", [])
            nullable = {key: values.pop(key, None) for key in ("name", "address", "gateway")}
            texts = [*dns, *values.values(), *(text for text in nullable.values() if text is not None)]
            if not (isinstance(dns, list) and all(isinstance(text, str) for text in texts)):
                return None
            credential = cls(**values, **nullable, dns=tuple(dns))
        except (ValueError, TypeError, AttributeError, RecursionError, UserError):
            return None
        return credential if credential.name is None or is_label(credential.name) else None
