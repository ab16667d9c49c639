"""fstab as pure text: where things are mounted, and swap turned off in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from firstboot.errors import UserError

SWAP_OFF = "# k3s-bake: swap off: "
"""Goes before a swap line, so that taking it away restores the line."""


FIRMWARE = ("/boot/firmware", "/boot")
"""Where the FAT partition of a Raspberry Pi is mounted; /boot/efi is a PC's, and never the Pi's firmware."""


@dataclass(frozen=True)
class Mount:
    source: str
    point: str
    kind: str


def mounts(text: str) -> Iterator[Mount]:
    """The lines that mount something, in order. A path's escapes (fstab(5)) are left as they are."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not words[0].startswith("#"):
            yield Mount(words[0], words[1], words[2])


def boot_folder(text: str) -> str | None:
    """Where the FAT partition with the firmware's files is mounted; None where no line mounts one.

    An image has one such line: /boot up to Bullseye, /boot/firmware from Bookworm and on Ubuntu.
    """
    found = [mount.point.rstrip("/") for mount in mounts(text) if mount.kind in ("vfat", "msdos")]
    under_boot = [point for point in found if point == "/boot" or point.startswith("/boot/")]
    return next(iter(sorted(under_boot, key=_firmware_first)), None)


def require_boot_folder(text: str | None) -> str:
    """The same for an image whose fstab may be missing. UserError where it says nothing of use."""
    if text is None:
        raise UserError(
            "the image has no /etc/fstab: its root is not a Linux system", "Use a Raspbian image."
        )
    point = boot_folder(text)
    if point is None:
        raise UserError("the image's fstab mounts no FAT partition", "Is it an image for Raspberry Pi?")
    return point


def _firmware_first(point: str) -> int:
    return FIRMWARE.index(point) if point in FIRMWARE else len(FIRMWARE)


def without_swap(text: str) -> str:
    """Swap lines commented out, not lost; all else as it was, line ends included."""
    lines = text.splitlines(keepends=True)
    return "".join(SWAP_OFF + line if _is_swap(line) else line for line in lines)


def _is_swap(line: str) -> bool:
    return any(mount.kind == "swap" for mount in mounts(line))
