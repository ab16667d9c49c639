"""The keys of hosts that a person trusts: ssh's own files, as ssh writes and reads them."""

from collections.abc import Sequence
from pathlib import Path

from firstboot.errors import UserError

_FILE = "~/.ssh/known_hosts"
_SYSTEM = "/etc/"


def files(configured: Sequence[str]) -> list[str]:
    """Those that are there. ``configured``: of ~/.ssh/config, if anything is."""
    system = [name for name in configured if name.startswith(_SYSTEM)]
    paths = [Path(name).expanduser() for name in [*_own(configured), *system]]
    return [str(path) for path in paths if path.is_file()]


def place_of(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def add(configured: Sequence[str], host: str, port: int, key: str) -> None:
    """To the person's first file. ``key`` is a public one, ``ssh-ed25519 AAAA...``. UserError where it cannot
    be written."""
    known = Path(_own(configured)[0]).expanduser()
    try:
        known.parent.mkdir(mode=0o700, exist_ok=True)
        with known.open("a", encoding="utf-8") as file:
            file.write(f"{_missing(known)}{place_of(host, port)} {key.strip()}\n")
    except OSError as error:
        raise UserError(
            f"{known} cannot be written: {error.strerror}", "It keeps the keys of hosts that you trust."
        ) from error


def _own(configured: Sequence[str]) -> list[str]:
    """As for ssh, the usual one counts where no other is named."""
    return [name for name in configured if not name.startswith(_SYSTEM)] or [_FILE]


def _missing(known: Path) -> str:
    """At the end of a file that somebody has edited."""
    text = known.read_bytes()
    return "" if not text or text.endswith(b"\n") else "\n"
