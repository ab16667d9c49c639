"""Where a person logs in, and who is asked when something is missing for it."""

from dataclasses import dataclass
from typing import Protocol

from firstboot.errors import UserError


@dataclass(frozen=True)
class Login:
    host: str
    """A name, an address, or a Host of ~/.ssh/config."""
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Login":
        """``[user@]host[:port]``; an IPv6 address with a port is in brackets. UserError for anything else."""
        user, at, place = text.rpartition("@")
        if place.startswith("["):
            host, _, port = place[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = place.partition(":") if place.count(":") == 1 else (place, "", "")
        strange = any(c.isspace() or not c.isprintable() for c in text) or host.startswith("-")
        if strange or not host or (at and not user) or (port and not _is_port(port)):
            raise UserError(f"{text[:80]!r} is no node to log in to", "like pi@10.0.0.3 or pi@10.0.0.3:2222")
        return cls(host, user or None, int(port) if port else None)

    def __str__(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


class Person(Protocol):
    """Asked from threads, one question at a time."""

    def password(self, what: str) -> str | None:
        """``what``: ``pi@10.0.0.3's password``; None: nobody answers."""

    def trusts(self, host: str, fingerprint: str) -> bool:
        """Whether a host that is seen for the first time is the right one."""


class Nobody:
    """Knows no password, and trusts no stranger."""

    def password(self, what: str) -> str | None:
        return None

    def trusts(self, host: str, fingerprint: str) -> bool:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16
