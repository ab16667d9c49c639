"""What a running machine is and has, beyond its files: for the checks before it becomes a node.

Runs on the node too: Python 3.7, standard library only.
"""

import errno
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from firstboot import board
from firstboot.paths import STATE
from firstboot.programs import run

PORTS = (6422, 6443, 10250)
"""Of TCP, that others must reach on a node of ours."""

WRITTEN = ("/", "/etc", "/usr/lib", "/usr/local", "/var/lib", "/boot", "/boot/firmware")
"""Where a node of ours is written to."""

PACKAGES = "/var/lib/dpkg/status"
_FIELDS = ("Package: ", "Status: ", "Version: ", "Architecture: ", "\n")
"""Lines of it that begin so are what the operator's side reads (bake.dpkg): a tenth of some megabyte."""

_COMMAND_LINES = ("proc/cmdline", "boot/cmdline.txt", "boot/firmware/cmdline.txt")
"""The kernel's, and what it will be after a restart."""

_IN_MEMORY = re.compile(r"(?<!\S)(?:boot=overlay|overlayroot=tmpfs(?::\S*)?)(?!\S)")
"""What raspi-config's 'Overlay File System' puts there: for a script of its own in the initramfs, or in later
systems for the package overlayroot."""

_OTHERS = {
    "/etc/kubernetes/kubelet.conf": "kubeadm",
    "/var/snap/microk8s": "MicroK8s",
    "/var/lib/k0s": "k0s",
    "/var/lib/rancher/rke2": "RKE2",
}
"""Another Kubernetes, by what only it has."""


_UNITS = (
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/transient",
    "run/systemd/generator.late",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
"""Where systemd finds units (systemd.unit(5)), as far as a K3s of whomever may have one there."""


UNFINISHED = "/run/k3s-bake-unfinished.json"
"""Paths that were changed, and of which the running system does not know yet; a boot does away with it."""


RESETTING = "/var/lib/k3s-bake/resetting"
"""There from the beginning of a reset until K3s may begin anew: between the two its data are half gone."""


def unfinished(root: str = "/") -> List[str]:
    """What a run that was cut off between its edits and its commands has left to do."""
    try:
        found = json.loads(_text(root, UNFINISHED[1:]) or "[]")
    except ValueError:
        return []
    return [path for path in found if isinstance(path, str)] if isinstance(found, list) else []


def facts(root: str = "/") -> Dict[str, Any]:
    """For the operator's side, as JSON takes it. Nothing in it is secret."""
    found = board.read(root)
    return {
        "serial": found.serial,
        "reason": found.reason,
        "hostname": socket.gethostname(),
        "boot_id": boot_id(root),
        "memory": _number(r"^MemTotal: +([0-9]+) kB", _text(root, "proc/meminfo")) * 1024,
        "free": {path: _free(root, path) for path in ("/var/lib", "/usr/local")},
        "read_only": [path for path in WRITTEN if _is_read_only(root, path)],
        "volatile": is_volatile([_text(root, path) for path in _COMMAND_LINES]),
        "time": time.time(),
        "addresses": addresses(),
        "taken": [port for port in PORTS if root == "/" and is_taken(port)],
        "ours": _ours(root),
        "unfinished": unfinished(root),
        "resetting": Path(root, RESETTING[1:]).exists(),
        "k3s": any(Path(root, f"var/lib/rancher/k3s/{name}").exists() for name in ("server", "agent")),
        "etcd": Path(root, "var/lib/rancher/k3s/server/db/etcd").exists(),
        "k3s_is_on": _is_on(root, ("k3s.service", "k3s-agent.service")),
        "others": sorted(name for path, name in _OTHERS.items() if Path(root, path[1:]).exists()),
    }


def packages(status: str) -> str:
    """As much of dpkg's list as is worth sending."""
    return "".join(line for line in status.splitlines(True) if line.startswith(_FIELDS))


def boot_id(root: str = "/") -> str:
    """Another one after each boot."""
    return _text(root, "proc/sys/kernel/random/boot_id").strip()


def modeless(mounts: str) -> List[str]:
    """Where file systems are mounted that keep no modes, by /proc/mounts."""
    rows = [line.split() for line in mounts.splitlines()]
    return [row[1] for row in rows if len(row) > 2 and row[2] in ("vfat", "msdos", "exfat")]


def is_volatile(command_lines: Sequence[str]) -> bool:
    """Whether a restart undoes what is written, now or from the next one on: root is an overlay in memory.

    The mounts do not tell: a container's root is an overlay, too, and its upper folder is out of sight.
    """
    return any(map(_IN_MEMORY.search, command_lines))


def addresses() -> Dict[str, List[str]]:
    """IPv4 addresses with their prefixes, by interface, loopback left out; none where iproute2 is too old."""
    code, said, _ = run(["ip", "-j", "-4", "address", "show", "up"], limit=10)
    try:
        listed = json.loads(said.decode("utf-8")) if code == 0 else []
        return {
            str(one["ifname"]): [f"{info['local']}/{info['prefixlen']}" for info in one["addr_info"]]
            for one in listed
            if one.get("ifname") not in (None, "lo") and one.get("addr_info")
        }
    except (ValueError, KeyError, TypeError):
        return {}


def state(root: str = "/") -> Optional[Dict[str, Any]]:
    """The agent's memory, as it wrote it."""
    try:
        found = json.loads(_text(root, STATE[1:]))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def log(unit: str, lines: int) -> List[str]:
    """The last lines of a unit: its own, and where it has none, systemd's of it, which would hide them."""
    for which in ([f"_SYSTEMD_UNIT={unit}.service"], ["-u", unit]):
        _, said, _ = run(["journalctl", *which, "-o", "cat", "--no-pager", "-n", str(lines)], limit=20)
        if said.strip():
            return said.decode("utf-8", "replace").splitlines()
    return []


def ping(address: str, count: int = 3) -> Optional[float]:
    """Milliseconds on average; None where nothing comes back."""
    command = ["ping", "-n", "-q", "-c", str(count), "-i", "0.2", "-w", "3", address]
    found = re.search(r"= [0-9.]+/([0-9.]+)/", run(command, limit=10)[1].decode("ascii", "replace"))
    return float(found.group(1)) if found else None


def _is_on(root: str, units: Sequence[str]) -> bool:
    """Whether one of them runs, starts, or is about to start anew: is-active prints a line for each."""
    if not any(Path(root, folder, unit).exists() for folder in _UNITS for unit in units):
        return False  # to ask systemd takes a small board longer than to look
    _, said, _ = run(["systemctl", "is-active", *units], limit=20)
    return bool({"active", "activating", "reloading"} & set(said.decode("ascii", "replace").split()))


def _ours(root: str) -> Optional[Dict[str, Any]]:
    found = state(root)
    keys = ("name", "phase", "reason", "since", "address", "server", "ca", "joined")
    return {key: found.get(key, "") for key in keys} if found else None


def is_taken(port: int) -> bool:
    """Whether somebody listens there, by TCP and at whatever address.

    /proc/net/tcp tells it, too, but goes through a table that is as large as the machine's memory allows.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that only who listens counts
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind(("", port))
        except OSError as error:  # another one where IPv6 is off
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def _free(root: str, path: str) -> int:
    """Bytes."""
    try:
        found = os.statvfs(str(Path(root, path[1:])))
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _is_read_only(root: str, path: str) -> bool:
    try:
        return bool(os.statvfs(str(Path(root, path[1:]))).f_flag & os.ST_RDONLY)
    except OSError:  # there is no such folder
        return False


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def _text(root: str, path: str) -> str:
    try:
        with Path(root, path).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""
