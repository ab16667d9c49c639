"""The block map of an image (bmap 2.0, as bmaptool reads it): which blocks must be written to a card.

A block may be left out only where the file system's own bitmap says that it is free: a hole in the file may
be zeros that mean something, in a FAT or an inode table.
"""

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from bake.disk import Disk, Partition
from bake.process import run

BLOCK = 4096
_CHUNK = 4 << 20
_LONGEST = 32 << 20
"""Bytes: longer ranges are split, to be hashed side by side, and so that a bad one tells where it is."""
_PLACEHOLDER = "0" * 64  # the format's own checksum is over the file with this in its place

Range = tuple[int, int]
"""First byte, and the byte after the last."""


def mapped(image: Path, disk: Disk) -> list[Range]:
    """What must be written: all but free space, in whole blocks, ascending."""
    free = sorted([*_free_ext4(image, disk.root), *_free_fat(image, disk.boot)])
    size = image.stat().st_size
    ranges: list[Range] = []
    at = 0
    for start, end in [*free, (size, size)]:
        first, last = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK  # only whole blocks are free
        if start == size:
            first = size
        ranges += [(part, min(part + _LONGEST, first)) for part in range(at, first, _LONGEST)]
        at = max(at, last)
    return ranges


def _free_ext4(image: Path, part: Partition) -> Iterator[Range]:
    text = run("dumpe2fs", f"{image}?offset={part.start}")
    found = re.search(r"^Block size: +(\d+)", text, re.MULTILINE)
    block = int(found[1]) if found else BLOCK
    for listed in re.findall(r"^  Free blocks: (.+)$", text, re.MULTILINE):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", listed):
            yield part.start + int(first) * block, part.start + (int(last or first) + 1) * block


def _free_fat(image: Path, part: Partition) -> Iterator[Range]:
    """Free clusters of a FAT32. Smaller FATs are written whole: they are small."""
    with image.open("rb") as stream:
        stream.seek(part.start)
        boot = stream.read(512)
        sector, per_cluster, reserved, fats = struct.unpack_from("<HBHB", boot, 11)
        fat_size = struct.unpack_from("<I", boot, 36)[0]
        if struct.unpack_from("<H", boot, 22)[0]:  # sectors a FAT in FAT12 and FAT16; 0 in FAT32
            return
        stream.seek(part.start + reserved * sector)
        entries = struct.unpack(f"<{fat_size * sector // 4}I", stream.read(fat_size * sector))
    data = part.start + (reserved + fats * fat_size) * sector
    cluster = per_cluster * sector
    count = min(len(entries), 2 + (part.start + part.size - data) // cluster)
    start: int | None = None
    for number in range(2, count + 1):
        is_free = number < count and entries[number] & 0x0FFFFFFF == 0
        if is_free and start is None:
            start = number
        elif not is_free and start is not None:
            yield data + (start - 2) * cluster, data + (number - 2) * cluster
            start = None


def hashed(image: Path, ranges: Iterable[Range]) -> list[tuple[Range, str]]:
    """The sha256 of each range."""
    with image.open("rb") as stream, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(wanted: Range) -> tuple[Range, str]:
            start, end = wanted
            digest = hashlib.sha256()
            for at in range(start, end, _CHUNK):
                digest.update(os.pread(stream.fileno(), min(_CHUNK, end - at), at))
            return wanted, digest.hexdigest()

        return list(pool.map(one, ranges))


def document(size: int, ranges: list[tuple[Range, str]]) -> str:
    """The bmap file of an image of ``size`` bytes."""
    blocks = -(-size // BLOCK)
    count = sum(-(-(end - start) // BLOCK) for (start, end), _ in ranges)
    rows = "".join(
        f'        <Range chksum="{digest}"> {start // BLOCK}-{-(-end // BLOCK) - 1} </Range>\n'
        for (start, end), digest in ranges
    )
    text = (
        '<?xml version="1.0" ?>\n'
        '<bmap version="2.0">\n'
        f"    <ImageSize> {size} </ImageSize>\n"
        f"    <BlockSize> {BLOCK} </BlockSize>\n"
        f"    <BlocksCount> {blocks} </BlocksCount>\n"
        f"    <MappedBlocksCount> {count} </MappedBlocksCount>\n"
        "    <ChecksumType> sha256 </ChecksumType>\n"
        f"    <BmapFileChecksum> {_PLACEHOLDER} </BmapFileChecksum>\n"
        "    <BlockMap>\n"
        f"{rows}"
        "    </BlockMap>\n"
        "</bmap>\n"
    )
    return text.replace(_PLACEHOLDER, hashlib.sha256(text.encode()).hexdigest(), 1)


def describe(image: Path, disk: Disk) -> str:
    """The bmap file of an image."""
    return document(image.stat().st_size, hashed(image, mapped(image, disk)))


@dataclass(frozen=True)
class BlockMap:
    size: int
    """Of the image, bytes."""
    ranges: list[tuple[Range, str]]
    """What must be written, ascending, with the sha256 of each."""


def parse(text: str) -> BlockMap:
    """A bmap 2.0 file with sha256 sums, ours or bmaptool's. ValueError for anything else."""
    try:
        top = ElementTree.fromstring(text)  # noqa: S314 (expat bounds what entities can grow to)
        size, block = (int(top.findtext(key, "")) for key in ("ImageSize", "BlockSize"))
        own = top.findtext("BmapFileChecksum", "").strip()
        kind = top.findtext("ChecksumType", "").strip()
        rows = [((row.text or "").split("-"), row.get("chksum", "")) for row in top.iter("Range")]
        ranges = [((int(at[0]) * block, min(size, (int(at[-1]) + 1) * block)), sha) for at, sha in rows]
    except ElementTree.ParseError as error:
        raise ValueError("no XML") from error
    if kind != "sha256" or block % BLOCK:
        raise ValueError("no bmap 2.0 with sha256 sums")
    if hashlib.sha256(text.replace(own, _PLACEHOLDER, 1).encode()).hexdigest() != own:
        raise ValueError("its own checksum does not hold")
    ends = [0, *(end for (_, end), _ in ranges)]
    if (
        not ranges
        or ranges[0][0][0] != 0
        or any(s < e or s >= end for ((s, end), _), e in zip(ranges, ends, strict=False))
    ):
        raise ValueError("its ranges are no map of an image")
    return BlockMap(size, ranges)
