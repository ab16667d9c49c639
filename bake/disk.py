"""The disk in an image file: its partitions, what is on them, whether they are sound, and making it larger.

Nothing here mounts, needs root or writes, but for grow().
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bake.elf import HEAD, elf_machine
from bake.process import run, stream
from firstboot.errors import UserError, WorkFailed

SECTOR = 512
_ALIGN = 4 << 20  # bytes: an SD card's erase block, and what Raspbian's own images are aligned to

_REFUSED = {
    "crypto_LUKS": "an encrypted root",
    "LVM2_member": "LVM",
    "linux_raid_member": "software RAID",
    "btrfs": "btrfs",
    "f2fs": "F2FS",
    "xfs": "XFS",
}


@dataclass(frozen=True)
class Partition:
    number: int
    start: int
    """Bytes from the start of the image."""
    size: int
    """Bytes."""
    kind: str
    """As blkid names it: ``vfat``, ``ext4``; empty where it knows nothing there."""


@dataclass(frozen=True)
class Disk:
    table: str
    """``dos`` or ``gpt``."""
    boot: Partition
    root: Partition
    end: int
    """Byte after the last partition."""


def read_disk(image: Path) -> Disk:
    """The boot (FAT) and root (ext4) partitions of a raw image.

    Raises UserError for what is no such image, naming what it is as far as that can be seen.
    """
    if set(str(image)) & set("?\n"):  # e2fsprogs take what follows a '?' for options
        raise UserError(f"the path {image} holds a character that the tools cannot take", "Rename it.")
    size = image.stat().st_size
    table = _table(image)
    partitions = [_partition(image, entry) for entry in table.get("partitions", ())]
    for part in partitions:
        if part.start + part.size > size:
            raise UserError(
                f"{image} is truncated: partition {part.number} ends at byte {part.start + part.size}, "
                f"the file at {size}",
                "Download or copy it again.",
            )
    root = next((part for part in partitions if part.kind == "ext4"), None)
    if root is None:
        raise UserError(f"{image}: {_no_root(partitions)}", "k3s-bake edits images whose root is plain ext4.")
    boot = next((part for part in partitions if part.kind == "vfat"), None)
    if boot is None:
        raise UserError(
            f"{image} has no FAT partition, so a Raspberry Pi cannot boot it",
            "Use a Raspbian image; 'k3s-bake bases' lists known ones.",
        )
    return Disk(table["label"], boot, root, max(part.start + part.size for part in partitions))


def _table(image: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(run("sfdisk", "--json", str(image)))["partitiontable"]
    except WorkFailed as error:
        raise UserError(
            f"{image} has no partition table: it is not a card image",
            "Use the image of a whole card, not of a partition, nor a text.",
        ) from error
    return table


def _partition(image: Path, entry: dict[str, Any]) -> Partition:
    number = int(re.search(r"\d+$", entry["node"])[0])  # type: ignore[index]  # sfdisk: <image><number>
    start, size = entry["start"] * SECTOR, entry["size"] * SECTOR
    # Exit code 2: nothing known there. Ambiguity (8) is nothing we could work with either.
    kind = run(
        "blkid",
        "-p",
        "-O",
        str(start),
        "-S",
        str(size),
        "-o",
        "value",
        "-s",
        "TYPE",
        str(image),
        accept=(0, 2, 8),
    )
    return Partition(number, start, size, kind.strip())


def _no_root(partitions: list[Partition]) -> str:
    named = [_REFUSED[part.kind] for part in partitions if part.kind in _REFUSED]
    return f"its root is on {named[0]}" if named else "it has no ext4 partition"


def refuse_dirty(image: Path, disk: Disk) -> None:
    """UserError where a file system was not closed cleanly: the image of a card that was in use."""
    facts = _superblock(image, disk.root)
    clean = facts["Filesystem state"] == "clean" and "needs_recovery" not in facts["Filesystem features"]
    with image.open("rb") as stream:
        stream.seek(disk.boot.start)
        boot = stream.read(512)
    fat32 = boot[22:24] == b"\0\0"  # sectors of a small FAT: none in FAT32
    if not clean or boot[0x41 if fat32 else 0x25] & 1:  # bit 0: mounted, as Linux's vfat leaves it
        raise UserError(
            f"the {'FAT' if clean else 'root'} file system of {image} was not closed cleanly",
            "Use a fresh image, or boot the card once more and shut it down properly.",
        )


def free_room(image: Path, part: Partition) -> int:
    """Bytes that the root has free."""
    facts = _superblock(image, part)
    free = int(facts["Free blocks"]) - int(facts["Reserved block count"])
    return max(0, free) * int(facts["Block size"])


def _superblock(image: Path, part: Partition) -> dict[str, str]:
    text = run("dumpe2fs", "-h", f"{image}?offset={part.start}")
    return dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", text, re.MULTILINE))


def architecture(image: Path, part: Partition) -> str:
    """For which processor the programs of the root are: ``armhf``, ``arm64`` or ``amd64``.

    Looked at before anything is fetched for it. UserError for a root that is no Debian system or for another
    processor.
    """
    head = next(_content(image, part, "/usr/bin/dpkg"), b"")[:HEAD]
    if not head:
        raise UserError(f"{image} holds no Debian system", "k3s-bake knows Raspbian, Debian and Ubuntu.")
    machine = elf_machine(head)
    if machine is None or machine == "script":
        raise UserError(f"{image} is for an unknown processor", "K3s runs on armhf, arm64 and amd64 only.")
    return machine


def stage(image: Path, part: Partition, files: Mapping[str, Path]) -> dict[str, str]:
    """Write large files into the root's top folder, under names of their own; ``{sha256: path there}``.

    From outside, by debugfs: through the appliance it would take ten times as long under emulation. It is
    for a draft whose engine moves them into place, and whose content is verified afterwards: debugfs reports
    no failure in its exit code.
    """
    placed = {sha256: f"/.k3s-bake-{sha256[:16]}" for sha256 in files}
    with tempfile.TemporaryDirectory(prefix="k3s-bake-") as folder:  # links: debugfs cannot quote every path
        for sha256, path in files.items():
            Path(folder, sha256).symlink_to(path.absolute())
        commands = "".join(f"write {folder}/{sha256} {path}\n" for sha256, path in placed.items())
        run("debugfs", "-w", "-f", "-", f"{image}?offset={part.start}", stdin=commands)
    return placed


def sha256_in(image: Path, part: Partition, path: str) -> str:
    """The sha256 of a file of the root, read from outside; of nothing where there is none."""
    digest = hashlib.sha256()
    for piece in _content(image, part, path):
        digest.update(piece)
    return digest.hexdigest()


def _content(image: Path, part: Partition, path: str) -> Iterator[bytes]:
    return stream("debugfs", "-R", f'cat "{path}"', f"{image}?offset={part.start}")


def grow(image: Path, disk: Disk, extra: int) -> None:
    """Make the image and its root partition larger by at least ``extra`` bytes; the disk id stays.

    The file system in it is grown by the engine that mounts it. UserError where root is not the last
    partition: nothing can grow past a neighbour.
    """
    end = disk.root.start + disk.root.size
    if disk.end > end:
        raise UserError(
            "what is to be staged does not fit, and root cannot grow: it is not the last partition",
            "Use a base with more free room, or --airgap none.",
        )
    target = -(-(end + extra) // _ALIGN) * _ALIGN
    tail = _ALIGN if disk.table == "gpt" else 0  # room for GPT's second table
    os.truncate(image, max(target + tail, image.stat().st_size))
    if tail:
        run("sfdisk", "--relocate", "gpt-bak-std", str(image))
    script = f"start={disk.root.start // SECTOR}, size={(target - disk.root.start) // SECTOR}"
    run("sfdisk", "--no-reread", "--no-tell-kernel", "-N", str(disk.root.number), str(image), stdin=script)


def check(image: Path, disk: Disk, scratch: Path) -> None:
    """Both file systems by their own checkers, read-only. WorkFailed where one finds anything.

    ``scratch`` is a folder for a copy of the FAT: fsck.fat has no offset option.
    """
    run("e2fsck", "-fn", f"{image}?offset={disk.root.start}")
    fat = scratch / "fat"
    copy_range(image, fat, disk.boot.start, disk.boot.size)
    run("fsck.fat", "-n", str(fat))
    fat.unlink()


def copy_range(image: Path, into: Path, start: int, size: int) -> None:
    """Part of an image as a file; runs of zeros become holes."""
    zeros = bytes(_ALIGN)
    with image.open("rb") as source, into.open("wb") as target:
        source.seek(start)
        for at in range(0, size, _ALIGN):
            chunk = source.read(min(_ALIGN, size - at))
            if chunk != zeros[: len(chunk)]:
                target.seek(at)
                target.write(chunk)
        target.truncate(size)
