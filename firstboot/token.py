"""Ask a master over SSH: for the token to join with, and for whatever else its join service answers.

Runs on the node too: Python 3.7, standard library only.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

from firstboot.contract import JOIN_PORT, JOIN_USER, MAX_ANSWER, REASONS, host_alias, is_address
from firstboot.errors import WorkFailed
from firstboot.programs import FAILED, run

_AGAIN = (5.0, 10.0)
"""Seconds after which a question without an answer is asked beside it once more: a connection that has lost
some packets in a row waits long, by TCP's rules, where another one gets through."""

_ONCE = frozenset({"rejoin", "revoke", "release"})
"""What changes something is not asked twice at a time."""

_TOKEN = re.compile(r"K10[0-9a-f]{64}::[!-~]{1,256}")  # a token without K10 is not checked against the CA


@dataclass(frozen=True)
class Trust:
    """What proves who we are, and by which a master is known: paths of files for ssh."""

    cluster: str
    key: str
    certificate: str
    known_hosts: str


class NotAnswered(WorkFailed):
    """No answer that can be trusted; ``reason`` is a code of contract.REASONS."""

    def __init__(self, reason: str, waited: bool = False) -> None:
        """``waited``: the master has let us wait, and it is no use to back off."""
        super().__init__(f"{reason}: {REASONS[reason]}")
        self.reason = reason
        self.waited = waited


@dataclass(frozen=True)
class Grant:
    """A master's answer to ``hand-out``, checked."""

    token: str
    """In K10 form. Never shown: see __repr__."""
    server: str
    """``https://`` and an address: K3s, a static program, cannot look up .local names."""
    ca: str
    """SHA-256 of the cluster's CA, in hexadecimal digits: which K3s cluster this is."""
    k3s: str
    time: int
    """The master's clock, in seconds since 1970."""
    agent_token: str = ""
    """For a further master: what the agents' tokens are made of, the same on all masters. Never shown."""

    def __repr__(self) -> str:
        return f"Grant(server={self.server!r}, k3s={self.k3s!r})"


def ask(
    address: str, verb: str, request: Mapping[str, Any], trust: Trust, limit: float = 15.0
) -> Dict[str, Any]:
    """What the master at an address answers. NotAnswered where it is none of this cluster, refuses our
    certificate or says nothing in ``limit`` seconds; a refusal of its own is an answer: ``{"error": code}``.

    Nothing is sent before the master has proved itself by a certificate of the cluster's authority.
    """
    again = () if verb in _ONCE else _AGAIN
    command, given = _command(address, verb, trust), json.dumps(request).encode()
    code, answer, complaint = run(command, given, MAX_ANSWER, limit, again)
    if code == FAILED or (code != 0 and not answer):  # ssh's own; others are the service's
        raise NotAnswered(reason_of(complaint))
    try:
        found = json.loads(answer.decode("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotAnswered("bad-answer")
    error = found.get("error")
    known = error is None or (isinstance(error, str) and error in REASONS)
    return found if known else {"error": "bad-answer"}


def grant_of(answer: Mapping[str, Any]) -> Grant:
    """NotAnswered with the master's own reason for a refusal, or for what no master of ours says."""
    if "error" in answer:
        raise NotAnswered(str(answer["error"]), answer.get("waited") is True)
    token, server, ca = (str(answer.get(key, "")) for key in ("token", "server", "ca"))
    version, moment = str(answer.get("k3s", "")), answer.get("time")
    agents = str(answer.get("agent_token", ""))
    url = re.fullmatch(r"https://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):[0-9]{1,5}", server)
    good = (
        _TOKEN.fullmatch(token)
        and url is not None
        and is_address(url.group(1) or url.group(2))
        and re.fullmatch(r"[0-9a-f]{64}", ca)
        and token.startswith(f"K10{ca}::")
        and re.fullmatch(r"[!-~]{0,256}", agents)
        and re.fullmatch(r"v[0-9][0-9A-Za-z.+-]{0,30}|", version)
        and isinstance(moment, int)
        and 0 < moment < 1 << 33
    )
    if not good or not isinstance(moment, int):
        raise NotAnswered("bad-answer")
    return Grant(token, server, ca, version, moment, agents)


def _command(address: str, verb: str, trust: Trust) -> List[str]:
    if not is_address(address):
        raise NotAnswered("unreachable")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": _quoted(trust.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": host_alias(trust.cluster),
        "HostKeyAlgorithms": "ssh-ed25519-cert-v01@openssh.com",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": _quoted(trust.key),
        "CertificateFile": _quoted(trust.certificate),
        "PreferredAuthentications": "publickey",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "ForwardAgent": "no",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "2",
        "LogLevel": "ERROR",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "/dev/null", "-T", "-p", str(JOIN_PORT), *words, f"{JOIN_USER}@{address}", verb]


def _quoted(path: str) -> str:
    """As ssh_config(5) reads it: a folder's name may hold a space, and ``%`` begins a token."""
    return '"' + path.replace("%", "%%") + '"'


def reason_of(complaint: str) -> str:
    """A code of contract.REASONS for what ssh says where it fails."""
    if re.search(r"Host key verification failed|No .* host key is known|no matching host key", complaint):
        return "untrusted-master"
    if re.search(r"Permission denied|Too many authentication failures", complaint):
        return "credential-refused"
    if "Load key" in complaint or "no such identity" in complaint:
        return "no-credential"
    return "unreachable"
