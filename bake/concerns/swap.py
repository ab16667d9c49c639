"""Swap off: the scheduler counts memory, and an SD card is no place for it.

Each mechanism is masked or commented out, never deleted, so that the manifest tells how to turn it on again.
"""

import re
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.fstab import without_swap
from bake.spec import NodeSpec
from firstboot.edits import Edit, Link, Remove, Write
from firstboot.snapshot import Probe

_UNITS = "/etc/systemd/system"
_MASKED = {
    "dphys-swapfile": ("dphys-swapfile.service",),
    "zram-tools": ("zramswap.service",),
    "systemd-zram-generator": ("dev-zram0.swap", "systemd-zram-setup@zram0.service"),
}
"""Per package, the units that bring swap up; a mask also covers an init script of the same name."""

_RPI_SWAP = "/etc/rpi/swap.conf.d/90-k3s-bake.conf"

PROBES = (
    Probe("/etc/fstab"),
    Probe("/etc/dphys-swapfile"),
    Probe("/var/swap", "head"),
    Probe(_RPI_SWAP),
    *(Probe(f"{_UNITS}/{unit}") for units in _MASKED.values() for unit in units),
    *(Probe(f"{_UNITS}/multi-user.target.wants/{unit}") for units in _MASKED.values() for unit in units),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    for package, units in _MASKED.items():
        for unit in units if facts.has(package) else ():
            yield Remove(f"{_UNITS}/multi-user.target.wants/{unit}")
            yield Link(f"{_UNITS}/{unit}", "/dev/null")
    if facts.has("dphys-swapfile"):
        yield from _swap_file(facts)
    if facts.has("rpi-swap"):
        yield Write(_RPI_SWAP, b"# Written by k3s-bake.\n[Main]\nMechanism=none\n")
    fstab = facts.text("/etc/fstab") or ""
    if without_swap(fstab) != fstab:
        yield facts.rewritten("/etc/fstab", without_swap(fstab))


def _swap_file(facts: NodeFacts) -> Iterator[Edit | Note]:
    """dphys-swapfile makes its file anew whenever it is turned on, so nothing of it is lost."""
    named = re.findall(r"^CONF_SWAPFILE=(\S+)", facts.text("/etc/dphys-swapfile") or "", re.MULTILINE)
    if named and named[-1] != "/var/swap":
        yield Note(f"dphys-swapfile's own file, {named[-1]}, stays; it is not used any more")
    yield Remove("/var/swap")
