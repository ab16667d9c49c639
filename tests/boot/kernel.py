"""A kernel for QEMU's virt machine, where a Pi's own does not run: Debian's, with an initrd of our own.

From Debian's packages, unpacked and never installed; kept in the cache by a hash of this recipe.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "images" / "sample"))
from build import cache, kept, locked
from rootfs import apt_settings, mirror

_SUITE = "bullseye"  # linux 5.10, as the last Raspbian Buster's
_PACKAGES = "linux-image-armmp,busybox-static"
_INIT = Path(__file__).with_name("init")
_MODULES = frozenset(
    """
    virtio_pci virtio_mmio virtio_blk virtio_net virtio_rng ext4 crc32c_generic vfat nls_ascii nls_cp437
    nls_utf8 overlay loop bridge br_netfilter veth vxlan af_packet autofs4 ipv6
    """.split()  # noqa: SIM905 (a list of twenty strings is harder to read)
)
_NETFILTER = ("net/netfilter/", "net/ipv4/netfilter/", "net/ipv6/netfilter/")


@dataclass(frozen=True)
class Kernel:
    kernel: Path
    initrd: Path


def kernel() -> Kernel:
    """Of armhf; made unless the cache has it, in half a minute."""
    recipe = hashlib.sha256(Path(__file__).read_bytes() + _INIT.read_bytes()).hexdigest()[:12]
    folder = cache() / f"kernel-armhf-{recipe}"
    with locked(cache() / "kernel.lock"):
        kept(folder, _make)
    return Kernel(folder / "vmlinuz", folder / "initrd")


def _make(folder: Path, work: Path) -> None:
    """``folder`` with kernel and initrd, by way of an empty folder."""
    tar = work / "packages.tar"
    acquire = [f"--aptopt={line}" for line in apt_settings()]
    wanted = ["--variant=extract", "--architectures=armhf", f"--include={_PACKAGES}"]
    command = ["mmdebstrap", *wanted, *acquire, _SUITE, str(tar), f"deb {mirror()} {_SUITE} main"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    unpacked = ["./boot", "./lib/modules", "./bin/busybox"]
    subprocess.run(["tar", "-xf", tar, "-C", work, "--no-same-owner", *unpacked], check=True)
    folder.mkdir()
    shutil.copy(next((work / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    version = next((work / "lib/modules").iterdir()).name
    (folder / "initrd").write_bytes(gzip.compress(_archive(work, version), 1))


def _archive(work: Path, version: str) -> bytes:
    """The initrd as a cpio archive: busybox, the modules that are wanted, and init."""
    modules = work / "lib/modules" / version
    _run("depmod", "-b", work, version)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for made in ("bin", "proc", "sys", "dev", "newroot"):
            (top / made).mkdir()
        shutil.copy(work / "bin/busybox", top / "bin")
        (top / "bin/sh").symlink_to("busybox")
        shutil.copy(_INIT, top / "init")
        (top / "init").chmod(0o755)
        for module in _with_needs((modules / "modules.dep").read_text()):
            target = top / "lib/modules" / version / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(modules / module, target)
        for kind in ("order", "builtin", "builtin.modinfo"):
            shutil.copy(modules / f"modules.{kind}", top / "lib/modules" / version)
        _run("depmod", "-b", top, version)
        names = "\n".join(str(path.relative_to(top)) for path in sorted(top.rglob("*")))
        command = ["cpio", "--create", "--format=newc", "--quiet", "--owner=+0:+0"]
        return subprocess.run(command, cwd=top, input=names.encode(), capture_output=True, check=True).stdout


def _with_needs(dependencies: str) -> Iterable[str]:
    """The wanted modules and all they need, from a modules.dep: each line names a module and its needs."""
    found: set[str] = set()
    for line in dependencies.splitlines():
        path, _, needs = line.partition(":")
        if Path(path).stem in _MODULES or any(folder in path for folder in _NETFILTER):
            found |= {path, *needs.split()}
    return sorted(found)


def _run(*command: object) -> None:
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    subprocess.run([*map(str, command)], check=True, env=env)
