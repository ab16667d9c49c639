"""A NodeSpec as JSON, without its secrets: for the node's record and the manifest.

Read back, each secret is a stand-in: enough to plan with, and to see that something is there.
"""

import dataclasses
import json
from collections.abc import Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from bake.k3s_version import K3sVersion
from bake.spec import ExternalDatastore, NodeSpec, Wifi
from firstboot.contract import Credential
from firstboot.errors import UserError

_STAND_INS: dict[str, Any] = {
    "token": b"K10" + b"0" * 64 + b"::server:unknown",
    "registries": b"#",
    "env": {"UNKNOWN": ""},
    "credential": Credential(),
}
"""Valid values in the place of secrets."""

_OF_ONE_BAKE = {"not_before"}


def to_json(spec: NodeSpec) -> dict[str, Any]:
    """All of a spec but its secrets, of which it says only which there are."""
    data: dict[str, Any] = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in _STAND_INS.keys() | _OF_ONE_BAKE
    }
    data["k3s"] = {
        "binary": dataclasses.asdict(spec.k3s.binary),
        "version": spec.k3s.version and str(spec.k3s.version),
        "airgap": spec.k3s.airgap and dataclasses.asdict(spec.k3s.airgap),
    }
    data["containerd"] = spec.containerd and dataclasses.asdict(spec.containerd)
    data["first_boot"] = spec.first_boot and dataclasses.asdict(spec.first_boot)
    data["address"] = spec.address and dataclasses.asdict(spec.address)
    data["wifi"] = spec.wifi and {"country": spec.wifi.country, "ssid": spec.wifi.ssid}
    data["config"] = dict(spec.config)
    if spec.external is not None:
        data["datastore"] = {"url": spec.external.url}
    data["secrets"] = sorted(name for name in _STAND_INS if getattr(spec, name))
    return data


def loads(text: str) -> NodeSpec:
    """UserError as from_json, and for what is no JSON."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("the node's record is garbled", "Bake the image again.") from error
    return from_json(data)


def from_json(data: object) -> NodeSpec:
    """The spec that to_json wrote, with stand-ins for its secrets. UserError for anything else."""
    try:
        values = dict(_expect(dict, data))
        secrets = {name: _STAND_INS[name] for name in _value(tuple[str, ...], values.pop("secrets"))}
        if values.keys() & (_STAND_INS.keys() | _OF_ONE_BAKE):
            raise ValueError("it holds what no record holds")
        return NodeSpec(**_fields(NodeSpec, values), **secrets)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the node's record is garbled: {error}", "Bake the image again.") from error


def _fields(kind: Any, data: object) -> dict[str, Any]:
    """Keyword arguments for a dataclass, each as its annotation says. KeyError for one it does not have."""
    kinds = get_type_hints(kind)
    return {name: _value(kinds[name], value) for name, value in _expect(dict, data).items()}


def _value(kind: Any, value: Any) -> Any:
    """What JSON's value is as a ``kind``. TypeError or ValueError where it is none."""
    form, parts = get_origin(kind), get_args(kind)
    if form is UnionType:  # 'kind | None', or 'Datastore | ExternalDatastore'
        if value is None and NoneType in parts:
            return None
        return _value(parts[1] if type(value) is dict and NoneType not in parts else parts[0], value)
    if form is tuple:
        items = _expect(list, value)
        several = parts[:1] * len(items) if parts[-1] is Ellipsis else parts
        return tuple(_value(part, item) for part, item in zip(several, items, strict=True))
    if form is Mapping:  # config: K3s's own keys
        json.dumps(_expect(dict, value), ensure_ascii=False).encode("utf-8", "surrogateescape")
        return value
    if kind is K3sVersion:
        return K3sVersion.parse(_expect(str, value))
    if dataclasses.is_dataclass(kind):
        return kind(**_fields(kind, value), **_hidden(kind, value))  # type: ignore[operator]
    return kind(_expect(str, value)) if issubclass(kind, StrEnum) else _expect(kind, value)


def _hidden(kind: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    """A stand-in for the secret in a dataclass that has one."""
    if kind is Wifi:
        return {"psk": "0" * 64}
    if kind is ExternalDatastore and not str(value.get("url")).startswith("http"):
        return {"password": "unknown"}
    return {}


def _expect(kind: Any, value: Any) -> Any:
    if type(value) is not kind:  # not isinstance: true is no number
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    if kind is str:
        value.encode("utf-8", "surrogateescape")  # UnicodeError, a ValueError, where no file could hold it
    return value
