"""A card that boots in seconds: the emulator's kernel, and of a system no more than busybox and two scripts.

On its first boot it takes the init= off its cmdline.txt and restarts, as Raspbian does. Then it asks for an
address, says that it searches, and that it has joined when the other one of the first two machines answers.
"""

import gzip
import subprocess
from pathlib import Path

from guest.look import Image, tool
from guest.small import small_image

from bake.cache import home
from bake.emulator.kernel import kernel
from bake.progress import Silent

_CMDLINE = "console=serial0,115200 root=PARTUUID=12345678-02 rootwait quiet panic=0 init=/sbin/first\n"
_FIRST = """\
#!/bin/busybox sh
busybox mount -t vfat /dev/vda1 /boot
busybox sed -i 's| init=/sbin/first||' /boot/cmdline.txt
busybox umount /boot
busybox sync
echo b >/proc/sysrq-trigger
"""
_INIT = """\
#!/bin/busybox sh
busybox udhcpc -q -i eth0 -t 20 -T 1 -s /sbin/address >/dev/null
me=$(busybox ip -4 -o addr show eth0 | busybox sed 's|.*inet \\([0-9.]*\\)/.*|\\1|')
case $me in *.10) other=10.9.0.11 ;; *) other=10.9.0.10 ;; esac
busybox httpd -p 80 -h /www
echo "k3s-bake: tiny-${me##*.}: searching (no-master)"
( until busybox ping -c 1 -W 1 $other >/dev/null; do busybox sleep 1; done
  echo "k3s-bake: tiny-${me##*.}: joined" ) &
while read -r line; do
    busybox sh -c "$line"
done
while :; do busybox sleep 1000; done
"""
_ADDRESS = """\
#!/bin/busybox sh
busybox ip link set eth0 up
[ "$1" != bound ] || busybox ip addr add "$ip/$mask" dev eth0
"""


def tiny_image(image: Path, work: Path) -> Path:
    """``work`` is an empty folder."""
    root = work / "root"
    for folder in ("bin", "sbin", "usr/bin", "boot", "dev", "proc", "sys", "lib/modules", "www"):
        (root / folder).mkdir(parents=True)
    busybox = root / "bin/busybox"
    initrd = gzip.decompress(kernel(home(), Silent()).initrd.read_bytes())
    unpack = ["cpio", "--extract", "--quiet", "--to-stdout", "bin/busybox"]
    busybox.write_bytes(subprocess.run(unpack, input=initrd, stdout=subprocess.PIPE, check=True).stdout)
    (root / "bin/sh").symlink_to("busybox")
    (root / "usr/bin/dpkg").write_bytes(busybox.read_bytes()[:4096])  # tells the processor
    (root / "www/index.html").write_text("a tiny node\n")
    for name, text in {"first": _FIRST, "init": _INIT, "address": _ADDRESS}.items():
        (root / "sbin" / name).write_text(text)
        (root / "sbin" / name).chmod(0o755)
    busybox.chmod(0o755)
    small_image(image, root)
    (work / "cmdline.txt").write_text(_CMDLINE)
    tool("mcopy", "-i", Image(image).fat, work / "cmdline.txt", "::")
    return image
