"""What the card brought along, taken from its FAT to where it belongs. Every step can be done again.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import os
from pathlib import Path
from typing import List, Mapping, Optional

from firstboot import network
from firstboot.addresses import StaticAddress
from firstboot.contract import (
    CREDENTIAL,
    CREDENTIAL_BYTES,
    HOST_CERTIFICATE,
    HOST_KEY,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    NAME,
    Credential,
    NodeConfig,
)
from firstboot.edits import Edit, Write
from firstboot.node import Node


def take(node: Node, config: NodeConfig) -> bool:
    """Move it to where only root can read it, and make its address the node's.

    Whether a key to join with is there now. Only when all is safe there it is wiped on the FAT.
    """
    path = node.at(config.boot) / CREDENTIAL
    try:
        with path.open("rb") as stream:
            brought = stream.read(CREDENTIAL_BYTES + 1)
    except OSError:
        brought = b""
    found = Credential.from_bytes(brought)
    changed = False
    if found is not None:
        node.write(credential_files(found))
        changed = _write_address(node, config.network_manager, found.static_address)
        os.sync()
    there = bool(node.text(JOIN_KEY) and node.text(JOIN_CERTIFICATE))
    # Before it is wiped, and whether or not anything has changed just now: the agent may have been stopped
    # between the two. A card without a key is looked at again and again: only what is new counts there.
    if found is not None and (there or changed):
        _use_address(node, config.network_manager, found.static_address)
    if there and brought:  # or what a power cut has left of it
        _wipe(path)
    return there


def credential_files(found: Credential) -> List[Edit]:
    """Where only root can read it."""
    files: Mapping[str, Optional[str]] = {
        JOIN_CERTIFICATE: found.join_certificate,
        HOST_CERTIFICATE: found.host_certificate,
        HOST_KEY: found.host_key,
        JOIN_KEY: found.join_key,
        NAME: found.name and f"{found.name}\n",
    }
    return [
        Write(path, text.encode("ascii", "replace"), 0o600, secret=True)
        for path, text in files.items()
        if text
    ]


def _write_address(node: Node, manager: Optional[str], address: Optional[StaticAddress]) -> bool:
    """Whether anything had to change."""
    if address is None or manager is None or network.refusal(manager, address):
        return False
    return node.write(network.edits(manager, address, node.read(network.PROBES)))


def _use_address(node: Node, manager: Optional[str], address: Optional[StaticAddress]) -> None:
    if address is None:
        return
    refusal = network.refusal(manager, address)
    if manager is None or refusal:
        print(f"the card's own address {address.address} is not set: {refusal}", flush=True)  # noqa: T201
        return
    for command in network.commands(manager, address):
        node.order(*command)


def _wipe(path: Path) -> None:
    """Overwrite in place, then delete. Where the card takes no more writes, the node works all the same."""
    with contextlib.suppress(OSError):
        with path.open("r+b") as stream:
            stream.write(b" " * CREDENTIAL_BYTES)
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()
        os.sync()
