"""From options, and the cluster.toml they complete, to the values of a node and its parts."""

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bake import cluster_file
from bake.cluster_checks import read_file, read_public_keys
from bake.cluster_file import ClusterFile
from bake.cluster_keys import read_psk, read_token
from bake.engine import Engine
from bake.spec import Datastore, Role, StaticAddress, Wifi
from firstboot.errors import UserError

engine_option = click.option(
    "--engine",
    type=click.Choice([engine.value for engine in Engine]),
    default=Engine.AUTO.value,
    show_default=True,
    help="What opens the image; auto is guestfs where KVM works, else e2fs.",
)

_PLAIN = ("cluster", "name", "server", "master", "join", "network", "user", "timezone", "ssh")
_PARTS = ("base", "k3s", "k3s_version", "airgap")


def node_values(given: Mapping[str, Any], file: ClusterFile | None) -> dict[str, Any]:
    """Values of NodeSpec: the file's, and over them the options that were given.

    UserError for a file that cannot be read, or for a secret that others can read.
    """
    role = Role(given["role"]) if given["role"] else None
    values = cluster_file.values_for(file, role, given["name"])
    values |= {name: given[name] for name in _PLAIN if given[name] is not None}
    if given["datastore"]:
        values["datastore"] = Datastore(given["datastore"])
    if given["label"]:
        values["labels"] = given["label"]
    if given["taint"]:
        values["taints"] = given["taint"]
    if given["authorized_key"]:
        values["authorized_keys"] = tuple(
            key for path in given["authorized_key"] for key in read_public_keys(path)
        )
    if given["registries"]:
        values["registries"] = read_file(given["registries"])
    if given["token_file"]:
        values["token"] = read_token(given["token_file"])
    return values | _wifi(given) | address_values(given)


def wish_values(given: Mapping[str, Any], file: ClusterFile | None) -> dict[str, Any]:
    """Values of Wish: which base and which parts."""
    values = cluster_file.parts_for(file)
    values |= {name: given[name] for name in _PARTS if given[name] is not None}
    if given["containerd"]:
        archives = [path for path in given["containerd"] if path != "embedded"]
        values["containerd"] = tuple(Path(path).expanduser() for path in archives)
    return values


def _wifi(given: Mapping[str, Any]) -> dict[str, Wifi]:
    if given["wifi_ssid"] is None:
        if given["wifi_country"] or given["wifi_psk_file"]:
            raise UserError("--wifi-country and --wifi-psk-file are for --wifi-ssid", "like --wifi-ssid home")
        return {}
    if given["wifi_country"] is None:
        raise UserError("Wi-Fi needs its country, or the radio stays off", "--wifi-country DE")
    if given["wifi_psk_file"]:
        psk = read_psk(given["wifi_psk_file"])
    else:
        Wifi(given["wifi_country"], given["wifi_ssid"], "0" * 64)  # refuses what is wrong before it asks
        if not sys.stdin.isatty():
            raise UserError("no terminal to ask for the Wi-Fi's password in", "--wifi-psk-file takes it.")
        psk = _asked(given["wifi_ssid"])
    return {"wifi": Wifi(given["wifi_country"], given["wifi_ssid"], psk)}


@functools.cache
def _asked(ssid: str) -> str:
    """Once, however many nodes are made."""
    password: str = click.prompt(f"Password of {ssid}", hide_input=True, err=True)
    return password


def address_values(given: Mapping[str, Any]) -> dict[str, StaticAddress]:
    """Of the options --address, --gateway, --dns and --interface. UserError where they do not go together."""
    if given["address"] is None:
        if given["gateway"] or given["dns"] or given["interface"]:
            raise UserError(
                "--gateway, --dns and --interface are for --address", "like --address 10.0.0.3/24"
            )
        return {}
    if given["gateway"] is None:
        raise UserError("a static address needs a gateway", "like --gateway 10.0.0.1")
    address = StaticAddress(
        given["address"], given["gateway"], given["dns"], given["interface"] or StaticAddress.interface
    )
    return {"address": address}
