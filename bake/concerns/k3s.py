"""K3s itself: binary, links, unit, configuration, images, as its official installer would leave them.

What an earlier bake left and the node is not to have any more goes.
"""

import json
from collections.abc import Iterator, Mapping

from bake.concerns import Note, record
from bake.concerns.containerd import SOCKET
from bake.facts import NodeFacts
from bake.k3s_keys import AGENT_KEYS
from bake.render import render
from bake.spec import Datastore, File, NodeSpec, Role
from firstboot.contract import K3S_AGENT_TOKEN
from firstboot.contract import K3S_CONFIG as CONFIG
from firstboot.contract import K3S_DATASTORE as DATASTORE
from firstboot.contract import K3S_TOKEN as TOKEN
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.node import keys_of_agent, with_keys
from firstboot.snapshot import File as FoundFile
from firstboot.snapshot import Folder, Probe

BINARY = "/usr/local/bin/k3s"
REGISTRIES = "/etc/rancher/k3s/registries.yaml"
IMAGES = "/var/lib/rancher/k3s/agent/images"
_AIRGAP = f"{IMAGES}/k3s-airgap-images-*"  # as K3s's releases call them
UNITS = "/etc/systemd/system"
_UNIT_FILES = tuple(f"{UNITS}/{role.unit}.service" for role in Role)
_STARTED = tuple(f"{UNITS}/multi-user.target.wants/{role.unit}.service" for role in Role)

PROBES = (
    Probe(BINARY, "digest"),
    *(Probe(f"/usr/local/bin/{name}", "digest") for name in ("kubectl", "crictl", "ctr")),
    Probe(CONFIG),
    Probe(REGISTRIES, "digest"),
    Probe(DATASTORE, "digest"),
    *(Probe(path, "digest") for path in (TOKEN, K3S_AGENT_TOKEN)),
    Probe(f"{IMAGES}/*", "digest"),
    *(Probe(path) for path in _UNIT_FILES + _STARTED),
    *(Probe(f"{path}.env", "digest") for path in _UNIT_FILES),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    binary = spec.k3s.binary
    yield Place(BINARY, binary.sha256, binary.size, 0o755)
    # With an external containerd its own ctr is there: K3s's speaks to the embedded one only.
    for name in ("kubectl", "crictl") if spec.containerd else ("kubectl", "crictl", "ctr"):
        yield Link(f"/usr/local/bin/{name}", "k3s")
    yield from _images(spec.k3s.airgap, facts)
    yield Write(CONFIG, _config_file(spec, facts), 0o600)
    if spec.token is not None:
        yield Write(TOKEN, spec.token + b"\n", 0o600, secret=True)
    elif spec.first_boot is None or "token" in record.earlier_secrets(facts):  # else it is the agent's
        yield Remove(TOKEN)
    if spec.registries is not None:
        yield Write(REGISTRIES, spec.registries, 0o600, secret=True)
    elif "registries" in record.earlier_secrets(facts):  # else it is the base's own
        yield Remove(REGISTRIES)
    if spec.external is not None:
        keys = {"datastore-endpoint": spec.external.endpoint}
        yield Write(DATASTORE, config_yaml(keys), 0o600, secret=True)
    else:
        yield Remove(DATASTORE)
    yield from _unit(spec)


def secrets(facts: NodeFacts) -> Iterator[str]:
    """The files that hold one now."""
    for path in (TOKEN, REGISTRIES, DATASTORE, *(f"{path}.env" for path in _UNIT_FILES)):
        found = facts.found.get(path)
        if isinstance(found, FoundFile) and found.size:
            yield path


def _images(airgap: File | None, facts: NodeFacts) -> Iterator[Edit]:
    wanted = f"{IMAGES}/{airgap.name}" if airgap else None
    if airgap and wanted:
        yield Place(wanted, airgap.sha256, airgap.size)
    for path in facts.found.paths(_AIRGAP):
        if path != wanted and not isinstance(facts.found.get(path), Folder):
            yield Remove(path)


def _unit(spec: NodeSpec) -> Iterator[Edit | Note]:
    path = f"{UNITS}/{spec.role.unit}.service"
    notifies = spec.role is Role.MASTER or (
        spec.k3s.version is not None and spec.k3s.version.notifies_as_agent
    )
    yield Write(path, render("k3s.service.j2", role=spec.role, type="notify" if notifies else "exec"))
    # Its values may hold a proxy's password.
    env = "".join(f"{key}={_quoted(value)}\n" for key, value in sorted(spec.env.items()))
    yield Write(f"{path}.env", env.encode(), 0o600, secret=bool(env))
    started = f"{UNITS}/multi-user.target.wants/{spec.role.unit}.service"
    if spec.first_boot is None:  # else the agent enables it, once it has all that K3s needs
        yield Link(started, path) if spec.starts else Remove(started)
    for other in Role:
        if other is not spec.role:  # what a node was before
            yield Remove(f"{UNITS}/multi-user.target.wants/{other.unit}.service")
            yield Remove(f"{UNITS}/{other.unit}.service")
            yield Remove(f"{UNITS}/{other.unit}.service.env")
    if not spec.starts and spec.first_boot is None:
        needed = {"--server": spec.server, "--token-file": spec.token}
        missing = " and ".join(flag for flag, given in needed.items() if given is None)
        yield Note(f"K3s is installed but not started at boot: this {spec.role} still needs {missing}")


def _quoted(value: str) -> str:
    """As systemd reads it (EnvironmentFile in systemd.exec(5)): unlike JSON it knows no \\u and no \\t."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _config_file(spec: NodeSpec, facts: NodeFacts) -> bytes:
    """Of a node that runs, what its agent has found out stays: its name, its master."""
    content = config_yaml(config(spec, facts))
    is_in = facts.exists(TOKEN) or facts.exists(K3S_AGENT_TOKEN)  # else it has left its cluster
    if not (facts.live and spec.first_boot and is_in):
        return content
    agents = keys_of_agent(facts.text(CONFIG) or "")
    return with_keys(content.decode(), agents).encode("utf-8", "surrogateescape")


def config(spec: NodeSpec, facts: NodeFacts) -> dict[str, object]:
    """The keys of config.yaml: what the person gave that this role takes, then what the plan manages."""
    role_keys = spec.config if spec.role is Role.MASTER else _agent_keys(spec.config)
    keys: dict[str, object] = dict(role_keys)
    keys["node-name"] = spec.hostname
    if spec.has_node_id:
        keys["with-node-id"] = True
    if spec.labels:
        keys["node-label"] = list(spec.labels)
    if spec.taints:
        keys["node-taint"] = list(spec.taints)
    if spec.server is not None:
        keys["server"] = spec.server
    if spec.token is not None:
        keys["token-file"] = TOKEN
    if spec.datastore is Datastore.ETCD and spec.server is None and not spec.join:
        keys["cluster-init"] = True
    if spec.containerd is not None:
        keys["container-runtime-endpoint"] = f"unix://{SOCKET}"
    return keys | _by_version(spec, facts, keys)


def _by_version(spec: NodeSpec, facts: NodeFacts, given: Mapping[str, object]) -> dict[str, object]:
    """Keys that only some versions know: an agent refuses to start with one it does not know."""
    version = spec.k3s.version
    keys: dict[str, object] = {}
    if version is None:
        return keys
    if version.has_bundled_bin_option and "prefer-bundled-bin" not in given:
        keys["prefer-bundled-bin"] = True
    if version.refuses_cgroup_v1 and not facts.may_use_cgroup_v2:
        given_args = given.get("kubelet-arg", [])
        args = list(given_args) if isinstance(given_args, list) else [given_args]
        if not any(str(arg).startswith("fail-cgroupv1=") for arg in args):
            keys["kubelet-arg"] = [*args, "fail-cgroupv1=false"]
    return keys


def _agent_keys(given: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in given.items() if key in AGENT_KEYS}


def config_yaml(keys: Mapping[str, object]) -> bytes:
    """YAML with each value as JSON, which is YAML too: quoted beyond doubt, and one line a key."""
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items()]
    return "".join(["# Written by k3s-bake.\n", *lines]).encode()
