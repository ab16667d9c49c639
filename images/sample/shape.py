"""Give a Debian root folder the shape of a Raspbian card's, and make the ext4 file system of it.

Runs under fakeroot, so that the files belong to whom they should without anybody being root:
`fakeroot python3 shape.py ROOTFS_TAR FOLDER EXT4_FILE MEBIBYTES`
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DISK_ID = "5a3b1e00"  # an MBR's, which makes the PARTUUIDs
UUID = "5a3b1e00-6b33-4073-8000-000000000002"  # a constant: two builds differ in times only
OVERLAY = Path(__file__).with_name("overlay")
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,"
    "dir_nlink,extra_isize"
)
PI_GROUPS = "adm|dialout|cdrom|sudo|audio|video|plugdev|games|users|input|netdev"
WANTS = "etc/systemd/system/multi-user.target.wants"
BUILD_LEFTOVERS = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/resolv.conf",
    "var/lib/dbus/machine-id",
)


def shape(root: Path) -> None:
    """Every difference between plain Debian packages and the card."""
    lay_over(root)
    for leftover in BUILD_LEFTOVERS:
        (root / leftover).unlink(missing_ok=True)
    (root / "etc/apt/sources.list").write_text("# The sample base has no package source.\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/fstab").write_text(
        "proc            /proc           proc    defaults          0       0\n"
        f"PARTUUID={DISK_ID}-01  /boot           vfat    defaults          0       2\n"
        f"PARTUUID={DISK_ID}-02  /               ext4    defaults,noatime  0       1\n"
    )
    (root / "etc/sudoers.d/010_pi-nopasswd").chmod(0o440)
    link(root / "etc/localtime", "/usr/share/zoneinfo/Europe/London")
    (root / "lib/modules").mkdir(exist_ok=True)  # a Raspbian kernel's modules would be here
    # Interfaces keep the kernel's names, as on Raspbian: eth0, wlan0.
    link(root / "etc/systemd/network/99-default.link", "/dev/null")
    add_pi(root)
    choose_services(root)
    block_wifi(root)


def lay_over(root: Path) -> None:
    """Copy overlay/; the modes are not the checkout's, which a umask may have narrowed."""
    for source in sorted(path for path in OVERLAY.rglob("*") if path.is_file()):
        target = root / source.relative_to(OVERLAY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def add_pi(root: Path) -> None:
    """User pi with password raspberry, as every stock card has."""
    openssl = ["openssl", "passwd", "-6", "-salt", "raspberrypi", "raspberry"]
    hashed = subprocess.run(openssl, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    append(root / "etc/passwd", "pi:x:1000:1000:,,,:/home/pi:/bin/bash\n")
    append(root / "etc/shadow", f"pi:{hashed}:19967:0:99999:7:::\n")
    append(root / "etc/group", "pi:x:1000:\n")
    append(root / "etc/gshadow", "pi:!::\n")
    for name in ("group", "gshadow"):
        join_groups(root / "etc" / name)
    home = root / "home/pi"
    shutil.copytree(root / "etc/skel", home)
    for path in (home, *home.iterdir()):
        os.chown(path, 1000, 1000)


def join_groups(path: Path) -> None:
    members = re.compile(rf"^((?:{PI_GROUPS}):.*:)$", re.MULTILINE)  # none has a member yet
    path.write_text(members.sub(r"\1pi", path.read_text()))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def choose_services(root: Path) -> None:
    """SSH off until /boot/ssh asks for it, host keys made on the card, the file system grown once."""
    for key in (root / "etc/ssh").glob("ssh_host_*_key*"):
        key.unlink()
    (root / WANTS / "ssh.service").unlink()
    (root / "etc/systemd/system/sshd.service").unlink()
    for unit in ("regenerate_ssh_host_keys.service", "sshswitch.service"):
        link(root / WANTS / unit, f"/lib/systemd/system/{unit}")
    link(root / "etc/rc3.d/S01resize2fs_once", "../init.d/resize2fs_once")


def block_wifi(root: Path) -> None:
    """Raspbian's radio is off until a country is set; one state file for each board family's controller."""
    for controller in ("3f300000", "fe300000"):
        state = root / f"var/lib/systemd/rfkill/platform-{controller}.mmcnr:wlan"
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text("1\n")


def make_ext4(root: Path, image: Path, mebibytes: int) -> None:
    """Raspbian's features, neither more nor fewer: a newer mke2fs has others by default."""
    identity = ["-O", FEATURES, "-L", "rootfs", "-U", UUID, "-E", f"hash_seed={UUID}"]
    content = ["-d", str(root), str(image), f"{mebibytes}M"]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *identity, *content], check=True)


def main() -> None:
    tar, root, image, mebibytes = sys.argv[1:]
    # File capabilities (ping's) stay behind: mke2fs cannot read them through fakeroot.
    subprocess.run(["tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "-xf", tar], check=True)
    shape(Path(root))
    make_ext4(Path(root), Path(image), int(mebibytes))


if __name__ == "__main__":
    main()
