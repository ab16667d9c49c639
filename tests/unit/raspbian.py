"""A folder in the shape of a Raspbian Buster root, written from what is known of the real one."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from bake.concerns import Note
from bake.facts import facts_of
from bake.k3s_version import K3sVersion
from bake.node import CONCERNS, PROBES, Plan, plan
from bake.spec import File, K3s, NodeSpec, Role, StaticAddress, Wifi
from firstboot.edits import Edit, Write
from firstboot.snapshot import Snapshot
from firstboot.tree import FolderTree

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
TOKEN = b"K10" + b"a" * 64 + b"::node:pw"
FULL = {
    "name": "w1",
    "server": "https://10.0.0.2:6443",
    "token": TOKEN,
    "labels": ("disk=ssd",),
    "taints": ("big=true:NoSchedule",),
    "config": {"kubelet-arg": ["v=2"], "disable": ["traefik"]},
    "env": {"HTTP_PROXY": "http://proxy"},
    "registries": b"mirrors: {}\n",
    "authorized_keys": (KEY,),
    "wifi": Wifi("DE", "home", "secret-password"),
    "address": StaticAddress("10.0.0.3/24", "10.0.0.1", ("10.0.0.1",)),
    "timezone": "Europe/Berlin",
}
ARM_ELF = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HH", 2, 40) + bytes(44)
CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=9730496b-02 rootfstype=ext4 elevator=deadline "
    "fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh\n"
)
_PACKAGES = {
    "dpkg": "1.19.7",
    "systemd": "241-7~deb10u7+rpi1",
    "openssh-server": "1:7.9p1-10+deb10u2+rpt1",
    "iptables": "1.8.2-4",
    "dphys-swapfile": "20100506-5",
    "dhcpcd5": "1:8.1.2-1+rpt1",
    "python3": "3.7.3-1",
}


def alternative(name: str, mode: str = "auto") -> str:
    """As update-alternatives writes it on Buster."""
    return (
        f"{mode}\n/usr/sbin/{name}\n{name}-restore\n/usr/sbin/{name}-restore\n{name}-save\n/usr/sbin/{name}-save\n\n"
        f"/usr/sbin/{name}-legacy\n10\n/usr/sbin/{name}-legacy-restore\n/usr/sbin/{name}-legacy-save\n"
        f"/usr/sbin/{name}-nft\n20\n/usr/sbin/{name}-nft-restore\n/usr/sbin/{name}-nft-save\n\n"
    )


def worker(**values: Any) -> NodeSpec:
    return spec(Role.WORKER, **values)


def master(**values: Any) -> NodeSpec:
    return spec(Role.MASTER, **values)


def spec(role: Role, version: str | None = "v1.34.9+k3s1", **values: Any) -> NodeSpec:
    binary = File("k3s-armhf", hashlib.sha256(ARM_ELF).hexdigest(), len(ARM_ELF))
    k3s = K3s(binary, version and K3sVersion.parse(version))  # type: ignore[arg-type]
    return NodeSpec(role=role, k3s=values.pop("k3s", k3s), **values)


class Pi:
    """The folder, what a concern wants of it, and the plan for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = FolderTree(str(root), modeless=("/boot",), keeps_owners=False)
        root.mkdir()
        self.install(**_PACKAGES)
        self.write("/usr/lib/os-release", 'PRETTY_NAME="Raspbian GNU/Linux 10 (buster)"\nID=raspbian\n')
        self.link("/etc/os-release", "../usr/lib/os-release")
        self.write(
            "/etc/fstab",
            "proc /proc proc defaults 0 0\n"
            "PARTUUID=9730496b-01 /boot vfat defaults 0 2\n"
            "PARTUUID=9730496b-02 / ext4 defaults,noatime 0 1\n",
        )
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n")
        self.write("/etc/hostname", "raspberrypi\n")
        self.write("/etc/hosts", "127.0.0.1\tlocalhost\n\n127.0.1.1\traspberrypi\n")
        self.write("/etc/machine-id", "")
        self.write("/etc/dphys-swapfile", "CONF_SWAPSIZE=100\n")
        self.write("/etc/dhcpcd.conf", "hostname\nclientid\n")
        self.write("/etc/ssh/sshd_config", "#Port 22\nUsePAM yes\n")
        self.write("/lib/systemd/system/ssh.service", "[Unit]\n")
        self.write("/boot/cmdline.txt", CMDLINE)
        self.write("/bin/ls", ARM_ELF)
        self.write("/usr/share/zoneinfo/Europe/Berlin", "TZif")
        (root / "home/pi").mkdir(parents=True)
        wants = "/etc/systemd/system/multi-user.target.wants"
        self.link(f"{wants}/dphys-swapfile.service", "/lib/systemd/system/dphys-swapfile.service")
        for name in ("iptables", "ip6tables"):
            self.write(f"/var/lib/dpkg/alternatives/{name}", alternative(name))
            self.write(f"/usr/sbin/{name}-legacy", ARM_ELF)
            for tool in ("", "-restore", "-save"):
                self.link(f"/etc/alternatives/{name}{tool}", f"/usr/sbin/{name}-nft{tool}")

    def install(self, **packages: str) -> None:
        """Make these, by name and version, the packages of dpkg's status, besides those there."""
        status = self.root / "var/lib/dpkg/status"
        rows = (
            f"Package: {name}\nStatus: install ok installed\nArchitecture: armhf\nVersion: {version}\n"
            for name, version in packages.items()
        )
        before = status.read_text() if status.exists() else ""
        self.write("/var/lib/dpkg/status", before + "".join(f"{row}\n" for row in rows))

    def remove_package(self, name: str) -> None:
        self.write(
            "/var/lib/dpkg/status", self.text("/var/lib/dpkg/status").replace(f"Package: {name}\n", "")
        )

    def write(self, path: str, content: str | bytes) -> None:
        target = self.root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def link(self, path: str, target: str) -> None:
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def delete(self, path: str) -> None:
        (self.root / path[1:]).unlink()

    def text(self, path: str) -> str:
        return (self.root / path[1:]).read_text()

    def read(self) -> Snapshot:
        return self.tree.read(PROBES)

    def plan(self, spec: NodeSpec) -> Plan:
        return plan(spec, self.read())

    def bake(self, spec: NodeSpec) -> Plan:
        """Carry the plan out, with the same few bytes for K3s and its images; what was carried out."""
        source = self.root.parent / "k3s"
        source.write_bytes(ARM_ELF)
        done = self.plan(spec)
        self.tree.apply(done.edits, {spec.k3s.binary.sha256: str(source)})
        return done

    def wants(self, concern: str, spec: NodeSpec) -> list[Edit]:
        """What one concern wants, met or not."""
        return [want for want in self._wants(concern, spec) if not isinstance(want, Note)]

    def notes(self, concern: str, spec: NodeSpec) -> list[str]:
        return [want.text for want in self._wants(concern, spec) if isinstance(want, Note)]

    def _wants(self, concern: str, spec: NodeSpec) -> list[Edit | Note]:
        facts = facts_of(self.read())
        return [want for one in CONCERNS if one.name == concern for want in one.wants(spec, facts)]


def written(pi: Pi, concern: str, spec: NodeSpec) -> dict[str, str]:
    return {edit.path: edit.content.decode() for edit in pi.wants(concern, spec) if isinstance(edit, Write)}


def config(pi: Pi, spec: NodeSpec) -> dict[str, object]:
    lines = written(pi, "k3s", spec)["/etc/rancher/k3s/config.yaml"].splitlines()[1:]
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}
