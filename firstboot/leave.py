"""A node that is none any more, or that begins anew: K3s and the agent off, and what they have made gone.

Runs on the node: Python 3.7, standard library only.
"""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Iterable, Iterator, List, Sequence

from firstboot import avahi, kubernetes, machine, registry
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
from firstboot.errors import WorkFailed
from firstboot.programs import run

_SOCKET = "k3s-bake-helper.socket"
_OURS = (UNIT, JOIN_UNIT, _SOCKET, "k3s-bake-helper.service")
_K3S = ("k3s.service", "k3s-agent.service")
_BROUGHT = (HOST_CERTIFICATE, HOST_KEY, JOIN_CERTIFICATE, JOIN_KEY, NAME, K3S_DATASTORE)
"""By the card, or by an adoption."""
_MADE = (
    *(STATE, avahi.FILE, registry.PATH),
    *(K3S_AGENT_TOKEN, K3S_PASSWORD, K3S_TOKEN, "/etc/rancher/k3s/k3s.yaml"),
)
_DATA = "/var/lib/rancher/k3s"
_PEOPLES = (
    f"{_DATA}/agent/images",
    f"{_DATA}/storage",
    *(f"{_DATA}/server/{name}" for name in ("manifests", "db/snapshots")),
)
"""Put there by people and their programs: images, volumes of the local-path storage, manifests, snapshots."""
_FOLDERS = (_DATA, "/var/lib/kubelet", "/run/k3s", "/run/flannel", "/var/lib/cni")
_EMPTY = (
    *("/etc/rancher/node", "/etc/rancher/k3s/config.yaml.d", "/etc/rancher/k3s", "/etc/rancher"),
    "/var/lib/rancher",
)
_NETWORKS = "/run/netns/cni-"
_LINKS = ("cni0", "flannel.1", "flannel-v6.1", "kube-ipvs0", "flannel-wg")
_RULES = re.compile(r"KUBE-|CNI-|flannel", re.IGNORECASE)
"""As k3s-killall.sh of K3s's own installer chooses them."""


def stop(*, for_good: bool = True) -> None:
    """Units and containers, mounts, interfaces and rules. What is not there is passed over.

    Not ``for_good``: a boot starts the agent.
    """
    run(["systemctl", *(["disable", "--now"] if for_good else ["stop"]), *_OURS], limit=120)
    run(["systemctl", "disable", "--now", *_K3S], limit=120)
    for pid in _containers():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for place in reversed(list(_mounts())):
        if place.startswith(_NETWORKS) or _is_ours(place, "/", () if for_good else _PEOPLES):
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
    """Files and folders of a node that has been stopped. Raises as ``clear``."""
    _refuse_mounted(root)
    _delete(root, (*_BROUGHT, *_MADE, machine.RESETTING))
    for path in _FOLDERS:
        _empty(Path(root, path[1:]), [])
    for path in (*_FOLDERS, *_EMPTY):
        with contextlib.suppress(OSError):  # it holds what is not ours
            Path(root, path[1:]).rmdir()


def clear(root: str = "/", *, leads: bool = False) -> None:
    """What K3s and the agent have made, on a node that has been stopped; what they were given stays.

    Of a master that ``leads`` a token was given, too. A cluster in a datastore elsewhere outlives this, and
    opens with its master's token alone. OSError for what does not go: K3s would start with it. WorkFailed
    where something is mounted in it still.
    """
    _refuse_mounted(root, _PEOPLES)
    kept = [*_PEOPLES, *([K3S_TOKEN] if leads else [])]
    if Path(root, K3S_DATASTORE[1:]).exists():
        kept += [K3S_TOKEN, K3S_AGENT_TOKEN, K3S_PASSWORD, kubernetes.SERVER_TOKEN]
    _delete(root, [path for path in _MADE if path not in kept])
    for folder in _FOLDERS:
        _empty(
            Path(root, folder[1:]), [path for path in (Path(root, one[1:]) for one in kept) if path.exists()]
        )


def begin() -> None:
    """What a boot starts of ours."""
    for unit in (_SOCKET, JOIN_UNIT, UNIT):
        if run(["systemctl", "is-enabled", "--quiet", unit], limit=20)[0] == 0:
            run(["systemctl", "start", "--no-block", unit], limit=20)


def _delete(root: str, paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            Path(root, path[1:]).unlink()


def _empty(folder: Path, kept: Sequence[Path]) -> None:
    """All in it but ``kept``. The folder stays: it may be a link to a larger disk, or one's mount point."""
    if folder.exists() and not folder.is_dir():
        folder.unlink()
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path in kept:
            continue
        if path.is_dir() and any(path in one.parents for one in kept):
            _empty(path, kept)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(str(path))
        else:
            path.unlink()


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


def _refuse_mounted(root: str, kept: Sequence[str] = ()) -> None:
    """WorkFailed where something is mounted in what is to be deleted: a volume would be emptied with it."""
    for place in _mounts():
        if _is_ours(place, root, kept):
            raise WorkFailed(f"{place} is mounted there still", f"sudo umount {place}, then run it again.")


def _is_ours(place: str, root: str, kept: Sequence[str]) -> bool:
    """Mounted below a folder of K3s's, which may be a link to a larger disk, or the disk's mount point."""

    def is_in(folder: str, *, itself: bool) -> bool:
        real = os.path.realpath(str(Path(root, folder[1:])))
        return place.startswith(f"{real}/") or (itself and place == real)

    is_kept = any(is_in(folder, itself=True) for folder in kept)
    return not is_kept and any(is_in(folder, itself=False) for folder in _FOLDERS)


def _mounts() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            # Blanks and their like are written as three octal digits there.
            yield re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), line.split()[1])
