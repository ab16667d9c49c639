"""The keys of ``cluster.toml`` and what each may hold: the tables at the end are the list."""

import ipaddress
import re
from math import isfinite
from pathlib import Path
from typing import Any

from bake.cluster_checks import (
    At,
    Check,
    each,
    existing_file,
    is_secret,
    kind,
    matching,
    name_or_path,
    path_to,
    public_keys,
    read_file,
    read_secret,
    table,
    valid,
)
from bake.k3s_version import K3sVersion
from bake.spec import (
    AGENT_KEYS,
    MANAGED_KEYS,
    SECRET_KEYS,
    Datastore,
    Role,
    StaticAddress,
    Wifi,
    check_label,
    check_network,
    check_token,
)
from firstboot.errors import UserError


def _role(given: str) -> Role:
    if given not in list(Role):
        raise UserError(f"{given!r} is neither master nor worker")
    return Role(given)


def _datastore(given: str) -> Datastore:
    if given not in list(Datastore):
        raise UserError(f"{given!r} is neither sqlite nor etcd")
    return Datastore(given)


_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_LABEL = re.compile(rf"{_KEY}=({_NAME})?")
# The kubelet refuses to start with labels of Kubernetes' own name spaces, but for these (KEP 279).
_KEPT = re.compile(
    r"(?!([^/]*\.)?(node|kubelet)\.kubernetes\.io/)([^/]*\.)?(kubernetes|k8s)\.io/(?P<name>[^=]*)=.*"
)
_NODES_OWN = {"hostname", "os", "arch", "region", "zone", "instance-type"}
_TAINT = matching(
    rf"{_KEY}(=({_NAME})?)?:(NoSchedule|PreferNoSchedule|NoExecute)", "a taint, like gpu=yes:NoSchedule"
)


def _label(given: str) -> str:
    if not _LABEL.fullmatch(given):
        raise UserError(f"{given!r} is not a Kubernetes label, like disk=ssd")
    kept = _KEPT.fullmatch(given)
    if kept and kept["name"] not in _NODES_OWN:
        raise UserError(f"no node may give itself {given!r}", "kubectl label node sets it later")
    return given


def _labels(at: At, value: object) -> tuple[str, ...]:
    if not isinstance(value, dict):
        labels: tuple[str, ...] = each(valid(_label), '["key=value"] or { key = "value" }')(at, value)
        return labels
    for key, item in value.items():
        if isinstance(item, str):
            valid(_label)(at.key(key), f"{key}={item}")
        else:
            at.key(key).wrong(f"is {kind(item)}, not text: write it in quotes")
    return tuple(f"{key}={item}" for key, item in value.items())


def _interface_address(given: str) -> str:
    try:
        ipaddress.IPv4Interface(given)
    except ValueError as error:
        raise UserError(f"{given!r} is not an IPv4 address with its prefix", "like 10.0.0.2/24") from error
    if "/" not in given:
        raise UserError(f"{given!r} lacks its prefix", "like 10.0.0.2/24")
    return given


def _ip(given: str) -> str:
    try:
        return str(ipaddress.ip_address(given))
    except ValueError as error:
        raise UserError(f"{given!r} is not an IP address") from error


def _config(at: At, value: object) -> dict[str, object]:
    """K3s's own keys with what YAML and TOML both know."""
    if not isinstance(value, dict):
        at.wrong(f"is {kind(value)}, not a table")
        return {}
    for key, item in value.items():
        here = at.key(key)
        if key in SECRET_KEYS or (is_secret(key) and not key.endswith("-config-secret")):
            here.wrong(f"secrets do not belong in this file: use {SECRET_KEYS.get(key, 'a file')}")
        elif key in MANAGED_KEYS:
            here.wrong(f"k3s-bake writes this key itself: use {MANAGED_KEYS[key]}")
        elif not re.fullmatch(r"[a-z][a-z0-9-]*", key):
            here.wrong("is not a K3s key: those are a flag's name without --, in lower case with dashes")
        elif not all(_fits_yaml(one) for one in (item if isinstance(item, list) else [item])):
            here.wrong(f"K3s takes text, numbers, true, false and lists of them, not {kind(item)} like this")
    return value


def _fits_yaml(value: object) -> bool:
    return isinstance(value, (str, int)) or (isinstance(value, float) and isfinite(value))


def _env(at: At, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        at.wrong(f"is {kind(value)}, not a table")
        return {}
    for key, item in value.items():
        here = at.key(key)
        flag = key.removeprefix("K3S_").lower().replace("_", "-") if key.startswith("K3S_") else ""
        if is_secret(key) or flag in SECRET_KEYS:
            here.wrong(f"secrets do not belong in this file: use {SECRET_KEYS.get(flag, 'a file')}")
        elif key == "K3S_URL" or flag in MANAGED_KEYS:
            here.wrong(f"k3s-bake sets this itself: use {MANAGED_KEYS.get(flag, '--server')}")
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            here.wrong("is not a variable's name")
        elif not isinstance(item, str) or not item.isprintable():
            here.wrong(f"is {kind(item)}, not one line of text")
    return value


def read_psk(path: Path) -> str:
    """A Wi-Fi password from its file. UserError where it cannot be one, or others may read it."""
    secret = read_secret(path)
    if not re.fullmatch(rb"[ -~]{8,63}|[0-9A-Fa-f]{64}", secret):  # IEEE 802.11i: passphrase or key
        raise UserError(f"{path} is no Wi-Fi password", "8 to 63 plain characters, or 64 hexadecimal digits")
    return secret.decode("ascii")


def read_token(path: Path) -> bytes:
    """A K3s token from its file. UserError where it is not in the K10 form, or others may read it."""
    token = read_secret(path).strip()
    check_token(token)
    return token


def _ssid(given: str) -> str:
    if not given:
        raise UserError("is empty")
    if len(given.encode()) > 32:
        raise UserError("is longer than 32 bytes, which no network's name is")
    return given


def _wifi(at: At, value: object) -> Wifi | None:
    found = _WIFI(at, value)
    if not all(found.get(key) for key in ("country", "ssid", "psk_file")):  # noted already
        return None
    return Wifi(found["country"], found["ssid"], found["psk_file"])


def _node(at: At, value: object) -> dict[str, Any]:
    """Keyword arguments of a NodeEntry."""
    found: dict[str, Any] = _NODE(at, value)
    address = _address(at, found)
    k3s = found.pop("k3s", {})
    if found.get("role") is Role.WORKER:
        known = AGENT_KEYS | MANAGED_KEYS.keys() | SECRET_KEYS.keys()  # the latter two are refused already
        for key in k3s.get("config", {}):
            if key not in known:
                at.key("k3s").key("config").key(key).wrong("a worker's K3s does not take this key")
    return {**found, **k3s, **({"address": address} if address else {})}


def _address(at: At, found: dict[str, Any]) -> StaticAddress | None:
    """Takes what belongs to an address out of a node's values."""
    keys = ("address", "gateway", "dns", "interface")
    given = {key: found.pop(key) for key in keys if key in found}
    if given and "address" not in given:
        at.key(next(iter(given))).wrong("goes with an address, and there is none")
    elif given and "gateway" not in given:
        at.key("gateway").wrong("is missing: an address needs one")
    elif given.get("address") and given.get("gateway"):
        network = ipaddress.IPv4Interface(given["address"]).network
        if ipaddress.ip_address(given["gateway"]) not in network:
            at.key("gateway").wrong(f"{given['gateway']} is not in {network}")
            return None
        try:
            return StaticAddress(**given)
        except UserError as error:
            at.refused(error)
    return None


def _cluster(at: At, value: object) -> dict[str, Any]:
    """Keyword arguments of a ClusterFile."""
    found: dict[str, Any] = _CLUSTER(at, value)
    if "token_file" in found:
        found["token"] = found.pop("token_file")
    if "authorized_keys" in found:
        found["authorized_keys"] = tuple(key for keys in found["authorized_keys"] for key in keys)
    return found


_USER = matching(r"[a-z_][a-z0-9_-]{0,31}", "a user's name")
_TIMEZONE = matching(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", "a time zone, like Europe/Berlin")
_K3S: dict[str, Check] = {"config": _config, "env": _env}
_WIFI = table(
    {
        "country": matching(r"[A-Z]{2}", "a country's code, like DE"),
        "ssid": valid(_ssid),
        "psk_file": path_to(read_psk),
    },
    required=("country", "ssid", "psk_file"),
)
_NODE = table(
    {
        "name": valid(lambda given: check_label(given, "node name")),
        "role": valid(_role),
        "labels": _labels,
        "taints": each(_TAINT, '["key=value:NoSchedule"]'),
        "address": valid(_interface_address),
        "gateway": valid(_ip),
        "dns": each(valid(_ip), '["10.0.0.1"]'),
        "interface": matching(r"[^\s/]{1,15}", "a network interface, like eth0"),
        "user": _USER,
        "host": matching(r"[^\s@/]+", "a host's name or address"),
        "timezone": _TIMEZONE,
        "k3s": table(_K3S),
    },
    required=("role",),
)
_CLUSTER = table(
    {
        "name": valid(lambda given: check_label(given, "cluster name")),
        "k3s": name_or_path,
        "k3s_version": valid(lambda given: str(K3sVersion.parse(given))),
        "base": name_or_path,
        "airgap": name_or_path,
        "datastore": valid(_datastore),
        "registries": path_to(read_file),
        "network": valid(check_network),
        "containerd": each(path_to(existing_file), '["containerd.deb"]'),
        "timezone": _TIMEZONE,
        "user": _USER,
        "authorized_keys": each(public_keys, '["id_ed25519.pub"]'),
        "server": matching(r"https://[^\s/]+:\d+", "a master's URL, like https://10.0.0.2:6443"),
        "token_file": path_to(read_token),
        "wifi": _wifi,
    }
)
FILE = table({"cluster": _cluster, "node": each(_node, "[[node]]"), "k3s": table(_K3S)})
