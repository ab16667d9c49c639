"""Where a person logs in, and who is asked when something is missing for it."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from firstboot.errors import UserError

T = TypeVar("T")

_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")


@dataclass(frozen=True)
class Login:
    host: str
    """A name, an address, or a Host of ~/.ssh/config."""
    user: str | None = None
    port: int | None = None
    jump: tuple["Login", ...] | None = None
    """Through whom, in order; empty: through nobody; None: as ~/.ssh/config says."""

    @classmethod
    def parse(cls, text: str) -> "Login":
        """``[user@]host[:port]``; an IPv6 address with a port is in brackets. UserError for anything else."""
        user, at, place = text.rpartition("@")
        if place.startswith("["):
            host, _, port = place[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = place.partition(":") if place.count(":") == 1 else (place, "", "")
        good = _HOST.fullmatch(host) and (not at or _USER.fullmatch(user)) and (not port or _is_port(port))
        if not good:
            raise UserError(f"{text[:80]!r} is no node to log in to", "like pi@10.0.0.3 or pi@10.0.0.3:2222")
        return cls(host, user or None, int(port) if port else None)

    @property
    def place(self) -> tuple[str, int | None]:
        """What tells machines apart: nodes of a cluster cannot have one address, whoever they are behind."""
        return self.host, self.port

    @property
    def command(self) -> str:
        """ssh's, for a person to type."""
        jump = f"-J {','.join(map(str, self.jump))} " if self.jump else ""
        port = f"-p {self.port} " if self.port else ""
        who = f"{self.user}@{self.host}" if self.user else self.host
        return f"ssh {jump}{port}{who}"

    @property
    def through(self) -> str:
        """For a question: behind another jump host an address is another machine's."""
        return f" through {','.join(map(str, self.jump))}" if self.jump else ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.port and ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{user}{host}" + (f":{self.port}" if self.port else "")


def hops(text: str) -> tuple[Login, ...]:
    """As ssh's ProxyJump is written: ``[user@]host[:port]``, several with commas between; ``none``: nobody.

    UserError for anything else.
    """
    return () if text.lower() == "none" else tuple(Login.parse(one) for one in text.split(","))


def behind(text: str, jump: str | None) -> Login:
    """A login, and through whom, in a person's words. UserError for what is none."""
    login = Login.parse(text)
    return replace(login, jump=hops(jump)) if jump else login


class Person(Protocol):
    """Asked from threads, one question at a time."""

    def password(self, what: str, wrong: bool = False) -> str | None:
        """``what``: ``pi@10.0.0.3's password``; ``wrong``: the last answer was. None: nobody answers."""

    def trusts(self, host: str, fingerprint: str) -> bool:
        """Whether a host that is seen for the first time is the right one."""


class Nobody:
    """Knows no password, and trusts no stranger."""

    def password(self, what: str, wrong: bool = False) -> str | None:
        return None

    def trusts(self, host: str, fingerprint: str) -> bool:
        return False


async def asked(question: Callable[..., T], *words: str | bool) -> T:
    """In a thread that nobody waits for: Ctrl-C ends the program while a person still thinks."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(given: T | None, failure: Exception | None) -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(given)  # type: ignore[arg-type]  # what the question gave

    def ask() -> None:
        given, failure = None, None
        try:
            given = question(*words)
        except Exception as error:  # noqa: BLE001 (it belongs to whoever asked)
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, given, failure)

    threading.Thread(target=ask, daemon=True).start()
    return await answer


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16
