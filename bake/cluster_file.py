"""``cluster.toml``: the nodes of a cluster in a person's own words.

    [cluster]
    name = "home"
    datastore = "sqlite"            # or "etcd", or "postgres://k3s@10.0.0.9/k3s"
    authorized_keys = ["~/.ssh/id_ed25519.pub"]

    [[node]]
    name = "pi-1"
    role = "master"
    address = "10.0.0.2/24"
    gateway = "10.0.0.1"

    [k3s.config]                    # of all nodes; k3s.config of a node wins
    write-kubeconfig-mode = "0644"

Everything is optional, and flags win over it. Keys of ours are written with underscores; those under
``k3s.config`` are K3s's own, with dashes, and go through as they are. Relative paths start at the file.
No secret is written in it, only the path of a file that nobody else may read.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bake.cluster_checks import At
from bake.cluster_keys import FILE
from bake.spec import Datastore, ExternalDatastore, Role, StaticAddress, Wifi
from firstboot.errors import UserError

_UNREAD = "cannot be read"


class ClusterFileError(UserError):
    """All that is wrong with a file: the message counts, ``problems`` has a line for each."""

    def __init__(self, file: str, problems: tuple[str, ...]) -> None:
        counted = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        hint = "docs/cluster-file.md lists what can be in it"
        if any(problem.startswith("node[") for problem in problems):
            hint = "node[1] is the first [[node]]"
        elif problems[0].startswith(_UNREAD):
            hint = "check the path, and who may read it"
        super().__init__(f"{file}: {counted}", hint)
        self.problems = problems


@dataclass(frozen=True)
class NodeEntry:
    """A ``[[node]]``: what differs from the rest of the cluster."""

    role: Role
    name: str | None = None
    labels: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()
    address: StaticAddress | None = None
    user: str | None = None
    host: str | None = None
    """Where a running node is reached."""
    jump: str | None = None
    """Through whom, as ssh's ProxyJump is written."""
    timezone: str | None = None
    join: bool | None = None
    """Of a master: joins the others."""
    config: Mapping[str, object] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ClusterFile:
    """A file without mistakes. None: left to a flag or to the default."""

    name: str | None = None
    k3s: str | None = None
    """A version, a channel or a path, as bake.artifacts.resolve_k3s takes it."""
    k3s_version: str | None = None
    base: str | None = None
    airgap: str | None = None
    datastore: Datastore | ExternalDatastore | None = None
    registries: bytes | None = field(default=None, repr=False)
    network: str | None = None
    containerd: tuple[Path, ...] = ()
    timezone: str | None = None
    user: str | None = None
    jump: str | None = None
    authorized_keys: tuple[str, ...] = ()
    server: str | None = None
    """URL of the master that workers join; with ``token`` they do so without asking."""
    token: bytes | None = field(default=None, repr=False)
    master: str | None = None
    """Address of a master to ask where none is heard."""
    wifi: Wifi | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    nodes: tuple[NodeEntry, ...] = ()


def load(path: Path) -> ClusterFile:
    """Raises ClusterFileError with every mistake at once, and nothing else."""
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ClusterFileError(path.name or str(path), (f"{_UNREAD}: {error.strerror}",)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ClusterFileError(path.name or str(path), (f"line {line}: is not UTF-8",)) from error
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: a number of 5000 digits
        raise ClusterFileError(path.name or str(path), (f"is not TOML: {error}",)) from error
    return parse(data, path)


def parse(data: Mapping[str, object], path: Path) -> ClusterFile:
    """What ``load`` makes of the file's data. Raises ClusterFileError."""
    top = At("", path.parent.absolute(), [])
    found = FILE(top, data)
    cluster, k3s, nodes = found.get("cluster", {}), found.get("k3s", {}), found.get("node", ())
    _check_together(top, cluster, nodes)
    if top.problems:
        raise ClusterFileError(path.name or str(path), tuple(top.problems))
    return ClusterFile(**cluster, **k3s, nodes=tuple(NodeEntry(**node) for node in nodes))


def _check_together(top: At, cluster: Mapping[str, Any], nodes: tuple[dict[str, Any], ...]) -> None:
    """Mistakes that only show when the nodes are seen beside each other."""
    for key in ("name", "address", "host"):
        values = [getattr(node.get(key), "address", node.get(key)) for node in nodes]
        counts = Counter(values)
        for number, value in enumerate(values, 1):
            if value is not None and counts[value] > 1:
                top.key("node").item(number).key(key).wrong(f"{value!r} is there more than once")
    masters = [node for node in nodes if node.get("role") is Role.MASTER]
    if len(masters) > 1 and sum(not node.get("join") for node in masters) != 1:
        top.key("node").wrong(f"of {len(masters)} masters all but one need: join = true")
    if len(masters) > 1 and cluster.get("datastore", Datastore.SQLITE) is Datastore.SQLITE:
        instead = "write 'etcd', or name a database"
        top.key("cluster").key("datastore").wrong(f"{len(masters)} masters cannot share sqlite: {instead}")


def values_for(file: ClusterFile | None, role: Role | None, name: str | None) -> dict[str, Any]:
    """Keyword arguments for NodeSpec, all but ``k3s`` and ``containerd``: what is not said is left out.

    Of the nodes that role and name leave, one alone gives its own values; otherwise only what all nodes
    share is used. UserError where the file gives that name another role, names nodes but not this one, or
    no role is known.
    """
    file = file or ClusterFile()
    entry = _entry(file, role, name)
    role = role or (entry.role if entry else None)
    if role is None:
        which = "--name names one of the file's nodes, --all takes each; or " if file.nodes else ""
        raise UserError("is it to be a master or a worker?", f"{which}say --role master or --role worker")
    own = entry or NodeEntry(role)
    master = role is Role.MASTER
    values = {
        "role": role,
        "cluster": file.name,
        "name": name or own.name,
        "datastore": file.datastore if master else None,
        "server": None if master else file.server,
        "token": None if master else file.token,
        "master": file.master,
        "join": own.join,
        "labels": own.labels,
        "taints": own.taints,
        "config": {**file.config, **own.config},  # of which a worker's config.yaml gets what agents take
        "env": {**file.env, **own.env},
        "registries": file.registries,
        "network": file.network,
        "user": own.user or file.user,
        "authorized_keys": file.authorized_keys,
        "wifi": file.wifi,
        "address": own.address,
        "timezone": own.timezone or file.timezone,
    }
    return _said(values)


def parts_for(file: ClusterFile | None) -> dict[str, Any]:
    """What an image is made of (base, K3s, airgap images, containerd archives), as far as the file says."""
    file = file or ClusterFile()
    return _said({key: getattr(file, key) for key in ("base", "k3s", "k3s_version", "airgap", "containerd")})


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, (), {})}


def _entry(file: ClusterFile, role: Role | None, name: str | None) -> NodeEntry | None:
    named = [node for node in file.nodes if name in (None, node.name)]
    names = [node.name for node in file.nodes if node.name]
    if name is not None and names and not named:
        near = get_close_matches(name, names, n=1, cutoff=0)[0]
        raise UserError(f"the cluster file has no node {name}", f"did you mean {near}?")
    fitting = [node for node in named if role in (None, node.role)]
    if name is not None and named and not fitting:
        raise UserError(
            f"{name} is a {named[0].role} in the cluster file, not a {role}", "change one of them"
        )
    return fitting[0] if len(fitting) == 1 else None
