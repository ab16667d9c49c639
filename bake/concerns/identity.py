"""Who the node is, and who may log in: names, machine-id, time zone, SSH and its keys."""

import re
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit, Link, Remove, Write
from firstboot.errors import UserError
from firstboot.node import with_hostname
from firstboot.snapshot import File, Folder, Probe, Symlink

_SSHD = "/etc/ssh/sshd_config"
_UNITS = "/etc/systemd/system"
_STARTED = f"{_UNITS}/multi-user.target.wants/ssh.service"
_ALIAS = f"{_UNITS}/sshd.service"
_ZONES = "/usr/share/zoneinfo"
_DEEP_AREAS = ("America/Argentina", "America/Indiana", "America/Kentucky", "America/North_Dakota")
"""The folders within areas: asking after each name of each area would cost six hundred questions."""
_SSH_FLAGS = ("ssh", "ssh.txt")  # Raspbian's first boot turns SSH on for either

PROBES = (
    Probe("/etc/hostname"),
    Probe("/etc/hosts"),
    Probe("/etc/machine-id"),
    Probe("/var/lib/dbus/machine-id"),
    Probe("/etc/localtime"),
    Probe("/etc/timezone"),
    Probe("/etc/passwd"),
    Probe(f"{_ZONES}/*", "names"),
    *(Probe(f"{_ZONES}/{area}", "names") for area in _DEEP_AREAS),
    Probe(_SSHD),
    Probe("/lib/systemd/system/ssh.service", "head"),
    Probe(_STARTED),
    Probe(_ALIAS),
    *(Probe(f"/boot/{name}") for name in _SSH_FLAGS),
    *(Probe(f"/boot/*/{name}") for name in _SSH_FLAGS),
    Probe("/home/*/.ssh/authorized_keys"),
    Probe("/root/.ssh/authorized_keys"),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if spec.name is not None or not facts.live:  # else its agent names it, or nobody does
        yield Write("/etc/hostname", f"{spec.hostname}\n".encode())
        yield facts.rewritten("/etc/hosts", with_hostname(facts.text("/etc/hosts") or "", spec.hostname))
    if not facts.live:
        yield from _machine_id(facts)
    if spec.timezone is not None:
        yield from _timezone(spec.timezone, facts)
    yield from _ssh(spec, facts)


def _machine_id(facts: NodeFacts) -> Iterator[Edit | Note]:
    """Left empty, so that each card makes its own at its first boot: DHCP and the journal go by it."""
    found = facts.found.get("/etc/machine-id")
    yield Write("/etc/machine-id", b"", (found.mode or 0o444) if isinstance(found, File) else 0o444)
    if isinstance(facts.found.get("/var/lib/dbus/machine-id"), File):
        yield Remove("/var/lib/dbus/machine-id")  # a copy of its own would be every card's; a link is well


def _timezone(zone: str, facts: NodeFacts) -> Iterator[Edit | Note]:
    if not _is_zone(zone, facts):
        raise UserError(f"the image knows no time zone {zone[:60]!r}", "like Europe/Berlin or Etc/UTC")
    yield Link("/etc/localtime", f"{_ZONES}/{zone}")
    yield Write("/etc/timezone", f"{zone}\n".encode())


def _is_zone(zone: str, facts: NodeFacts) -> bool:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", zone):  # zone.tab and posix/ are none
        return False
    there = facts.found.get(f"{_ZONES}/{zone}")
    area, _, city = zone.rpartition("/")
    if not area:
        return isinstance(there, File | Symlink)
    return city in facts.found.names(f"{_ZONES}/{area}") and not isinstance(there, Folder)


def _ssh(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if spec.authorized_keys:
        yield _authorized(spec, facts)
        yield facts.rewritten(_SSHD, without_passwords(facts.text(_SSHD) or ""))
    wanted = bool(spec.authorized_keys) if spec.ssh is None else spec.ssh
    if wanted:
        if not facts.exists("/lib/systemd/system/ssh.service"):
            raise UserError(
                "the image has no OpenSSH server", "Install openssh-server in the base, or --no-ssh."
            )
        # Links, as 'systemctl enable ssh' makes them, rather than Raspbian's flag file on /boot, which
        # works once.
        yield Link(_STARTED, "/lib/systemd/system/ssh.service")
        yield Link(_ALIAS, "/lib/systemd/system/ssh.service")
        if not spec.authorized_keys:
            yield Note(f"SSH is on and takes passwords: of {spec.user}, if the base has set one")
    elif spec.ssh is False:
        folders = dict.fromkeys(("/boot", facts.boot))
        for path in (_STARTED, _ALIAS, *(f"{folder}/{name}" for folder in folders for name in _SSH_FLAGS)):
            yield Remove(path)
    else:
        yield Note("SSH is left as the base has it: --authorized-key or --ssh turns it on")


def _authorized(spec: NodeSpec, facts: NodeFacts) -> Write:
    """The keys given, after those that are there."""
    if spec.user not in facts.users:
        known = ", ".join(name for name, user in facts.users.items() if 1000 <= user.uid < 60000)
        raise UserError(f"the image has no user '{spec.user}'", f"--user takes one of: {known or 'root'}")
    user = facts.users[spec.user]
    path = f"{user.home}/.ssh/authorized_keys"
    if not facts.found.covers(path) or ".." in path:
        raise UserError(f"the home of {spec.user} is {user.home!r}", "Keys go to a home in /home, or root's.")
    lines = (facts.text(path) or "").splitlines()
    lines += [key.strip() for key in spec.authorized_keys if key.strip() not in lines]
    text = "".join(f"{line}\n" for line in dict.fromkeys(lines))
    return Write(path, text.encode("utf-8", "surrogateescape"), 0o600, user.uid, user.gid)


def without_passwords(config: str) -> str:
    """sshd_config with password logins off: sshd takes the first value it meets, so ours goes first."""
    # The last is OpenSSH 7.9's name of what PAM asks by keyboard: a password again, unless it is off.
    ours = "# k3s-bake: only keys\nPasswordAuthentication no\nChallengeResponseAuthentication no\n"
    return config if config.startswith(ours) else ours + config
