"""Machines that run, as a person has them at first: the sample base, with a user who may use sudo."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from rig.hosts import Host, wait
from rig.lan import Lan

_UID = 1000


class Person:
    """Who adopts, with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ssh = home / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        self.key = self.ssh / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.public_key = self.key.with_suffix(".pub")


def machine(lan: Lan, base: Path, number: int, person: Person | None) -> Host:
    """Off, until it is started. ``person`` may log in as pi, and be root by sudo."""
    host = Host(lan, number, lan.root(base))
    host.link("etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service")
    if person:
        keys = host.upper / "home/pi/.ssh/authorized_keys"
        host.put("home/pi/.ssh/authorized_keys", person.public_key.read_text(), 0o600)
        for path in (keys, keys.parent, keys.parent.parent):
            os.chown(path, _UID, _UID)
    return host


def until(hosts: list[Host], is_so: Callable[[Host], bool]) -> None:
    for host in hosts:
        wait(lambda host=host: is_so(host), 60, lambda host=host: f"{host.name} is not ready")  # type: ignore[misc]


def answers(host: Host) -> bool:
    """Its sshd does."""
    return ":22 " in host.run("ss -tln", check=False)
