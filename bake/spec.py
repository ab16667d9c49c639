"""What one node is to be: the frozen input of the plan, checked when it is made.

Files people write become these through bake.cluster_file; the command line fills in the rest.
"""

import datetime
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bake.datastore import ExternalDatastore as ExternalDatastore  # with Wifi, for those who read files
from bake.k3s_version import K3sVersion
from bake.labels import check_node_label, check_taint
from firstboot.addresses import StaticAddress as StaticAddress  # with Wifi, for those who read files
from firstboot.contract import Credential, is_address
from firstboot.errors import UserError

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123) in lower case, as Kubernetes wants node names."""

_NODE_ID = 9
"""What ``with-node-id`` adds to a name: '-' and eight hexadecimal digits."""


class Role(StrEnum):
    """For people. K3s's own words are server and agent."""

    MASTER = "master"
    WORKER = "worker"

    @property
    def k3s(self) -> str:
        return "server" if self is Role.MASTER else "agent"

    @property
    def unit(self) -> str:
        """The unit's name without suffix, as the official installer calls it."""
        return "k3s" if self is Role.MASTER else "k3s-agent"


class Datastore(StrEnum):
    SQLITE = "sqlite"
    ETCD = "etcd"


@dataclass(frozen=True)
class File:
    """A large file to stage: what it is, not where its bytes are. UserError for a name with a path in it."""

    name: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^/\x00-\x1f]+", self.name) or self.name in (".", ".."):
            raise UserError(f"{self.name[:80]!r} cannot be a file's name", "rename the file")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise UserError(f"{self.sha256[:80]!r} is not a SHA-256", "64 hexadecimal digits")


@dataclass(frozen=True)
class K3s:
    binary: File
    version: K3sVersion | None = None
    """None where a binary came without one: only what every K3s understands is used then."""
    airgap: File | None = None


@dataclass(frozen=True)
class Containerd:
    """An external containerd: its programs by name, and its version as far as it could be told."""

    programs: tuple[File, ...]
    version: tuple[int, int] | None = None


@dataclass(frozen=True)
class FirstBoot:
    """What makes a node find its master, or a master its workers, when it is powered on."""

    agent: File
    """firstboot.pyz"""
    authority: str
    """The public key of the cluster's SSH authority."""


@dataclass(frozen=True)
class Wifi:
    """UserError from its constructor for what no network can have; the password is never in it."""

    country: str
    """ISO 3166 code of two capitals: without it the radio stays off."""
    ssid: str
    psk: str = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]{2}", self.country):
            raise UserError(f"{self.country[:20]!r} is not a Wi-Fi country", "Two capitals, like DE or US")
        if not 1 <= len(self.ssid.encode("utf-8", "surrogateescape")) <= 32:
            raise UserError(
                "a Wi-Fi network's name has 1 to 32 bytes", "Letters beyond ASCII count as two or more."
            )
        if not re.fullmatch(r"[ -~]{8,63}|[0-9A-Fa-f]{64}", self.psk):
            raise UserError(
                "that cannot be a Wi-Fi password", "8 to 63 plain characters, or 64 hexadecimal digits"
            )


@dataclass(frozen=True)
class NodeSpec:
    """One node. Raises UserError from its constructor for a field that no node can have."""

    role: Role
    k3s: K3s
    cluster: str = "k3s"
    name: str | None = None
    """Host and node name; None for an image that many cards are written from."""
    datastore: Datastore | ExternalDatastore = Datastore.SQLITE
    server: str | None = None
    """URL of a master to join, ``https://10.0.0.2:6443``."""
    token: bytes | None = field(default=None, repr=False)
    labels: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    """Further keys of K3s's config.yaml."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    registries: bytes | None = field(default=None, repr=False)
    first_boot: FirstBoot | None = None
    """None: no agent; the node starts, or joins ``server``, with what is baked in."""
    credential: Credential | None = field(default=None, repr=False)
    """What the agent proves itself with; None: the card is given its own when it is written."""
    join: bool = False
    """A further master: it joins the cluster's masters, and never starts a cluster."""
    master: str | None = None
    """Address of a master to ask where none is heard."""
    containerd: Containerd | None = None
    network: str | None = None
    """The cluster's own network (CIDR): a firewall is opened for it alone. None: for all."""
    user: str = "pi"
    authorized_keys: tuple[str, ...] = ()
    ssh: bool | None = None
    """None: on where keys are given, else as the image has it."""
    wifi: Wifi | None = None
    address: StaticAddress | None = None
    timezone: str | None = None
    not_before: datetime.date | None = None
    """The clock starts no earlier than this day; of one bake, and so not in the node's record."""

    def __post_init__(self) -> None:
        check_label(self.cluster, "cluster name")
        if self.name is not None:
            check_label(self.name, "node name")
        check_label(self.hostname, "host name", 63 - (_NODE_ID if self.has_node_id else 0))
        for label in self.labels:
            check_node_label(label)
        for taint in self.taints:
            check_taint(taint)
        for variable, value in self.env.items():
            check_variable(variable, value)
        if self.network is not None:
            check_network(self.network)
        if self.server is not None:
            check_server(self.server)
        if self.role is Role.WORKER and self.datastore is not Datastore.SQLITE:
            raise UserError("a worker has no datastore", "datastore belongs to masters")
        version = self.k3s.version
        if self.external is not None and version is not None and not version.reads_config_folder:
            raise UserError(
                f"{version} cannot be given a datastore in a file of its own", "v1.21 and later can."
            )
        if self.token is not None:
            self._check_token(self.token)
        self._check_first_boot()

    def _check_first_boot(self) -> None:
        if self.join and self.role is Role.WORKER:
            raise UserError("a worker joins anyway", "--join is for further masters")
        if self.join and self.server is not None:
            raise UserError(
                "--join finds a master by itself, and --server names one", "Leave one of them out."
            )
        if self.join and self.first_boot is None:
            raise UserError(
                "without the first-boot agent nothing joins by itself", "--server and --token-file"
            )
        if self.first_boot is not None and self.joins:
            raise UserError("with --server and --token-file the node joins without an agent", "--no-agent")
        if self.master is not None:
            check_address(self.master)

    def _check_token(self, token: bytes) -> None:
        if self.server is None:
            raise UserError("a token is for joining a master", "--server names it: https://10.0.0.2:6443")
        check_token(token)
        if self.role is Role.MASTER and b"::node:" in token:
            raise UserError(
                "that token is for workers: a master joins with the servers' own",
                "Take all of /var/lib/rancher/k3s/server/token of the first master.",
            )

    @property
    def external(self) -> ExternalDatastore | None:
        return self.datastore if isinstance(self.datastore, ExternalDatastore) else None

    @property
    def hostname(self) -> str:
        return self.name or f"{self.cluster}-{self.role}"

    @property
    def has_node_id(self) -> bool:
        """Whether K3s adds an id to the name: one image, many cards, and each must be a node of its own."""
        return self.name is None and self.role is Role.WORKER and self.first_boot is None

    @property
    def joins(self) -> bool:
        """Whether all is there that K3s needs to join a master at once."""
        return self.server is not None and self.token is not None

    @property
    def starts(self) -> bool:
        """Whether K3s can start at boot with what is baked in, without an agent's help."""
        return self.joins or (self.role is Role.MASTER and self.server is None and self.first_boot is None)


def check_label(text: str, what: str, most: int = 63) -> str:
    """Return it. UserError where it is not a DNS label in lower case of ``most`` characters at most."""
    if len(text) > most or not LABEL.fullmatch(text):
        raise UserError(
            f"'{text[:80]}' cannot be a {what}",
            f"Lower-case letters, digits and '-' inside, at most {most}: pi-1",
        )
    return text


def check_server(text: str) -> str:
    """Return it. UserError where it is not a master's URL with its port."""
    if not re.fullmatch(r"https://[^\s/]+:\d+", text):
        raise UserError(f"{text[:80]!r} is not a master's URL", "like https://10.0.0.2:6443")
    return text


def check_address(text: str) -> str:
    """Return it. UserError where it is not an IP address: a node without a master cannot look names up."""
    if not is_address(text):
        raise UserError(f"{text[:80]!r} is not a master's address", "like 10.0.0.2")
    return text


def check_variable(name: str, value: str) -> None:
    """UserError for what systemd would not take from a unit's EnvironmentFile. The value never shows."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UserError(f"{name[:80]!r} is not a variable's name", "like HTTP_PROXY")
    if not value.isprintable():
        raise UserError(f"the value of {name[:80]} is not one line of text", "no line ends, no tabs")


def check_network(text: str) -> str:
    """Return it. UserError where it is not a network in CIDR form."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(f"'{text}' is not a network: {error}", "like 10.0.0.0/24") from error
    return text


def check_token(token: bytes) -> None:
    """UserError for what K3s would not take, or would take without checking the master's CA."""
    if not re.fullmatch(rb"K10[0-9a-f]{64}::\S+", token):
        raise UserError(
            "the token is not in the K10 form, so K3s would trust any master with it",
            "Take all of /var/lib/rancher/k3s/server/node-token of the master; for a master, server/token.",
        )
