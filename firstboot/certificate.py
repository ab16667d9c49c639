"""Read OpenSSH's public keys and certificates: pure. It checks no signature: ssh does that.

Runs on the node too: Python 3.7, standard library only.
"""

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import List, Tuple

FOREVER = (1 << 64) - 1
_TYPE = "ssh-ed25519-cert-v01@openssh.com"
_KEY_TYPE = "ssh-ed25519"


@dataclass(frozen=True)
class Certificate:
    key: str
    """The public key that it is for, as ``public_key`` gives it."""
    serial: int
    key_id: str
    principals: Tuple[str, ...]
    expires: int
    """Seconds since 1970, or FOREVER."""
    authority: str
    """The public key that signed it."""


def public_key(text: str) -> str:
    """``ssh-ed25519 AAAA...`` without its comment. ValueError for anything else."""
    words = text.split()
    if len(text.splitlines()) != 1 or len(words) < 2 or words[0] != _KEY_TYPE:
        raise ValueError("no Ed25519 public key")
    blob = _blob(words[1])
    if _Reader(blob).text() != _KEY_TYPE or len(blob) != 51:
        raise ValueError("no Ed25519 public key")
    return f"{words[0]} {words[1]}"


def fingerprint(key: str) -> str:
    """``SHA256:...``, as ``ssh-keygen -l`` says it."""
    digest = hashlib.sha256(_blob(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def read(text: str) -> Certificate:
    """ValueError for what is no certificate of an Ed25519 key by an Ed25519 key."""
    words = text.split()
    if len(words) < 2 or words[0] != _TYPE:
        raise ValueError("no certificate")
    reader = _Reader(_blob(words[1]))
    if reader.text() != _TYPE:
        raise ValueError("no certificate")
    reader.data()  # the nonce
    key = reader.data()
    serial = reader.number(8)
    reader.number(4)  # of a user, or of a host
    key_id = reader.text()
    principals = reader.data()
    reader.number(8)  # valid after
    expires = reader.number(8)
    for _ in ("critical options", "extensions", "reserved"):
        reader.data()
    return Certificate(
        _shown(_packed(_KEY_TYPE.encode()) + _packed(key)),
        serial,
        key_id,
        tuple(_Reader(principals).texts()),
        expires,
        _shown(reader.data()),
    )


class _Reader:
    """SSH's wire format: RFC 4251, section 5."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def data(self) -> bytes:
        return self._take(self.number(4))

    def text(self) -> str:
        return self.data().decode()

    def texts(self) -> List[str]:
        found = []
        while self._rest:
            found.append(self.text())
        return found

    def _take(self, size: int) -> bytes:
        if size > len(self._rest):
            raise ValueError("cut off")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _blob(word: str) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def _packed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _shown(blob: bytes) -> str:
    return f"{_KEY_TYPE} {base64.b64encode(blob).decode()}"
