"""A NodeSpec as JSON, without its secrets: for the node's record and the manifest.

Read back, each secret is a stand-in: enough to plan with, and to see that something is there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bake.k3s_version import K3sVersion
from bake.spec import Containerd, Datastore, File, K3s, NodeSpec, Role, StaticAddress, Wifi
from firstboot.errors import UserError

_STAND_INS: dict[str, Any] = {
    "token": b"K10" + b"0" * 64 + b"::node:unknown",
    "registries": b"#",
    "env": {"UNKNOWN": ""},
}
"""Valid values in the place of secrets."""


def to_json(spec: NodeSpec) -> dict[str, Any]:
    """All of a spec but its secrets, of which it says only which there are."""
    data: dict[str, Any] = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in _STAND_INS
    }
    data["k3s"] = {
        "binary": dataclasses.asdict(spec.k3s.binary),
        "version": spec.k3s.version and str(spec.k3s.version),
        "airgap": spec.k3s.airgap and dataclasses.asdict(spec.k3s.airgap),
    }
    data["containerd"] = spec.containerd and dataclasses.asdict(spec.containerd)
    data["address"] = spec.address and dataclasses.asdict(spec.address)
    data["wifi"] = spec.wifi and {"country": spec.wifi.country, "ssid": spec.wifi.ssid}
    data["config"] = dict(spec.config)
    data["secrets"] = sorted(name for name in _STAND_INS if getattr(spec, name))
    return data


def from_json(data: Mapping[str, Any]) -> NodeSpec:
    """The spec that to_json wrote, with stand-ins for its secrets. UserError for anything else."""
    try:
        return _from_json(dict(data))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the node's record is garbled: {error}", "Bake the image again.") from error


def _from_json(values: dict[str, Any]) -> NodeSpec:
    secrets = {name: _STAND_INS[name] for name in values.pop("secrets")}
    k3s, containerd = values.pop("k3s"), values.pop("containerd")
    address, wifi = values.pop("address"), values.pop("wifi")
    for name in ("labels", "taints", "authorized_keys"):
        values[name] = tuple(values[name])
    return NodeSpec(
        role=Role(values.pop("role")),
        datastore=Datastore(values.pop("datastore")),
        k3s=K3s(
            File(**k3s["binary"]),
            k3s["version"] and K3sVersion.parse(k3s["version"]),
            k3s["airgap"] and File(**k3s["airgap"]),
        ),
        containerd=containerd and _containerd(containerd),
        address=address and StaticAddress(**dict(address, dns=tuple(address["dns"]))),
        wifi=wifi and Wifi(**wifi, psk="0" * 64),
        **values,
        **secrets,
    )


def _containerd(data: Mapping[str, Any]) -> Containerd:
    version = data["version"]
    return Containerd(tuple(File(**program) for program in data["programs"]), version and tuple(version))
