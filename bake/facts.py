"""What is so of the target, read from a snapshot of its files; never of the machine this runs on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bake import dpkg
from bake.elf import elf_machine
from bake.fstab import FIRMWARE, boot_folder
from firstboot.edits import Write, rewritten
from firstboot.errors import UserError
from firstboot.snapshot import Probe, Snapshot

_STATUS = "/var/lib/dpkg/status"
_PROGRAMS = ("/bin/ls", "/usr/bin/ls", "/usr/bin/dpkg")

PROBES = (
    Probe("/etc/os-release"),
    Probe("/usr/lib/os-release"),
    Probe("/etc/fstab"),
    Probe("/etc/passwd"),
    Probe(_STATUS),
    *(Probe(path, "head") for path in _PROGRAMS),
    Probe("/etc/systemd/system/multi-user.target.wants", "names"),
)


@dataclass(frozen=True)
class User:
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class NodeFacts:
    """What the concerns ask of a target. Made by ``facts_of``, which refuses what is no Debian."""

    found: Snapshot
    os: Mapping[str, str]
    """os-release."""
    packages: Mapping[str, dpkg.Package]
    """Installed ones."""
    architecture: str
    """``armhf``, ``arm64`` or ``amd64``, as dpkg says."""
    boot: str
    """Where the FAT partition with the firmware's files is mounted; of a machine that has none, /boot."""
    firmware: bool = True
    """A Raspberry Pi's: what the kernel is told is in a file there. False: a PC, say, that runs already."""
    live: bool = False
    """A node that runs, not an image of it: it is somebody already, and its agent has written files."""

    def has(self, package: str) -> bool:
        return package in self.packages

    def version(self, package: str) -> tuple[int, ...]:
        """Upstream version as numbers; empty where it is not installed."""
        return dpkg.version_tuple(self.packages[package].version) if package in self.packages else ()

    def text(self, path: str) -> str | None:
        return self.found.text(path)

    def exists(self, path: str) -> bool:
        return self.found.get(path) is not None

    def rewritten(self, path: str, text: str, like: str | None = None) -> Write:
        """As edits.rewritten."""
        return rewritten(self.found, path, text, like)

    @property
    def pretty(self) -> str:
        return self.os.get("PRETTY_NAME", "an unnamed system")

    @cached_property
    def users(self) -> dict[str, User]:
        rows = (line.split(":") for line in (self.text("/etc/passwd") or "").splitlines())
        return {
            row[0]: User(int(row[2]), int(row[3]), row[5])
            for row in rows
            if len(row) == 7 and all(re.fullmatch(r"[0-9]{1,9}", number) for number in row[2:4])
        }

    @property
    def may_use_cgroup_v2(self) -> bool:
        """systemd delegates all that a kubelet needs on cgroup v2 from version 244 on (cpuset)."""
        return self.version("systemd") >= (244,)

    @cached_property
    def network_manager(self) -> str | None:
        """``NetworkManager``, ``dhcpcd`` or ``systemd-networkd``, whichever sets addresses; None for no such.

        In this order: where several are installed, Debian lets the first one win.
        """
        if self.has("network-manager"):
            return "NetworkManager"
        if self.has("dhcpcd5") or self.has("dhcpcd"):
            return "dhcpcd"
        if "systemd-networkd.service" in self.found.names("/etc/systemd/system/multi-user.target.wants"):
            return "systemd-networkd"
        return None


def facts_of(found: Snapshot, *, live: bool = False) -> NodeFacts:
    """UserError for a tree that is not a Debian system for a known processor with a FAT boot folder."""
    os_release = found.text("/etc/os-release") or ""
    status = found.text(_STATUS)
    if status is None:
        name = _os_release(os_release).get("PRETTY_NAME", "no Debian")
        raise UserError(f"the base is {name}, without dpkg", "k3s-bake knows Raspbian, Debian and Ubuntu.")
    packages = dpkg.installed(status)
    boot = boot_folder(found.text("/etc/fstab") or "")
    firmware = boot in FIRMWARE
    if not live and boot is None:
        raise UserError("the image's fstab mounts no FAT partition", "Is it an image for Raspberry Pi?")
    where = boot if boot and (firmware or not live) else "/boot"
    architecture = _architecture(found, packages)
    return NodeFacts(
        found, _os_release(os_release), packages, architecture, where, firmware or not live, live
    )


def _os_release(text: str) -> dict[str, str]:
    return {key: value.strip("\"'") for key, value in re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)}


def _architecture(found: Snapshot, packages: Mapping[str, dpkg.Package]) -> str:
    """dpkg's own word, held against a program: an image put together wrongly would not boot."""
    said = packages["dpkg"].architecture if "dpkg" in packages else ""
    heads = (found.content(path) for path in _PROGRAMS)
    seen = next((machine for head in heads if head and (machine := elf_machine(head))), None)
    if said not in ("armhf", "arm64", "amd64"):
        raise UserError(
            f"the base is for {said or 'an unknown processor'}", "K3s runs on armhf, arm64 and amd64 only."
        )
    if seen is not None and seen != said:
        raise UserError(f"the base says {said}, but its programs are {seen}", "The image is damaged.")
    return said
