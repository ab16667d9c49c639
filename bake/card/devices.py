"""Which block devices are cards, and which must never be written. Pure, over what lsblk tells.

What the system stands on is refused whatever a person says; what is likely no card is to be named twice.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from firstboot.errors import WorkFailed

COLUMNS = (
    *("NAME", "PATH", "TYPE", "SIZE", "MODEL", "SERIAL", "TRAN", "RM", "HOTPLUG", "RO"),
    *("MOUNTPOINTS", "FSTYPE", "LABEL", "UUID", "MAJ:MIN"),
)
"""Of ``lsblk --json --bytes --tree --output``."""

LARGE = 256 << 30
"""Bytes: larger cards exist, but hardly anybody puts one in a Pi, and disks begin there."""

_WHOLE = frozenset({"disk", "loop"})
_MEMBERS = {
    "LVM2_member": "LVM",
    "linux_raid_member": "a RAID",
    "zfs_member": "a ZFS pool",
    "crypto_LUKS": "an encrypted disk (LUKS)",
    "bcache": "bcache",
    "ddf_raid_member": "a RAID",
    "isw_raid_member": "a RAID",
    "ceph_bluestore": "Ceph",
}
"""What lies on a device by its signature, that is no file system of its own."""

_UNSEEN = frozenset({"zfs_member", "ceph_bluestore"})
"""In use without a mount or a child that lsblk shows."""

_OTHER_SYSTEMS = {"ntfs": "Windows", "BitLocker": "Windows (BitLocker)", "apfs": "macOS", "hfsplus": "macOS"}


class Verdict(StrEnum):
    CARD = "card"
    DOUBTFUL = "doubtful"
    """Needs ``--force``, or its name typed."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Device:
    """A node of lsblk's tree."""

    name: str
    path: str
    kind: str
    size: int
    """Bytes; 0 for a reader without a card."""
    number: str
    """``major:minor``."""
    model: str = ""
    serial: str = ""
    transport: str = ""
    """``usb``, ``mmc``, ``sata``, ``nvme``; empty for what lsblk does not know."""
    removable: bool = False
    read_only: bool = False
    mounts: tuple[str, ...] = ()
    """``[SWAP]`` among them."""
    holds: str = ""
    """The file system, or the signature of something else."""
    label: str = ""
    uuid: str = ""
    sequence: str = ""
    """Another one for each card in the same reader (the kernel's diskseq); empty where it does not count."""
    children: tuple["Device", ...] = field(default=(), repr=False)

    def all(self) -> Iterator["Device"]:
        """Itself, and all that is on it."""
        yield self
        for child in self.children:
            yield from child.all()


@dataclass(frozen=True)
class Judged:
    device: Device
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Why not, what weighs most first; empty for a card."""


def parse(text: str) -> list[Device]:
    """The top of lsblk's tree. WorkFailed for what lsblk does not say."""
    try:
        return [_device(one) for one in json.loads(text)["blockdevices"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WorkFailed(
            "lsblk says nothing that makes sense", "Is util-linux 2.37 or newer there?"
        ) from error


def judge(tops: Sequence[Device], mounted: Iterable[str]) -> list[Judged]:
    """Every whole device. ``mounted``: ``major:minor`` of what the kernel has mounted or swaps to."""
    numbers = frozenset(mounted)
    every = [device for top in tops for device in top.all()]
    in_use = frozenset(one.uuid for one in every if one.uuid and (one.mounts or one.number in numbers))
    return [_judged(top, numbers, in_use) for top in tops]


def _judged(top: Device, numbers: frozenset[str], in_use: frozenset[str]) -> Judged:
    never = list(dict.fromkeys(_never(top, numbers, in_use)))
    if never:
        return Judged(top, Verdict.REFUSED, tuple(never))
    doubts = () if top.kind == "loop" else tuple(dict.fromkeys(_doubts(top)))
    return Judged(top, Verdict.DOUBTFUL if doubts else Verdict.CARD, doubts)


def _never(top: Device, numbers: frozenset[str], in_use: frozenset[str]) -> Iterator[str]:
    for one in top.all():
        for mount in one.mounts:
            yield f"{one.name} is swapped to" if mount == "[SWAP]" else f"{one.name} is mounted on {mount}"
        if one.number in numbers and not one.mounts:
            yield f"{one.name} is in use"
        elif one.uuid and one.uuid in in_use and not one.mounts:
            yield f"{one.name} is part of a file system that is mounted"
        if one.holds in _UNSEEN:
            yield f"{one.name} belongs to {_MEMBERS[one.holds]}"
        if one is not top and one.kind != "part":  # LVM, crypt, RAID, bcache, and what is still to come
            yield f"{one.name} ({one.kind}) is made of it"
    if top.kind not in _WHOLE or top.name.startswith(("zram", "ram", "nbd", "md", "dm-")):
        yield f"it is no disk ({top.kind})" if top.kind not in _WHOLE else "it is no disk"
    if top.read_only:
        yield "it is write-protected"
    if top.size <= 0:
        yield "no card is in it" if top.kind != "loop" else "no file is behind it"


def _doubts(top: Device) -> Iterator[str]:
    slot = top.transport in ("usb", "mmc") or top.name.startswith("mmcblk") or top.removable
    if top.size > LARGE:
        yield f"it is large for a card: {top.size / 1e9:.0f} GB"
    if not slot:
        yield "it is built in" + (f" ({top.transport})" if top.transport else "")
    for one in top.all():
        if one.holds in _MEMBERS:
            yield f"{one.name} belongs to {_MEMBERS[one.holds]}"
        elif one.holds in _OTHER_SYSTEMS:
            yield f"{one.name} is of {_OTHER_SYSTEMS[one.holds]}"


def with_backing(
    judged: Sequence[Judged], backing: Mapping[str, str], swapped: Iterable[str]
) -> list[Judged]:
    """Loop devices, by what they stand for: O_EXCL does not tell that somebody else uses that.

    ``backing``: by the loop's ``major:minor`` the number of the device behind it, or for a file its identity,
    which has a slash in it. ``swapped``: identities of files that are swapped to.
    """
    used = {backing.get(one.device.number) for one in judged if one.verdict is Verdict.REFUSED}
    used |= set(swapped)
    return [_by_backing(one, backing.get(one.device.number), used) for one in judged]


def _by_backing(one: Judged, behind: str | None, used: Set[str | None]) -> Judged:
    if behind is None or one.verdict is Verdict.REFUSED:
        return one
    if "/" not in behind:
        return Judged(one.device, Verdict.REFUSED, ("it stands for a device, not for a file",))
    if behind in used:
        return Judged(one.device, Verdict.REFUSED, ("the file behind it is in use",))
    return one


def without_boot_areas(judged: Sequence[Judged]) -> list[Judged]:
    """An eMMC shows its boot areas as disks (``mmcblk0boot0``): no cards, and it is soldered in."""
    areas = {one.device.name for one in judged if _is_boot_area(one.device.name)}
    soldered = {name.partition("boot")[0] for name in areas}
    kept = []
    for one in judged:
        name = one.device.name
        if name in areas or name.endswith("rpmb"):
            continue
        if name in soldered and one.verdict is Verdict.CARD:
            one = Judged(one.device, Verdict.DOUBTFUL, ("it is built in (eMMC)",))
        kept.append(one)
    return kept


def _is_boot_area(name: str) -> bool:
    return name.startswith("mmcblk") and "boot" in name


def _device(row: Mapping[str, Any]) -> Device:
    return Device(
        name=str(row["name"]),
        path=str(row.get("path") or f"/dev/{row['name']}"),
        kind=str(row["type"]),
        size=int(row.get("size") or 0),
        number=str(row.get("maj:min") or "").strip(),
        model=str(row.get("model") or "").strip(),
        serial=str(row.get("serial") or "").strip(),
        transport=str(row.get("tran") or ""),
        removable=bool(row.get("rm")) or bool(row.get("hotplug")),
        read_only=bool(row.get("ro")),
        mounts=tuple(str(mount) for mount in row.get("mountpoints") or () if mount),
        holds=str(row.get("fstype") or ""),
        label=str(row.get("label") or ""),
        uuid=str(row.get("uuid") or ""),
        children=tuple(_device(child) for child in row.get("children") or ()),
    )
