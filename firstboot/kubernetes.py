"""This master's own K3s, asked as any administrator would: by its files and its command.

Runs on the node: Python 3.7, standard library only.
"""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from firstboot.contract import K3S_AGENT_TOKEN, K3S_CONFIG, is_label
from firstboot.programs import run

K3S = "/usr/local/bin/k3s"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
SERVER_TOKEN = "/var/lib/rancher/k3s/server/token"  # noqa: S105 (a path)

_LIMIT = 30.0
_DRAIN = 60
"""Seconds for which pods may end; kubectl takes some more until it says so."""
_MOST = 16 << 20
"""Bytes of a list of nodes or pods: some 10 kB each."""

_TOKEN_CREATE = {23: 17, 24: 11, 25: 7, 26: 2}
"""``k3s token create`` came with these patch releases of 1.x; every later minor version has it."""


class KubernetesNode(NamedTuple):
    name: str
    ready: bool
    k3s: str
    roles: Tuple[str, ...]
    address: str


def is_up() -> bool:
    """K3s has told systemd that it answers. Cheap."""
    return run(["systemctl", "is-active", "--quiet", "k3s"], limit=_LIMIT)[0] == 0


def is_ready(name: str) -> Optional[bool]:
    """Whether Kubernetes says that a node is Ready; None where it does not answer."""
    found = nodes()
    if found is None:
        return None
    return any(node.ready for node in found if node.name == name)


def nodes() -> Optional[List[KubernetesNode]]:
    """None where Kubernetes does not answer."""
    code, said, _ = run([K3S, "kubectl", "get", "nodes", "-o", "json"], most=_MOST, limit=_LIMIT)
    try:
        return nodes_of(json.loads(said.decode("utf-8"))) if code == 0 else None
    except (ValueError, RecursionError):
        return None


def nodes_of(listed: Any) -> List[KubernetesNode]:
    """Of ``kubectl get nodes -o json``. ValueError for anything else."""
    try:
        return [_node_of(item) for item in listed["items"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no list of nodes") from error


def _node_of(item: Dict[str, Any]) -> KubernetesNode:
    meta, status = item["metadata"], item["status"]
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    addresses = {one["type"]: one["address"] for one in status.get("addresses", ())}
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key[len(prefix) :] for key in meta.get("labels", ()) if key.startswith(prefix))
    version = str(status.get("nodeInfo", {}).get("kubeletVersion", ""))
    address = str(addresses.get("InternalIP", ""))
    return KubernetesNode(
        str(meta["name"]), conditions.get("Ready") == "True", version, tuple(roles), address
    )


def delete_node(name: str) -> bool:
    """With it K3s forgets the node's password. True where there was none, too."""
    if not is_label(name):
        return False
    command = [K3S, "kubectl", "delete", "node", name, "--ignore-not-found", "--wait=false"]
    return run(command, limit=_LIMIT)[0] == 0


def cordon(names: Sequence[str]) -> bool:
    """They take no new pods. Those that are no nodes are passed over: kubectl would stop at the first."""
    listed = nodes()
    if listed is None:
        return False
    known = sorted({node.name for node in listed} & set(names))
    return not known or run([K3S, "kubectl", "cordon", *known], limit=_LIMIT)[0] == 0


class Drained(NamedTuple):
    """What became of a node's pods."""

    drained: bool
    """All that can have gone elsewhere."""
    pods_left: Tuple[str, ...] = ()
    """namespace/name of those that have not, where Kubernetes says it."""
    why_left: str = ""


def drain(name: str) -> Drained:
    """A node's pods go elsewhere, as far as that can be done in time. A node that is none has none."""
    if not is_label(name):
        return Drained(False, (), "that is no name of a node")
    limit = f"--timeout={_DRAIN}s"
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", limit]
    code, _, complaint = run([K3S, "kubectl", "drain", name, *options], limit=_DRAIN + _LIMIT)
    if code == 0 or f'nodes "{name}" not found' in complaint:
        return Drained(True)
    left = pods(name)
    return Drained(left == (), left or (), "" if left == () else _why(complaint))


def _why(complaint: str) -> str:
    """In a few words, of what kubectl has complained of."""
    # It goes on asking only where it may not evict a pod yet; these lines are told apart by their ends, too.
    if "disruption budget" in complaint or re.search(r"when evicting [^:]+: global timeout", complaint):
        return "a PodDisruptionBudget does not let them go"
    if "global timeout" in complaint or "did not complete within" in complaint:
        return f"they did not end within {_DRAIN} s"
    return next(iter(complaint.strip().splitlines()[-1:]), "")[:200]


def pods(node: str) -> Optional[Tuple[str, ...]]:
    """namespace/name of those on it that a drain is to move; None where Kubernetes does not answer."""
    command = ["get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}", "-o", "json"]
    code, said, _ = run([K3S, "kubectl", *command], most=_MOST, limit=_LIMIT)
    try:
        return pods_of(json.loads(said.decode("utf-8"))) if code == 0 else None
    except (ValueError, RecursionError):
        return None


def pods_of(listed: Any) -> Tuple[str, ...]:
    """Of ``kubectl get pods -o json``. ValueError for anything else.

    Those of a DaemonSet, and mirrors of files on the node, stay by right; what has ended is in nobody's way.
    """
    try:
        found = [item for item in listed["items"] if _moves(item["metadata"], item.get("status", {}))]
        return tuple(sorted("{namespace}/{name}".format(**item["metadata"]) for item in found))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no list of pods") from error


def _moves(meta: Dict[str, Any], status: Dict[str, Any]) -> bool:
    owners = [one.get("kind") for one in meta.get("ownerReferences", ()) if one.get("controller")]
    is_mirror = "kubernetes.io/config.mirror" in meta.get("annotations", {})
    return not (is_mirror or "DaemonSet" in owners or status.get("phase") in ("Succeeded", "Failed"))


def create_token(version: str) -> Optional[str]:
    """A new token for agents, good for an hour, in K10 form; None where this K3s cannot make such."""
    if not can_create_tokens(version):
        return None
    code, said, _ = run([K3S, "token", "create", "--ttl", "1h"], most=4096, limit=_LIMIT)
    found = re.search(rb"^(K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16})\s*$", said, re.MULTILINE)
    return found.group(1).decode() if code == 0 and found else None


def delete_token(identity: str) -> bool:
    """``identity``: the six characters before the dot, which are no secret."""
    return run([K3S, "token", "delete", identity], limit=_LIMIT)[0] == 0


def can_create_tokens(version: str) -> bool:
    found = numbers(version)
    if found is None:
        return False
    major, minor, patch = found
    return (major, minor) > (1, 26) or (major == 1 and patch >= _TOKEN_CREATE.get(minor, 1 << 30))


def numbers(version: str) -> Optional[Tuple[int, int, int]]:
    """(1, 34, 9) of ``v1.34.9+k3s1``."""
    found = re.match(r"v([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9])", version)
    return (int(found.group(1)), int(found.group(2)), int(found.group(3))) if found else None


def version() -> str:
    """Like ``v1.34.9+k3s1``; empty where K3s does not say."""
    code, said, _ = run([K3S, "--version"], most=4096, limit=_LIMIT)
    found = re.search(rb"\bv[0-9][0-9A-Za-z.+-]{0,30}", said)
    return found.group().decode() if code == 0 and found else ""


def server_token() -> Optional[str]:
    """The servers' own; None until K3s has made its cluster."""
    found = _text(SERVER_TOKEN).strip()
    return found if re.fullmatch(r"K10[0-9a-f]{64}::server:\S+", found) else None


def agent_password() -> Optional[str]:
    found = _text(K3S_AGENT_TOKEN).strip()
    return found if re.fullmatch(r"[!-~]{1,256}", found) else None


def url(address: str) -> str:
    """How nodes reach this master's K3s at one of its addresses."""
    found = re.search(r'^https-listen-port: "?([0-9]{1,5})"?$', _text(K3S_CONFIG), re.MULTILINE)
    host = f"[{address}]" if ":" in address else address
    return f"https://{host}:{found.group(1) if found else 6443}"


def kubeconfig(server: str) -> Optional[str]:
    """The administrator's, with another server in it; None until K3s has made it."""
    text = _text(KUBECONFIG)
    line = re.compile(r"^(\s+server:\s+).*$", re.MULTILINE)
    changed, count = line.subn(lambda found: found.group(1) + server, text, count=1)
    return changed if count else None


def _text(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""
