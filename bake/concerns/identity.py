"""Who the node is, and who may log in: names, machine-id, time zone, SSH and its keys."""

import re
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit, Link, Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import File, Probe

_SSHD = "/etc/ssh/sshd_config"
_UNITS = "/etc/systemd/system"
_STARTED = f"{_UNITS}/multi-user.target.wants/ssh.service"
_ALIAS = f"{_UNITS}/sshd.service"
_ZONES = "/usr/share/zoneinfo"

PROBES = (
    Probe("/etc/hostname"),
    Probe("/etc/hosts"),
    Probe("/etc/machine-id"),
    Probe("/var/lib/dbus/machine-id"),
    Probe("/etc/localtime"),
    Probe("/etc/timezone"),
    Probe("/etc/passwd"),
    Probe(_ZONES, "names"),
    Probe(f"{_ZONES}/*", "names"),
    Probe(_SSHD),
    Probe("/lib/systemd/system/ssh.service", "head"),
    Probe(_STARTED),
    Probe(_ALIAS),
    Probe("/boot/ssh"),
    Probe("/boot/*/ssh"),
    Probe("/home/*/.ssh/authorized_keys"),
    Probe("/root/.ssh/authorized_keys"),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    yield Write("/etc/hostname", f"{spec.hostname}\n".encode())
    yield facts.rewritten("/etc/hosts", with_hostname(facts.text("/etc/hosts") or "", spec.hostname))
    yield from _machine_id(facts)
    if spec.timezone is not None:
        yield from _timezone(spec.timezone, facts)
    yield from _ssh(spec, facts)


def with_hostname(hosts: str, name: str) -> str:
    """/etc/hosts with 127.0.1.1 as this host: sudo and K3s both look their own name up."""
    line = f"127.0.1.1\t{name}"
    changed, count = re.subn(r"^127\.0\.1\.1[ \t].*$", line, hosts, count=1, flags=re.MULTILINE)
    if count:
        return changed
    return hosts + ("" if hosts.endswith("\n") or not hosts else "\n") + line + "\n"


def _machine_id(facts: NodeFacts) -> Iterator[Edit | Note]:
    """Left empty, so that each card makes its own at its first boot: DHCP and the journal go by it."""
    found = facts.found.get("/etc/machine-id")
    yield Write("/etc/machine-id", b"", (found.mode or 0o444) if isinstance(found, File) else 0o444)
    if isinstance(facts.found.get("/var/lib/dbus/machine-id"), File):
        yield Remove("/var/lib/dbus/machine-id")  # a copy of its own would be every card's; a link is well


def _timezone(zone: str, facts: NodeFacts) -> Iterator[Edit | Note]:
    path = f"{_ZONES}/{zone}"
    # Two levels are looked at; the third (America/Argentina/Ushuaia) is not worth six hundred questions.
    area, _, city = zone.partition("/")
    known = facts.found.names(f"{_ZONES}/{area}" if city else _ZONES)
    if zone.startswith("/") or ".." in zone or (city or area).partition("/")[0] not in known:
        raise UserError(f"the image knows no time zone '{zone[:60]}'", "like Europe/Berlin or Etc/UTC")
    yield Link("/etc/localtime", path)
    yield Write("/etc/timezone", f"{zone}\n".encode())


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
            yield Note(
                f"SSH is on and takes the password of {spec.user}, which every image of this kind shares"
            )
    elif spec.ssh is False:
        for path in (_STARTED, _ALIAS, f"{facts.boot}/ssh"):
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
    lines = (facts.text(path) or "").splitlines()
    lines += [key.strip() for key in spec.authorized_keys if key.strip() not in lines]
    text = "".join(f"{line}\n" for line in dict.fromkeys(lines))
    return Write(path, text.encode("utf-8", "surrogateescape"), 0o600, user.uid, user.gid)


def without_passwords(config: str) -> str:
    """sshd_config with password logins off: sshd takes the first value it meets, so ours goes first."""
    wanted = "PasswordAuthentication no"
    lines = config.splitlines()
    ours = "# k3s-bake: only keys"
    if lines[:2] == [ours, wanted]:
        return config
    return "\n".join([ours, wanted, *lines]) + "\n"
