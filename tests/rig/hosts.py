"""Hosts with a real systemd, on one link: systemd-nspawn over a baked image that stays as it is.

They boot in a second where a virtual machine takes a minute. What they lack: a kernel, a clock and a firmware
of their own, a FAT partition (/boot is a folder), and disks whose writes a power cut could lose.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rig.lan import NETWORK, Lan, children

_INTERFACES = """auto lo
iface lo inet loopback
auto host0
iface host0 inet static
 address {address}/24
"""
_MASKED = (
    "dphys-swapfile.service",
    "e2scrub_reap.service",
    "resize2fs_once.service",
    "systemd-resolved.service",
)
_CPUINFO = "processor\t: 0\nmodel name\t: none, a host of a test\nSerial\t\t: {serial}\n"

# Systemd asks for a control group of its own; a restart of the system ends nspawn with 133.
_RUN = """
for group in {groups}; do mkdir -p $group && echo 0 >$group/cgroup.procs; done
mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {merged} || exit 1
while :; do
    systemd-nspawn --quiet --register=no --keep-unit --boot --machine={name} --directory={merged} \\
        --network-bridge=br0 --console=pipe --bind-ro=/etc/rig/cpuinfo:/proc/cpuinfo
    [ $? = 133 ] || exit 0
done
"""


class Host:
    """Off at first. ``number`` makes its address, ``serial`` its board."""

    def __init__(self, lan: Lan, number: int, lower: str, serial: str = "") -> None:
        self.lan = lan
        self.name = f"host{number}"
        self.address = ""
        self.lower = lower
        self.folder = lan.folder / self.name
        self.upper = self.folder / "upper"
        for name in ("upper", "work", "merged"):
            (self.folder / name).mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._read = 0
        self.log = self.folder / "console.log"
        self.put("etc/rig/cpuinfo", _CPUINFO.format(serial=serial or f"10000000{number:08x}"))
        self.move(number)
        self.put("etc/dhcpcd.conf", "denyinterfaces host0\n")
        self.put("etc/fstab", "/dev/mmcblk0p1 /boot vfat noauto 0 0\n")  # as far as it is looked at
        for unit in _MASKED:
            self.link(f"etc/systemd/system/{unit}", "/dev/null")

    # while it is off

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.upper / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def move(self, number: int) -> None:
        """To another address."""
        self.address = f"{NETWORK}.{number}"
        self.put("etc/network/interfaces", _INTERFACES.format(address=self.address))

    def link(self, path: str, target: str) -> None:
        place = self.upper / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def start(self) -> "Host":
        assert self._process is None
        merged = self.folder / "merged"
        groups = " ".join(str(folder / self.name) for folder in self.lan.groups)
        script = _RUN.format(
            groups=groups,
            lower=self.lower,
            upper=self.upper,
            work=self.folder / "work",
            merged=merged,
            name=self.name,
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.lan.inside("unshare", "--mount", "sh", "-c", script),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    # while it is on

    @property
    def is_on(self) -> bool:
        return self._process is not None

    @property
    def leader(self) -> int:
        """Its process 1, as this machine numbers it."""
        if not self._leader or not Path(f"/proc/{self._leader}/root/etc").exists():
            end = time.monotonic() + 120
            while not (found := self._find_leader()):
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.02)
            self._leader = found
        return self._leader

    def _find_leader(self) -> int:
        assert self._process
        line = [self._process.pid]
        while line:
            pid = line.pop()
            if _comm(pid) == "systemd":
                return pid
            line += children(pid)
        return 0

    def command(self, *command: str) -> list[str]:
        apart = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        return ["nsenter", f"--target={self.leader}", *apart, "--", *command]

    def run(self, script: str, check: bool = True) -> str:
        """What a shell script of root prints."""
        done = subprocess.run(
            self.command("sh", "-c", script),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{self.name}: {script}: {done.stderr}"
        return done.stdout.strip()

    def path(self, path: str) -> Path:
        """Of a file in there, for this process."""
        return Path(f"/proc/{self.leader}/root", path.lstrip("/"))

    def text(self, path: str) -> str:
        """Empty where it is not there."""
        try:
            return self.path(path).read_text()
        except OSError:
            return ""

    def state(self) -> dict[str, Any]:
        """The agent's memory."""
        found: dict[str, Any] = json.loads(self.text("var/lib/k3s-bake/state.json") or "{}")
        return found

    def until(self, phase: str, reason: str = "", seconds: float = 240) -> str:
        """The status file, when the agent has said so since power-on, or since the last ``until``."""
        words = f": {phase}" + (f" ({reason})" if reason else "")

        def is_so() -> bool:
            lines = self.said()
            at = next((at for at in range(self._read, len(lines)) if lines[at].endswith(words)), -1)
            self._read = at + 1 if at >= 0 else self._read
            return at >= 0

        wait(is_so, seconds, lambda: f"{self.name} has not said{words} after {self.said()}")

        def is_written() -> bool:  # the agent says it first
            shown = f"\nphase          {words[2:]}\n" in self.text("boot/k3s-bake-status.txt")
            return shown or len(self.said()) > self._read

        wait(is_written, seconds, lambda: f"the status file of {self.name} does not say{words}")
        return self.text("boot/k3s-bake-status.txt").strip()

    def said(self) -> list[str]:
        """By the agent, since power-on."""
        said = self.run("journalctl -u k3s-bake -o cat --no-pager", check=False)
        return [line for line in said.splitlines() if line.startswith("k3s-bake: ")]

    def lose(self, percent: int) -> None:
        """So many of the packets that come in, from now on; never a name's address (ARP)."""
        self.drop(f"numgen random mod 100 < {percent}" if percent else "")

    def drop(self, what: str) -> None:
        """Of the packets that come in, from now on those that nft's expression tells; empty: none."""
        rules = "flush ruleset\n"
        if what:
            rules += (
                "table inet loss {\n chain input {\n  type filter hook input priority -300\n"
                f"  iifname host0 {what} drop\n }}\n}}\n"
            )
        net = ["nsenter", f"--target={self.leader}", "--net", "nft", "-f", "-"]
        subprocess.run(net, input=rules, text=True, check=True)

    def stop(self) -> None:
        """As when the plug is pulled."""
        if self._process is None:
            return
        line = [self._process.pid]
        for pid in line:
            line += children(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(30)
        self._process, self._leader, self._read = None, 0, 0
        wait(lambda: not _is_busy(self.folder / "merged"), 10, lambda: f"{self.name} does not end")
        self.lan.run("sh", "-c", f"ip link delete vb-{self.name} 2>/dev/null || true")


def wait(is_so: Callable[[], bool], seconds: float, words: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, words()
        time.sleep(0.1)


def _is_busy(merged: Path) -> bool:
    """Whether some process still has that root."""
    for path in Path("/proc").glob("[0-9]*/mounts"):
        try:
            if f" {merged} " in path.read_text():
                return True
        except OSError:
            continue
    return False


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
