"""Keys and certificates, made by ssh-keygen: it is given paths, never keys."""

from dataclasses import dataclass
from pathlib import Path

from bake import process
from firstboot.errors import UserError, WorkFailed

_ENV = {"SSH_ASKPASS_REQUIRE": "never"}  # a passphrase is asked for at the terminal, also under a desktop

FOREVER = "always:forever"
YEAR = "always:+52w"
"""Validity from always on: a node's clock may be years back."""


@dataclass(frozen=True)
class Wish:
    """What a certificate is to say."""

    key_id: str
    principal: str
    validity: str = YEAR
    host: bool = False


def make_key(path: Path) -> None:
    """An Ed25519 key without passphrase, 0600, and its public half beside it, ``.pub``."""
    process.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path), env=_ENV)


def sign(authority: Path, key: Path, wish: Wish, serial: int) -> Path:
    """The certificate of ``key.pub``, beside it. It permits no forwarding and no terminal.

    Signed through the agent where ``authority`` is absent and only ``authority.pub`` there.
    Raises UserError where the signing key cannot be used.
    """
    signer = ["-s", str(authority)] if authority.exists() else ["-U", "-s", f"{authority}.pub"]
    kind = ["-h"] if wish.host else ["-O", "clear"]
    says = ["-I", wish.key_id, "-n", wish.principal, "-V", wish.validity, "-z", str(serial)]
    try:
        process.run("ssh-keygen", "-q", *signer, *kind, *says, f"{key}.pub", env=_ENV)
    except WorkFailed as error:
        raise _worded(authority, error) from error
    made = key.with_name(f"{key.name}-cert.pub")
    kind_of, blob, _ = made.read_text(encoding="utf-8").split(maxsplit=2)
    made.write_text(f"{kind_of} {blob}\n", encoding="ascii")  # without its comment, which is our path
    return made


def _worded(authority: Path, error: WorkFailed) -> UserError:
    said = error.message
    if not authority.exists():
        return UserError(
            f"the signing key {authority} is not there, and no agent signs in its place",
            f"Put it back, or add it to the agent: ssh-add PATH. {said}",
        )
    if "passphrase" in said:
        return UserError(
            f"{authority} has a passphrase, and it was not given",
            "Run this in a terminal, where ssh-keygen can ask for it.",
        )
    if "Load key" in said or "invalid format" in said or "libcrypto" in said:
        return UserError(
            f"{authority} is damaged: {said}",
            "Put it back from what 'k3s-bake cluster export' wrote.",
        )
    return error
