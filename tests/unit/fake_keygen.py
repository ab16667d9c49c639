"""ssh-keygen's stand-in for tests that start no process: real forms, no real signature."""

import base64
import struct
import time
from pathlib import Path

import pytest

from bake import ssh_keygen
from bake.ssh_keygen import Wish

_made = iter(range(1, 1 << 30))


def packed(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def public(raw: bytes) -> str:
    return f"ssh-ed25519 {base64.b64encode(packed(b'ssh-ed25519', raw)).decode()}"


def certificate(key: str, authority: str, wish: Wish, serial: int, expires: int) -> str:
    raw, signer = (base64.b64decode(text.split()[1]) for text in (key, authority))
    kind = b"ssh-ed25519-cert-v01@openssh.com"
    body = packed(kind, b"n" * 32, raw[-32:]) + struct.pack(">QI", serial, 2 if wish.host else 1)
    body += packed(wish.key_id.encode(), packed(wish.principal.encode()))
    body += struct.pack(">QQ", 0, expires) + packed(b"", b"", b"", signer, b"no signature")
    return f"{kind.decode()} {base64.b64encode(body).decode()}\n"


def install(patch: pytest.MonkeyPatch) -> None:
    def make_key(path: Path) -> None:
        number = next(_made)
        path.write_text(f"PRIVATE {number}\n")
        path.chmod(0o600)
        Path(f"{path}.pub").write_text(public(number.to_bytes(32, "big")) + "\n")

    def sign(authority: Path, key: Path, wish: Wish, serial: int) -> Path:
        expires = (1 << 64) - 1 if "forever" in wish.validity else int(time.time()) + 364 * 86400
        made = key.with_name("key-cert.pub")
        texts = (Path(f"{path}.pub").read_text() for path in (key, authority))
        made.write_text(certificate(*texts, wish, serial, expires))
        return made

    patch.setattr(ssh_keygen, "make_key", make_key)
    patch.setattr(ssh_keygen, "sign", sign)
