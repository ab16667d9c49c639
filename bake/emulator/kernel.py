"""A kernel for QEMU's virt machine, where a Pi's own does not run: Debian's, with an initrd of our own.

From Debian's packages, unpacked and never installed; kept in the cache by a hash of this recipe.
"""

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bake.cache import Home, locked, writing
from bake.debian_mirror import apt_settings, mirror
from bake.process import answer, require, run
from bake.progress import Progress
from firstboot.errors import WorkFailed

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


def kernel(home: Home, progress: Progress) -> Kernel:
    """Of armhf; made unless the cache has it, in half a minute and with a download of 40 MB.

    Raises UserError where tools are missing, WorkFailed where the packages cannot be had.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes() + _INIT.read_bytes()).hexdigest()[:12]
    folder = home.cache / "emulator" / f"kernel-armhf-{recipe}"
    with writing(folder), locked(folder, "the emulator's kernel", progress.say):
        if not folder.is_dir():
            require("mmdebstrap", "cpio", "depmod", "apt-get", "apt-config")
            with progress.task("making the emulator's kernel, once", None):
                _publish(folder)
    return Kernel(folder / "vmlinuz", folder / "initrd")


def _publish(folder: Path) -> None:
    """The folder is whole or absent; what a run that was killed has left is removed first."""
    making = folder.with_name(f"{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    try:
        (making / "whole").mkdir(parents=True)
        _make(making / "whole", making)
        (making / "whole").rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _make(folder: Path, work: Path) -> None:
    tar = work / "packages.tar"
    site = mirror()
    acquire = [f"--aptopt={line}" for line in apt_settings()]
    # What only unpacks needs no chroot, and so neither root's rights nor subordinate ids.
    mode = [] if os.geteuid() == 0 else ["--mode=chrootless"]
    wanted = [*mode, "--variant=extract", "--architectures=armhf", f"--include={_PACKAGES}"]
    try:
        run("mmdebstrap", *wanted, *acquire, _SUITE, str(tar), f"deb {site} {_SUITE} main")
    except WorkFailed as error:
        hint = (
            f"The kernel comes from {site}: is it reached? MIRROR names another. On Ubuntu it takes the "
            "package debian-archive-keyring."
        )
        raise WorkFailed(error.message, hint) from error
    unpacked = ["./boot", "./lib/modules", "./bin/busybox"]
    run("tar", "-xf", str(tar), "-C", str(work), "--no-same-owner", *unpacked)
    shutil.copy(next((work / "boot").glob("vmlinuz-*")), folder / "vmlinuz")
    version = next((work / "lib/modules").iterdir()).name
    (folder / "initrd").write_bytes(gzip.compress(_archive(work, version), 1))


def _archive(work: Path, version: str) -> bytes:
    """The initrd as a cpio archive: busybox, the modules that are wanted, and init."""
    modules = work / "lib/modules" / version
    run("depmod", "-b", str(work), version)
    with tempfile.TemporaryDirectory(dir=work) as name:
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
        run("depmod", "-b", str(top), version)
        names = "\n".join(str(path.relative_to(top)) for path in sorted(top.rglob("*")))
        pack = ["cpio", "--create", "--format=newc", "--quiet", "--owner=+0:+0", f"--directory={top}"]
        packed, complaint = answer(*pack, stdin=names.encode())
        if complaint:
            raise WorkFailed(f"cpio failed: {complaint.splitlines()[0]}")
        return packed


def _with_needs(dependencies: str) -> Iterable[str]:
    """The wanted modules and all they need, from a modules.dep: each line names a module and its needs."""
    found: set[str] = set()
    for line in dependencies.splitlines():
        path, _, needs = line.partition(":")
        if Path(path).stem in _MODULES or any(folder in path for folder in _NETFILTER):
            found |= {path, *needs.split()}
    return sorted(found)
