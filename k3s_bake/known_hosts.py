"""The keys of hosts that a person trusts: ``~/.ssh``'s own file, as ssh writes and reads it."""

from pathlib import Path

_FILE = Path("~/.ssh/known_hosts")


def there() -> str | None:
    """The file, if there is one."""
    known = _FILE.expanduser()
    return str(known) if known.is_file() else None


def place_of(host: str, port: int) -> str:
    return host if port == 22 else f"[{host}]:{port}"


def add(host: str, port: int, key: str) -> None:
    """``key`` is a public one, ``ssh-ed25519 AAAA...``."""
    known = _FILE.expanduser()
    known.parent.mkdir(mode=0o700, exist_ok=True)
    with known.open("a", encoding="utf-8") as file:
        file.write(f"{place_of(host, port)} {key.strip()}\n")
