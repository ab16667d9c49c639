"""Small images for tests that make many: a FAT, and a root from a folder, without mounts or root's rights."""

import os
import stat
from pathlib import Path

from guest.look import SECTOR, Image, tool

_BOOT, _ROOT = 2048 * SECTOR, 10240 * SECTOR  # both 4 MiB apart: 8192 sectors of FAT16


def small_image(
    path: Path,
    folder: Path,
    *,
    block: int = 1024,
    options: str = "",
    inodes: int = 1500,
    fat: str = "16",
    fat_kib: int = 4096,
) -> None:
    """An image with the files of ``folder`` in its root, and an empty FAT to be mounted at its /boot.

    ``options`` are features for mke2fs. Folders are indexed, as a system's that was in use are.
    """
    root_kib = 16384
    with path.open("wb") as stream:
        stream.truncate(_ROOT + root_kib * 1024)
    parts = f"start=2048,size={fat_kib * 2},type=c\nstart=10240,type=83\n"
    table = f"label: dos\nlabel-id: 0x12345678\n{parts}"
    tool("sfdisk", "-q", path, text=table)
    tool("mkfs.vfat", "-F", fat, "-s", "1", "-i", "12345678", "--offset=2048", path, fat_kib)
    root = path.with_suffix(".root")
    make = ["mke2fs", "-q", "-t", "ext4", "-b", block, "-d", folder, "-U", "clear"]
    tool(*make, "-O", f"^64bit,^metadata_csum{options}", "-N", inodes, root, f"{root_kib}k")
    tool("e2fsck", "-fyD", root, accept=(0, 1))
    with path.open("r+b") as image, root.open("rb") as part:
        at = 0
        while at < root_kib * 1024:
            image.seek(_ROOT + at)
            at += image.write(part.read(1 << 20))
    root.unlink()


def dumped(image: Path, into: Path) -> Path:
    """All files of both file systems, by rdump and mcopy: not by the project's code."""
    into.mkdir()
    tool("debugfs", "-R", f"rdump / {into}", Image(image).root)
    tool("mcopy", "-s", "-n", "-i", Image(image).fat, "::", into / "boot")
    (into / "lost+found").rmdir()
    return into


def listed(folder: Path) -> dict[str, tuple[object, ...]]:
    """Each path with kind, mode, owner, group, and content or target; on the FAT only kind and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        # An ordinary user's folder cannot hold other users' files.
        owners = (status.st_uid, status.st_gid) if os.geteuid() == 0 else ()
        name = str(path).removeprefix(str(folder))
        access = () if name.startswith("/boot/") else (stat.S_IMODE(status.st_mode), *owners)
        found[name] = (stat.S_IFMT(status.st_mode), what, *access)
    return found
