"""A card image of a root file system, without root, mounts or loop devices."""

import os
import subprocess
import sys
from pathlib import Path

from rootfs import EPOCH
from shape import DISK_ID

MEBIBYTE = 1024 * 1024
# Raspbian's partition table: the boot partition at sector 8192, the root partition last, to the end.
CARD, BOOT_START, BOOT_SIZE = 1500, 4, 256  # MiB
ROOT_START = BOOT_START + BOOT_SIZE
CMDLINE = (
    f"console=serial0,115200 console=tty1 root=PARTUUID={DISK_ID}-02 rootfstype=ext4 elevator=deadline "
    "fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh\n"
)
CONFIG = """\
# The sample base is not Raspbian and boots on no Raspberry Pi.
dtparam=audio=on

[all]
#dtoverlay=vc4-fkms-v3d
"""
FIRMWARE = ("bootcode.bin", "fixup.dat", "start.elf")


def make(tar: Path, image: Path, work: Path) -> None:
    """Make the card image; `work` is an empty folder for what comes between."""
    boot, root = work / "boot.fat", work / "root.ext4"
    make_boot(boot, work / "boot")
    make_root(tar, root, work / "root")
    check(boot, root)
    with image.open("wb") as file:
        file.truncate(CARD * MEBIBYTE)
    layout = f"""\
label: dos
label-id: 0x{DISK_ID}
start={BOOT_START}MiB, size={BOOT_SIZE}MiB, type=c
start={ROOT_START}MiB, type=83
"""
    run("sfdisk", "--quiet", str(image), stdin=layout)
    place(boot, image, BOOT_START)
    place(root, image, ROOT_START)


def make_boot(fat: Path, folder: Path) -> None:
    """The FAT partition, with the stock kernel command line and dummies where the firmware would be."""
    folder.mkdir()
    (folder / "cmdline.txt").write_text(CMDLINE)
    (folder / "config.txt").write_text(CONFIG)
    for name in FIRMWARE:
        (folder / name).write_text("not Raspberry Pi firmware\n")
    files = sorted(folder.iterdir())
    for file in files:
        os.utime(file, (int(EPOCH), int(EPOCH)))
    # mkfs.fat's own cluster size leaves too few clusters for a FAT32 of this size: mtools refuses it.
    geometry = ["-F", "32", "-s", "4", "-n", "boot", "--invariant", "-C"]
    run("mkfs.vfat", *geometry, str(fat), str(BOOT_SIZE * 1024))
    run("mcopy", "-m", "-i", str(fat), *map(str, files), "::/")


def make_root(tar: Path, ext4: Path, folder: Path) -> None:
    """The ext4 partition; fakeroot keeps the owners that a user may not set."""
    folder.mkdir()
    shape = Path(__file__).with_name("shape.py")
    size = str(CARD - ROOT_START)
    run("fakeroot", "--", sys.executable, str(shape), str(tar), str(folder), str(ext4), size)


def check(boot: Path, root: Path) -> None:
    """Raises CalledProcessError when a file system is not clean."""
    run("fsck.fat", "-n", str(boot))
    run("e2fsck", "-fn", str(root))


def place(partition: Path, image: Path, mebibyte: int) -> None:
    """Copy a partition to its place in the image; what is zero stays a hole."""
    offset = ["bs=1M", f"seek={mebibyte}", "conv=notrunc,sparse", "status=none"]
    run("dd", f"if={partition}", f"of={image}", *offset)


def run(*command: str, stdin: str = "") -> None:
    """Run a tool of this build, at this build's time, its words on standard error."""
    env = os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "E2FSPROGS_FAKE_TIME": EPOCH, "TZ": "UTC"}
    subprocess.run(command, check=True, env=env, input=stdin, text=True, stdout=sys.stderr)
