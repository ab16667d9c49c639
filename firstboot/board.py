"""What the board is, and whether K3s can run on it. Pure but for ``read``.

Runs on the node too: Python 3.7, standard library only.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple, Optional

from firstboot import contract  # for an annotation alone: carried, it is not compiled for that


class Board(NamedTuple):
    machine: str
    """As ``uname -m`` says: ``armv7l``."""
    serial: str
    reason: str
    """Why K3s cannot run on it: a code of contract.REASONS, or empty."""


def read(root: str = "/") -> Board:
    """From /proc and /sys of this board; its image does not tell: Raspbian is for ARMv6 throughout."""
    machine = os.uname().machine
    serial = serial_of(
        _text(root, "proc/device-tree/serial-number"),
        _text(root, "proc/cpuinfo"),
        _text(root, "etc/machine-id"),
    )
    controllers = _text(root, "sys/fs/cgroup/cgroup.controllers")
    if machine == "armv6l":
        return Board(machine, serial, "armv6")
    if not has_memory_cgroup(controllers, _text(root, "proc/cgroups") or ""):
        return Board(machine, serial, "no-memory-cgroup")
    return Board(machine, serial, "")


def serial_of(device_tree: Optional[str], cpuinfo: Optional[str], machine_id: Optional[str]) -> str:
    """The board's own number; where it has none (a virtual machine), that of its system."""
    in_cpuinfo = re.search(r"^Serial\s*: *(\w+)", cpuinfo or "", re.MULTILINE)
    for text in (device_tree, in_cpuinfo.group(1) if in_cpuinfo else None, machine_id):
        serial = re.sub(r"[^0-9a-zA-Z]", "", text or "")[:64].lower()
        if serial.strip("0"):
            return serial
    return ""


def has_memory_cgroup(controllers: Optional[str], cgroups: str) -> bool:
    """``controllers``: those of cgroup v2; None where the kernel uses v1, of which /proc/cgroups tells."""
    if controllers is not None:
        return "memory" in controllers.split()
    return bool(re.search(r"^memory\s.*\s1$", cgroups, re.MULTILINE))


def name_of(config: "contract.NodeConfig", brought: str, serial: str) -> str:
    """The node's name: brought by the card, else given at bake, else made of the board's number."""
    given = brought or config.name
    if given:
        return given
    if not config.joins:
        return f"{config.cluster}-{config.role}"
    return f"{config.cluster}-{serial[-6:] or 'node'}"


def _text(root: str, path: str) -> Optional[str]:
    try:
        with Path(root, path).open(encoding="ascii", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None
