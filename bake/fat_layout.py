"""Where in an image the bytes of a file on its FAT are, so that it can be overwritten in place."""

import os
import re
import struct
from pathlib import Path

from bake.process import run
from firstboot.errors import WorkFailed

Place = tuple[int, int]
"""First byte in the image, and how many."""

_RANGE = re.compile(r"<(\d+)(?:-(\d+))?>")
_ROW = 32
"""Bytes of a folder's row; the top folder of a FAT12 or FAT16 lies before the clusters."""


def places(image: Path, start: int, path: str, size: int) -> list[Place]:
    """Of the file's first ``size`` bytes, in their order. ``start`` is the file system's first byte.

    WorkFailed where there is no such file, or it is shorter.
    """
    with image.open("rb") as stream:
        stream.seek(start)
        first, cluster = _clusters(stream.read(512))
        handle = stream.fileno()
        device = f"/proc/self/fd/{handle}@@{start}"  # mtools would take parts of a path for options
        env = {"MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": os.devnull}
        told = run("mshowfat", "-i", device, f"::/{path}", env=env, keep_open=[handle], no_terminal=True)
    found: list[Place] = []
    left = size
    for begin, end in _RANGE.findall(told):
        count = min(left, (int(end or begin) - int(begin) + 1) * cluster)
        if count:
            found.append((start + first + (int(begin) - 2) * cluster, count))
        left -= count
    if left:
        raise WorkFailed(f"{path} on the FAT of {image} has no {size} bytes", "Bake the image again.")
    return found


def _clusters(boot: bytes) -> tuple[int, int]:
    """Where in the file system cluster 2, the first, begins, and the size of one. Bytes.

    From Microsoft's specification of FAT, 'BIOS parameter block'.
    """
    sector, per_cluster, reserved, fats, rows = struct.unpack_from("<HBHBH", boot, 11)
    fat = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
    top = -(-rows * _ROW // sector) if sector else 0
    if not (sector and per_cluster and fat):
        raise WorkFailed("the boot partition is no FAT", "Bake the image again.")
    return (reserved + fats * fat + top) * sector, per_cluster * sector
