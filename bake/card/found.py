"""The block devices of this machine, judged."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bake import process
from bake.card.devices import COLUMNS, Device, Judged, judge, parse, with_backing, without_boot_areas

_MOUNTS = Path("/proc/self/mountinfo")
_SWAPS = Path("/proc/swaps")
_SYS = Path("/sys/dev/block")


def devices() -> list[Judged]:
    """All whole ones, cards or not. WorkFailed where lsblk is not there, or says nothing that makes sense."""
    process.require("lsblk")
    said = process.run("lsblk", "--json", "--bytes", "--tree", "--output", ",".join(COLUMNS))
    judged = without_boot_areas(judge([_known(one) for one in parse(said)], _in_use()))
    loops = {one.device.number: _identity(one.device.model) for one in judged if one.device.kind == "loop"}
    return with_backing(judged, {number: what for number, what in loops.items() if what}, _swap_files())


def _known(top: Device) -> Device:
    """With what lsblk does not say. A loop device has no model: a person knows it by what it stands for."""
    model = _sys(top, "loop/backing_file") if top.kind == "loop" else top.model
    return replace(top, model=model, sequence=_sys(top, "diskseq"))


def _sys(device: Device, what: str) -> str:
    try:
        with (_SYS / device.number / what).open(encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().rstrip("\n")
    except OSError:
        return ""


def _identity(path: str) -> str:
    """Of a file, by its file system and inode; of a device its ``major:minor``; empty where it is gone."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a name with an odd byte)
    except OSError:
        return ""
    if stat.S_ISBLK(status.st_mode):
        return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"{status.st_dev}/{status.st_ino}"


def _in_use() -> Iterator[str]:
    """``major:minor`` of what is mounted or swapped to: lsblk asks udev, which may not know yet."""
    for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        yield line.split()[2]
    yield from (one for one in _swaps() if "/" not in one)


def _swap_files() -> Iterator[str]:
    yield from (one for one in _swaps() if "/" in one)


def _swaps() -> Iterator[str]:
    for line in _SWAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        if identity := _identity(line.split()[0]):
            yield identity
