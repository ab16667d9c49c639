"""The disk in an image file: its partitions, what is on them, whether they are sound, and making it larger.

Nothing here mounts, needs root or writes, but for grow().
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bake import sparse
from bake.elf import HEAD, elf_machine
from bake.process import run, stream
from firstboot.errors import UserError, WorkFailed

SECTOR = 512
_ALIGN = 4 << 20  # bytes: an SD card's erase block, and what Raspbian's own images are aligned to

EARLIEST = 315_532_800
"""1980-01-01, in seconds since 1970: where a FAT's calendar starts. debugfs takes 0 for now."""

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
    refuse_path(image)
    with image.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)  # of a device, too
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


def refuse_path(image: Path) -> None:
    """UserError for a path of which e2fsprogs would take a part for options."""
    if set(str(image)) & set("?\n\r"):
        raise UserError(
            f"the path {str(image)!r} holds a '?' or a line break, which tools cannot take", "Rename it."
        )


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


def read_sound_disk(image: Path) -> Disk:
    """The same of an image that is to be edited.

    UserError also where a file system has errors or was not closed cleanly (the image of a card that was in
    use), or has features that the checkers here do not know.
    """
    disk = read_disk(image)
    facts = _superblock(image, disk.root)
    if unknown := re.findall(r"FEATURE_\w+", facts["Filesystem features"]):
        raise UserError(
            f"the root of {image} has features that e2fsprogs here do not know: {', '.join(unknown)}",
            "A newer e2fsprogs does.",
        )
    state = facts["Filesystem state"]
    if "errors" in state:
        raise UserError(
            f"the root file system of {image} has errors", "Use a fresh image, or e2fsck on a copy."
        )
    if state != "clean" or "needs_recovery" in facts["Filesystem features"]:
        raise _dirty("root", image)
    with image.open("rb") as stream:
        stream.seek(disk.boot.start)
        boot = stream.read(512)
    fat32 = boot[22:24] == b"\0\0"  # sectors of a small FAT: none in FAT32
    if boot[0x41 if fat32 else 0x25] & 1:  # bit 0: mounted, as Linux's vfat leaves it
        raise _dirty("FAT", image)
    return disk


def _dirty(which: str, image: Path) -> UserError:
    return UserError(
        f"the {which} file system of {image} was not closed cleanly",
        "Use a fresh image, or boot the card once more and shut it down properly.",
    )


def written_at(image: Path, root: Partition) -> int:
    """When the root file system was last written to, in seconds since 1970: the base's own date.

    From the superblock's s_wtime; a file's own date changes with every download and copy.
    """
    with image.open("rb") as stream:
        stream.seek(root.start + 1024 + 0x30)
        return max(EARLIEST, int.from_bytes(stream.read(4), "little"))


def free_room(image: Path, part: Partition) -> int:
    """Bytes that the root has free."""
    facts = _superblock(image, part)
    free = int(facts["Free blocks"]) - int(facts["Reserved block count"])
    return max(0, free) * int(facts["Block size"])


def features(image: Path, part: Partition) -> frozenset[str]:
    """What the root's ext4 makes use of, as e2fsprogs name it; ``FEATURE_I17`` where they know no name."""
    return frozenset(_superblock(image, part)["Filesystem features"].split())


def _superblock(image: Path, part: Partition) -> dict[str, str]:
    text = run("dumpe2fs", "-hf", f"{image}?offset={part.start}")  # -f: with features it does not know, too
    return dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", text, re.MULTILINE))


def architecture(image: Path, part: Partition) -> str:
    """For which processor the programs of the root are: ``armhf``, ``arm64`` or ``amd64``.

    Looked at before anything is fetched for it. UserError for a root that is no Debian system or for another
    processor.
    """
    head = next(content(image, part, "/usr/bin/dpkg"), b"")[:HEAD]
    if not head:
        raise UserError(f"{image} holds no Debian system", "k3s-bake knows Raspbian, Debian and Ubuntu.")
    machine = elf_machine(head)
    if machine is None or machine == "script":
        raise UserError(f"{image} is for an unknown processor", "K3s runs on armhf, arm64 and amd64 only.")
    return machine


def content(image: Path, part: Partition, path: str) -> Iterator[bytes]:
    """Of a file of the root, in pieces; none where there is no such file."""
    return stream("debugfs", "-R", f'cat "{path}"', f"{image}?offset={part.start}")


def grow(image: Path, disk: Disk, extra: int, scratch: Path, epoch: int) -> None:
    """Make the image and its root, partition and file system, larger by at least ``extra`` bytes.

    The disk id stays. ``scratch`` is a folder for a copy of the root, ``epoch`` (seconds since 1970) the time
    of its new superblock. UserError where root is not the last partition: nothing can grow past a neighbour.
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
    _grow_root(image, disk.root, target - disk.root.start, scratch / "root", epoch)


def _grow_root(image: Path, root: Partition, size: int, taken_out: Path, epoch: int) -> None:
    """Never resize2fs at an offset: it would set the size of the whole image to that of the file system."""
    sparse.copy_out(image, root.start, root.size, taken_out)
    os.truncate(taken_out, size)
    # -f: without a check before, the bake ends with one. The variable is all that sets resize2fs's clock.
    run("resize2fs", "-f", str(taken_out), env={"E2FSPROGS_FAKE_TIME": str(epoch)})
    sparse.copy_in(taken_out, image, root.start)
    taken_out.unlink()


def check_root(image: Path, disk: Disk) -> None:
    """By its own checker, read-only. WorkFailed where it finds anything."""
    run("e2fsck", "-fn", f"{image}?offset={disk.root.start}")


def check_boot(image: Path, disk: Disk, scratch: Path) -> None:
    """The same of the FAT. ``scratch`` is a folder for a copy of it: fsck.fat has no offset option."""
    fat = scratch / "fat"
    sparse.copy_out(image, disk.boot.start, disk.boot.size, fat)
    run("fsck.fat", "-n", str(fat))
    fat.unlink()
