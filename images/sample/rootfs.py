"""Debian packages as a root file system, for foreign architectures and without root too."""

import hashlib
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

from bake import debian_mirror
from firstboot.errors import UserError

SUITE = "bullseye"
# Newer than every package of the suite, so that only what the build itself makes is dated by it.
EPOCH = "1725148800"  # 2024-09-01 00:00 UTC
PACKAGES = (
    "avahi-daemon,ca-certificates,curl,dbus,dhcpcd5,dphys-swapfile,e2fsprogs,fake-hwclock,fdisk,ifupdown,"
    "iproute2,iptables,iputils-ping,kmod,less,libnss-mdns,login,netbase,openssh-server,parted,passwd,procps,"
    "python3,rfkill,sudo,systemd,systemd-sysv,tzdata,udev,wpasupplicant"
)
OPTIONS = (
    "--variant=minbase",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{unread}/*" for unread in ("doc", "locale", "man")),
)


QEMU = {"armhf": "arm", "arm64": "aarch64", "amd64": "x86_64"}  # the names qemu-user-static uses
NO_BINFMT = 70  # an exit status that no tool here uses


class BuildError(Exception):
    """The build cannot go on; the text is one line and says what to do."""


def recipe(arch: str) -> str:
    """A hash of everything that decides what the root file system holds (the mirror does not)."""
    return hashlib.sha256(json.dumps([arch, SUITE, EPOCH, PACKAGES, OPTIONS]).encode()).hexdigest()[:12]


def build(arch: str, tar: Path) -> None:
    """Download and install the packages; `tar` is compressed as its name ends. Minutes under emulation."""
    try:
        acquire = [f"--aptopt={line}" for line in debian_mirror.apt_settings()]
        source = f"deb {debian_mirror.mirror()} {SUITE} main"
    except UserError as error:
        raise BuildError(f"{error.message}: {error.hint}") from error
    wanted = [f"--architectures={arch}", f"--include={PACKAGES}"]
    command = ["mmdebstrap", *OPTIONS, *acquire, *wanted, SUITE, str(tar), source]
    os.environ["SOURCE_DATE_EPOCH"] = EPOCH
    if subprocess.run(["arch-test", arch], stdout=subprocess.DEVNULL).returncode == 0:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    else:
        run_emulated(arch, command)


def run_emulated(arch: str, command: list[str]) -> None:
    """Run `command` as root of a user namespace that runs programs of `arch`.

    It has a binfmt_misc of its own, so nothing is registered on the machine, and no right is needed.
    """
    registration = Path(f"/usr/lib/binfmt.d/qemu-{QEMU[arch]}.conf")
    if not registration.exists():
        raise BuildError(f"nothing here runs {arch} programs: install qemu-user-static")
    binfmt = "/proc/sys/fs/binfmt_misc"
    # Each program started after the ids are mapped is root in the namespace; the shell itself is not.
    script = f"""
        echo && read -r _ &&
        mount -t binfmt_misc binfmt_misc {binfmt} && cat {registration} >{binfmt}/register || exit {NO_BINFMT}
        exec "$@" >&2 </dev/null"""
    unshare = ["unshare", "--user", "--mount", "sh", "-c", script, "sh", *command]
    with subprocess.Popen(unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if child.stdout and child.stdin and child.stdout.readline():
            map_ids(child.pid)
            child.stdin.write(b"\n")
    if child.returncode == NO_BINFMT:
        raise BuildError(
            f"{arch} programs do not run here, and before Linux 6.7 only root can change that: "
            "sudo systemctl restart systemd-binfmt"
        )
    if child.returncode:
        raise BuildError(f"mmdebstrap or its user namespace failed with status {child.returncode}")


def map_ids(pid: int) -> None:
    """Give a new user namespace 65536 ids: for root the same ones, for a user his own and the subordinate."""
    if os.geteuid() == 0:
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text("0 0 65536")
        return
    user = pwd.getpwuid(os.getuid()).pw_name
    for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
        ranges = [line.split(":") for line in Path(f"/etc/sub{kind}").read_text().splitlines()]
        first = next((start for name, start, count in ranges if name == user and int(count) >= 65535), None)
        if first is None:
            hint = f"sudo usermod --add-sub{kind}s 100000-165535 {user}"
            raise BuildError(f"{user} has no subordinate ids: {hint}")
        subprocess.run([f"new{kind}map", str(pid), "0", str(own), "1", "1", first, "65535"], check=True)
