"""A network namespace with a bridge, and hosts' roots: held by one process, with which all of it is gone.

That process is init of a process namespace, so that no host outlives it, however this one ends. Needs root.
"""

import contextlib
import os
import subprocess
from pathlib import Path

NETWORK = "10.9.0"
OWN = f"{NETWORK}.254"
"""Of the bridge: from where tests speak to hosts."""

_HOLD = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/systemd /run/netns
mount -t tmpfs tmpfs /run/systemd
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip link add br0 type bridge mcast_snooping 0
ip address add {OWN}/24 dev br0
ip link set br0 up
echo up
cat >/dev/null
"""
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_HOSTS = 4096
"""inotify instances: each systemd takes some ten."""


class Lan:
    def __init__(self, folder: Path) -> None:
        """``folder`` for what hosts write; on a file system that overlayfs can write to."""
        if os.geteuid() != 0:
            raise PermissionError("hosts need root: namespaces, loop devices, control groups")
        self.folder = folder
        self.groups = [root / f"k3s-bake-{os.getpid()}" for root in _hierarchies()]
        """Control groups to make each host's own in."""
        self._inotify = _INOTIFY.read_text()
        _INOTIFY.write_text(str(max(_HOSTS, int(self._inotify))))
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            [*apart, "sh", "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout
        assert self._holder.stdout.readline() == "up\n"
        self.init = children(self._holder.pid)[0]

    def inside(self, *command: str | Path, net: str = "--net") -> list[str]:
        """The command, in here."""
        return ["nsenter", f"--target={self.init}", "--mount", net, "--pid", "--", *map(str, command)]

    def run(self, *command: str | Path) -> str:
        """What it prints."""
        done = subprocess.run(self.inside(*command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def root(self, image: Path) -> str:
        """Mount a baked image, for reading only: what ``Host`` takes for its lower folders."""
        place = self.folder / f"{image.stem}.root"
        boot = self.folder / f"{image.stem}.boot"
        if not place.exists():
            place.mkdir()
            (boot / "boot").mkdir(parents=True)
            at = {row["number"]: row for row in _partitions(image)}
            subprocess.run(
                ["mcopy", "-s", "-i", f"{image}@@{at[1]['start']}", "::*", boot / "boot"],
                env={**os.environ, "MTOOLS_SKIP_CHECK": "1"},
                check=True,
            )
            where = f"offset={at[2]['start']},sizelimit={at[2]['size']}"
            self.run("mount", "-t", "ext4", "-o", f"loop,ro,noload,{where}", image, place)
        return f"{boot}:{place}"

    def close(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.close()
        self._holder.wait(30)
        with contextlib.suppress(OSError):
            _INOTIFY.write_text(self._inotify)
        for group in self.groups:
            for root, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # as soon as its last process is gone
                    Path(root).rmdir()


def _hierarchies() -> list[Path]:
    """Of control groups: those that systemd makes groups in."""
    rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [
        Path(place)
        for _, place, kind, options, *_ in rows
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options)
    ]


def _partitions(image: Path) -> list[dict[str, int]]:
    """Numbers from 1, in bytes."""
    said = subprocess.run(
        ["partx", "--raw", "--noheadings", "--output", "NR,START,SECTORS", image],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [[int(word) for word in line.split()] for line in said.splitlines()]
    return [{"number": nr, "start": start * 512, "size": sectors * 512} for nr, start, sectors in rows]


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
