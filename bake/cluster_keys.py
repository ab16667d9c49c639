"""The keys of ``cluster.toml`` and what each may hold: the tables at the end are the list."""

import re
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from bake.cluster_checks import (
    At,
    Check,
    each,
    existing_file,
    flag,
    is_secret,
    kind,
    matching,
    name_or_path,
    path_to,
    public_keys,
    read_file,
    read_secret,
    table,
    text,
    valid,
)
from bake.k3s_keys import AGENT_KEYS, MANAGED_KEYS, SECRET_KEYS
from bake.k3s_version import K3sVersion
from bake.labels import check_node_label, check_taint
from bake.spec import (
    Datastore,
    ExternalDatastore,
    Role,
    StaticAddress,
    Wifi,
    check_address,
    check_label,
    check_network,
    check_server,
    check_token,
    check_variable,
)
from firstboot.errors import UserError


def _role(given: str) -> Role:
    if given not in list(Role):
        raise UserError(f"{given!r} is neither master nor worker")
    return Role(given)


def _datastore(given: str) -> Datastore | ExternalDatastore:
    if given in list(Datastore):
        return Datastore(given)
    if re.fullmatch(r"[A-Za-z0-9-]{1,20}", given):
        raise UserError(f"{given!r} is neither sqlite nor etcd", "or like postgres://k3s@10.0.0.9:5432/k3s")
    return ExternalDatastore(given)


def _labels(at: At, value: object) -> tuple[str, ...]:
    if not isinstance(value, dict):
        labels: tuple[str, ...] = each(valid(check_node_label), '["key=value"] or { key = "value" }')(
            at, value
        )
        return labels
    for key, item in value.items():
        if isinstance(item, str):
            valid(check_node_label)(at.key(key), f"{key}={item}")
        else:
            at.key(key).wrong(f"is {kind(item)}, not text: write it in quotes")
    return tuple(f"{key}={item}" for key, item in value.items())


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
            here.wrong(f"k3s-bake settles this itself: use {MANAGED_KEYS[key]}")
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
            here.wrong(f"k3s-bake settles this itself: use {MANAGED_KEYS.get(flag, '--server')}")
        elif not isinstance(item, str):
            here.wrong(f"is {kind(item)}, not text: write it in quotes")
        else:
            try:
                check_variable(key, item)
            except UserError as error:
                here.refused(error)
    return value


def read_psk(path: Path) -> str:
    """A Wi-Fi password from its file, which Wifi will check. UserError where others may read it."""
    return read_secret(path).decode("utf-8", "surrogateescape")


def read_token(path: Path) -> bytes:
    """A K3s token from its file. UserError where it is not in the K10 form, or others may read it."""
    token = read_secret(path).strip()
    check_token(token)
    return token


def read_password(path: Path) -> str:
    """A datastore's password from its file. UserError where it is no text, or others may read it."""
    try:
        return read_secret(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} does not hold text in UTF-8", "put the password into it") from error


def _wifi(at: At, value: object) -> Wifi | None:
    found = _WIFI(at, value)
    if not all(found.get(key) for key in ("country", "ssid", "psk_file")):  # noted already
        return None
    try:
        return Wifi(found["country"], found["ssid"], found["psk_file"])
    except UserError as error:
        at.refused(error)
        return None


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
    elif given and all([*(given[key] for key in given if key != "dns"), *given.get("dns", ())]):
        try:
            return StaticAddress(**given)
        except UserError as error:
            at.key("address").refused(error)
    return None


def _cluster(at: At, value: object) -> dict[str, Any]:
    """Keyword arguments of a ClusterFile."""
    found: dict[str, Any] = _CLUSTER(at, value)
    if "token_file" in found:
        found["token"] = found.pop("token_file")
    if "authorized_keys" in found:
        found["authorized_keys"] = tuple(key for keys in found["authorized_keys"] for key in keys)
    if "datastore_password_file" in found:
        _add_password(at, found, found.pop("datastore_password_file"))
    return found


def _add_password(at: At, found: dict[str, Any], password: str | None) -> None:
    """To the datastore among a cluster's values."""
    datastore, here = found.get("datastore", Datastore.SQLITE), at.key("datastore_password_file")
    if isinstance(datastore, Datastore):
        here.wrong("goes with a database that datastore names, and there is none")
    elif isinstance(datastore, ExternalDatastore) and password is not None:
        try:
            found["datastore"] = replace(datastore, password=password)
        except UserError as error:
            here.refused(error)


_USER = matching(r"[a-z_][a-z0-9_-]{0,31}", "a user's name")
_JUMP = matching(r"[^\s@/,]+(@[^\s@/,]+)?(,[^\s@/,]+(@[^\s@/,]+)?)*", "a jump host, like pi@gateway")
_TIMEZONE = matching(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", "a time zone, like Europe/Berlin")
_K3S: dict[str, Check] = {"config": _config, "env": _env}
_WIFI = table(
    {
        "country": text,
        "ssid": text,
        "psk_file": path_to(read_psk),
    },
    required=("country", "ssid", "psk_file"),
)
_NODE = table(
    {
        "name": valid(lambda given: check_label(given, "node name")),
        "role": valid(_role),
        "labels": _labels,
        "taints": each(valid(check_taint), '["key=value:NoSchedule"]'),
        "address": text,
        "gateway": text,
        "dns": each(text, '["10.0.0.1"]'),
        "interface": text,
        "user": _USER,
        "host": matching(r"[^\s@/]+", "a host's name or address"),
        "jump": _JUMP,
        "timezone": _TIMEZONE,
        "join": flag,
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
        "datastore_password_file": path_to(read_password),
        "registries": path_to(read_file),
        "network": valid(check_network),
        "containerd": each(path_to(existing_file), '["containerd.deb"]'),
        "timezone": _TIMEZONE,
        "user": _USER,
        "jump": _JUMP,
        "authorized_keys": each(public_keys, '["id_ed25519.pub"]'),
        "server": valid(check_server),
        "token_file": path_to(read_token),
        "master": valid(check_address),
        "wifi": _wifi,
    }
)
FILE = table({"cluster": _cluster, "node": each(_node, "[[node]]"), "k3s": table(_K3S)})
