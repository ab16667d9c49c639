"""The forced command of a master's join service: hears a request, has it answered by the helper, answers.

Its account may do nothing else, and serves whoever has a certificate: nothing of what they send is run.
Runs on the node: Python 3.7, standard library only; started anew for each request, it imports little.
"""

import json
import os
import select
import socket
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from firstboot import certificate
from firstboot.contract import HELPER_SOCKET, MAX_ANSWER, is_address

_HEARD = 30.0
"""Seconds for a request to come in, over a link that loses most packets, too."""

_ANSWERED = 60.0

_CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"
VERBS = ("hand-out", "status", "rejoin", "kubeconfig", "revoke", "release")


def main() -> int:
    """Exit code 0 for a refusal, too: it is an answer."""
    answer = _answer(dict(os.environ))
    sys.stdout.write(answer + "\n")
    sys.stdout.flush()
    return 0


def _answer(environment: Mapping[str, str]) -> str:
    verb = environment.get("SSH_ORIGINAL_COMMAND", "")
    if verb not in VERBS:
        return _refusal("not-allowed")
    signed = _certificate(environment.get("SSH_USER_AUTH", ""))
    address = own_address(environment.get("SSH_CONNECTION", ""))
    if signed is None or address is None:
        return _refusal("not-allowed")
    request = parsed(_heard(0, _HEARD))
    if request is None:
        return _refusal("bad-answer")
    sys.stdout.write(" ")  # heard: whoever waits for the answer need not ask once more beside it
    sys.stdout.flush()
    asked = {"verb": verb, "request": request, "address": address}
    asked.update(key_id=signed.key_id, principals=signed.principals, certificate=signed.text)
    return _by_helper(json.dumps(asked).encode())


def _refusal(reason: str) -> str:
    return json.dumps({"error": reason})


def parsed(data: bytes) -> Optional[Dict[str, Any]]:
    """A request; none at all is an empty one. None for what is no JSON object."""
    try:
        found = json.loads(data.decode("utf-8")) if data.strip() else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def own_address(connection: str) -> Optional[str]:
    """Of this master, as the asker reached it: the third word of SSH_CONNECTION."""
    words = connection.split()
    address = words[2].partition("%")[0] if len(words) == 4 else ""
    return address if is_address(address) else None


class Signed(NamedTuple):
    """A certificate that sshd has checked."""

    key_id: str
    principals: List[str]
    text: str


def signed_of(text: str) -> Optional[Signed]:
    """Of what sshd writes with ExposeAuthInfo."""
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["publickey", _CERTIFICATE]:
            try:
                found = certificate.read(" ".join(words[1:]))
            except ValueError:
                return None
            return Signed(found.key_id, list(found.principals), " ".join(words[1:]))
    return None


def _certificate(path: str) -> Optional[Signed]:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:  # noqa: PTH123 (pathlib is slow)
            return signed_of(stream.read(MAX_ANSWER))
    except OSError:
        return None


def _heard(handle: int, seconds: float) -> bytes:
    """All that comes until its end. What is too long or too slow counts as garbled."""
    end, data = time.monotonic() + seconds, b""
    while len(data) <= MAX_ANSWER:
        if not select.select([handle], [], [], max(0.0, end - time.monotonic()))[0]:
            return b"too slow"
        piece = os.read(handle, 65536)
        if not piece:
            return data
        data += piece
    return b"too long"


def _by_helper(asked: bytes) -> str:
    try:
        with socket.socket(socket.AF_UNIX) as helper:
            helper.settimeout(_ANSWERED)
            helper.connect(HELPER_SOCKET)
            helper.sendall(asked)
            helper.shutdown(socket.SHUT_WR)
            answer = _heard(helper.fileno(), _ANSWERED)
    except OSError:
        return _refusal("not-ready")
    return answer.decode("utf-8", "replace").strip() or _refusal("not-ready")
