"""The join service of a master: a second sshd with port, account and keys of its own, and its root helper.

The sshd that people log in by stays as it is: Buster's, OpenSSH 7.9, cannot include another configuration.
"""

from collections.abc import Iterator, Mapping

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.render import render
from bake.spec import NodeSpec, Role
from firstboot.contract import (
    AGENT,
    AUTHORITY,
    HELPER_SOCKET,
    HOST_CERTIFICATE,
    HOST_KEY,
    JOIN_PORT,
    JOIN_UNIT,
    JOIN_USER,
    MASTER,
    OPERATOR,
    PRINCIPALS,
    REVOKED,
    WORKER,
)
from firstboot.edits import Edit, Link, Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import Probe

_UNITS = "/etc/systemd/system"
_CONFIG = "/etc/k3s-bake/sshd_config"
_SERVICE, _HELPER, _SOCKET = (
    f"{_UNITS}/{name}" for name in (JOIN_UNIT, "k3s-bake-helper.service", "k3s-bake-helper.socket")
)
_STARTED = (
    f"{_UNITS}/multi-user.target.wants/{JOIN_UNIT}",
    f"{_UNITS}/sockets.target.wants/k3s-bake-helper.socket",
)
_ACCOUNTS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow")

PROBES = (
    *(Probe(path) for path in (_CONFIG, _SERVICE, _HELPER, _SOCKET, *_STARTED)),
    *(Probe(path) for path in (AUTHORITY, PRINCIPALS)),
    Probe(REVOKED, "digest"),
    Probe(HOST_KEY, "digest"),
    *(Probe(path) for path in _ACCOUNTS),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if spec.role is not Role.MASTER or spec.first_boot is None:
        for path in (*_STARTED, _SERVICE, _HELPER, _SOCKET, _CONFIG, AUTHORITY, PRINCIPALS, REVOKED):
            yield Remove(path)
        return
    if not facts.has("openssh-server"):
        raise UserError(
            "the image has no OpenSSH server, by which masters let nodes in",
            "Install openssh-server in the base, or --no-agent.",
        )
    yield from _account(facts)
    yield Write(AUTHORITY, f"{spec.first_boot.authority}\n".encode())
    yield Write(PRINCIPALS, "".join(f"{name}\n" for name in (WORKER, MASTER, OPERATOR)).encode())
    if not facts.exists(REVOKED):  # sshd refuses everybody without it; a list that is there stays
        yield Write(REVOKED, b"")
    values = {
        "agent": AGENT,
        "authority": AUTHORITY,
        "config": _CONFIG,
        "host_certificate": HOST_CERTIFICATE,
        "host_key": HOST_KEY,
        "port": JOIN_PORT,
        "principals": PRINCIPALS,
        "revoked": REVOKED,
        "socket": HELPER_SOCKET,
        "user": JOIN_USER,
    }
    yield Write(_CONFIG, render("join-sshd_config.j2", **values))
    yield Write(_SERVICE, render("k3s-bake-join.service.j2", **values))
    yield Write(_HELPER, render("k3s-bake-helper.service.j2", **values))
    yield Write(_SOCKET, render("k3s-bake-helper.socket.j2", **values))
    yield Link(_STARTED[0], _SERVICE)
    yield Link(_STARTED[1], _SOCKET)


def secrets(facts: NodeFacts) -> Iterator[str]:
    """The files that hold one now."""
    if facts.exists(HOST_KEY):
        yield HOST_KEY


def _account(facts: NodeFacts) -> Iterator[Edit]:
    """As ``adduser --system`` makes one. ``*``: no password opens it; ``!`` would lock keys out, too."""
    number = _number(facts)
    lines: Mapping[str, str] = {
        "/etc/passwd": f"{JOIN_USER}:x:{number}:{number}:K3s join service:/nonexistent:/bin/sh",
        "/etc/shadow": f"{JOIN_USER}:*:18000:0:99999:7:::",
        "/etc/group": f"{JOIN_USER}:x:{number}:",
        "/etc/gshadow": f"{JOIN_USER}:!::",
    }
    for path, line in lines.items():
        text = facts.text(path)
        if text is None and path.endswith("shadow"):
            continue  # a system without shadow passwords
        text = text or ""
        if f"\n{JOIN_USER}:" not in f"\n{text}":
            gap = "" if text.endswith("\n") or not text else "\n"
            write = facts.rewritten(path, f"{text}{gap}{line}\n")
            hidden = path.endswith("shadow")  # everybody's password hashes are in it
            yield Write(write.path, write.content, write.mode, write.owner, write.group, secret=hidden)


def _number(facts: NodeFacts) -> int:
    """The account's, or the highest free one of those that Debian keeps for systems."""
    rows = [line.split(":") for path in ("/etc/passwd", "/etc/group") for line in _lines(facts, path)]
    taken = {row[2]: row[0] for row in rows if len(row) > 2}
    return next(number for number in range(999, 99, -1) if taken.get(str(number), JOIN_USER) == JOIN_USER)


def _lines(facts: NodeFacts, path: str) -> list[str]:
    return (facts.text(path) or "").splitlines()
