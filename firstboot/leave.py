"""A node that is none any more: K3s and the agent off, and all that they have made gone.

Runs on the node: Python 3.7, standard library only.
"""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Iterator, List

from firstboot import avahi, registry
from firstboot.contract import (
    HOST_CERTIFICATE,
    HOST_KEY,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    JOIN_UNIT,
    K3S_AGENT_TOKEN,
    K3S_DATASTORE,
    K3S_PASSWORD,
    K3S_TOKEN,
    NAME,
    STATE,
    UNIT,
)
from firstboot.programs import run

_UNITS = (
    UNIT,
    JOIN_UNIT,
    "k3s-bake-helper.socket",
    "k3s-bake-helper.service",
    "k3s.service",
    "k3s-agent.service",
)
_FILES = (
    *(HOST_CERTIFICATE, HOST_KEY, JOIN_CERTIFICATE, JOIN_KEY, NAME, STATE, avahi.FILE, registry.PATH),
    *(K3S_AGENT_TOKEN, K3S_DATASTORE, K3S_PASSWORD, K3S_TOKEN, "/etc/rancher/k3s/k3s.yaml"),
)
_FOLDERS = ("/var/lib/rancher/k3s", "/var/lib/kubelet", "/run/k3s", "/run/flannel", "/var/lib/cni")
_EMPTY = (
    *("/etc/rancher/node", "/etc/rancher/k3s/config.yaml.d", "/etc/rancher/k3s", "/etc/rancher"),
    "/var/lib/rancher",
)
_MOUNTED = (
    *("/run/k3s", "/run/netns/cni-", "/var/lib/rancher/k3s"),
    *("/var/lib/kubelet/pods", "/var/lib/kubelet/plugins"),
)
_LINKS = ("cni0", "flannel.1", "flannel-v6.1", "kube-ipvs0", "flannel-wg")
_RULES = re.compile(r"KUBE-|CNI-|flannel", re.IGNORECASE)
"""As k3s-killall.sh of K3s's own installer chooses them."""


def stop() -> None:
    """Units and containers, mounts, interfaces and rules. What is not there is passed over."""
    run(["systemctl", "disable", "--now", *_UNITS], limit=120)
    for pid in _containers():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for place in reversed(list(_mounts())):
        run(["umount", "--lazy", place], limit=20)
    for name in _LINKS:
        run(["ip", "link", "delete", name], limit=20)
    for program in ("iptables", "ip6tables"):
        _, said, _ = run([f"{program}-save"], most=16 << 20, limit=30)
        lines = said.decode("utf-8", "surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if not _RULES.search(line)]
        if kept != lines:
            run([f"{program}-restore"], stdin="".join(kept).encode("utf-8", "surrogateescape"), limit=30)


def remove(root: str = "/") -> None:
    """Files and folders of a node that has been stopped."""
    for path in _FILES:
        with contextlib.suppress(FileNotFoundError):
            Path(root, path[1:]).unlink()
    for path in _FOLDERS:
        shutil.rmtree(str(Path(root, path[1:])), ignore_errors=True)
    for path in _EMPTY:
        with contextlib.suppress(OSError):  # it holds what is not ours
            Path(root, path[1:]).rmdir()


def _containers() -> Iterator[int]:
    """Shims and what runs under them: they outlive K3s, whose unit kills its own process alone."""
    tree: List[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            if b"containerd-shim" in command and b"/k3s/" in command:
                tree.append(int(folder.name))
    for pid in tree:
        yield pid
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
            tree += map(int, text.split())


def _mounts() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            place = line.split()[1]
            if place.startswith(_MOUNTED):
                yield place
