"""The block devices of this machine, judged."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bake import process
from bake.card.devices import COLUMNS, Judged, judge, parse, without_boot_areas

_MOUNTS = Path("/proc/self/mountinfo")
_BACKING = "/sys/dev/block/{}/loop/backing_file"
_SWAPS = Path("/proc/swaps")


def devices() -> list[Judged]:
    """All whole ones, cards or not. WorkFailed where lsblk is not there, or says nothing that makes sense."""
    process.require("lsblk")
    said = process.run("lsblk", "--json", "--bytes", "--tree", "--output", ",".join(COLUMNS))
    return [_told(one) for one in without_boot_areas(judge(parse(said), _in_use()))]


def _told(one: Judged) -> Judged:
    """A loop device has no model: what it stands for is what a person knows it by."""
    if one.device.kind != "loop":
        return one
    return replace(one, device=replace(one.device, model=backing_file(one.device.number)))


def backing_file(number: str) -> str:
    """Of a loop device by its ``major:minor``; empty for anything else."""
    try:
        with Path(_BACKING.format(number)).open(encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().rstrip("\n")
    except OSError:
        return ""


def _in_use() -> Iterator[str]:
    """``major:minor`` of what is mounted or swapped to: lsblk asks udev, which may not know yet."""
    for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        yield line.split()[2]
    for line in _SWAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        try:
            number = os.stat(line.split()[0]).st_rdev  # noqa: PTH116 (a name with an odd byte)
        except OSError:
            continue
        yield f"{os.major(number)}:{os.minor(number)}"
