"""Jump hosts: through which hosts a login leads, and one connection to each of them, whoever goes through.

One, because sshd drops logins when more than ten are under way (MaxStartups), and a gateway would have as
many as there are nodes behind it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from firstboot.errors import UserError
from k3s_bake.login import Login, hops

_MOST = 8
"""Hosts in a row: more are a circle."""

Connect = Callable[[Login, Any], Awaitable[Any]]
"""Logs in to a host, through a connection or, where that is None, directly."""


def way(login: Login, configured: Callable[[Login], str | None]) -> tuple[Login, ...]:
    """Whom to log in to first, in order; empty where nobody is between.

    As ssh does it: the first of a list is reached as is ``configured`` of it, each other one through the one
    before. A host that is in its own list is reached through those before it: so one list does for all.
    UserError for a circle, and for what is no login.
    """
    found: tuple[Login, ...] = ()
    first = login
    while True:
        named = first.jump if first.jump is not None else hops(configured(first) or "none")
        places = [(one.host, one.port) for one in named]
        if (first.host, first.port) in places:
            named = named[: places.index((first.host, first.port))]
        if not named:
            return found
        found = (*named, *found)
        first = found[0]
        if len(found) > _MOST:
            raise UserError("its jump hosts lead in a circle", "Look at ProxyJump in ~/.ssh/config.")


class Jumps:
    """Open for as long as the outermost context lasts, and logged in to again if they were lost."""

    def __init__(self) -> None:
        self._by_way: dict[tuple[Login, ...], asyncio.Task[Any]] = {}
        self._contexts = 0

    async def __aenter__(self) -> "Jumps":
        self._contexts += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._contexts -= 1
        if self._contexts:
            return
        for task in reversed(self._by_way.values()):
            if not task.done():
                task.cancel()
            elif not _is_over(task):
                task.result().close()
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(task.result().wait_closed(), 3)
        self._by_way.clear()

    async def through(self, hosts: Sequence[Login], connect: Connect) -> Any:
        """The connection to the last of ``hosts``; None where there are none.

        UserError and WorkFailed of ``connect``, with the host that they are of.
        """
        connection = None
        for at, host in enumerate(hosts, 1):
            key = tuple(hosts[:at])
            if key not in self._by_way or _is_over(self._by_way[key]):
                self._by_way[key] = asyncio.create_task(_named(host, connect(host, connection)))
            connection = await asyncio.shield(self._by_way[key])
        return connection


async def _named(host: Login, connecting: Awaitable[Any]) -> Any:
    try:
        return await connecting
    except UserError as error:
        who = replace(host, jump=None)
        raise type(error)(f"its jump host {who}: {error.message}", error.hint) from error


def _is_over(task: asyncio.Task[Any]) -> bool:
    """It has failed, or was lost since."""
    return task.done() and (task.cancelled() or task.exception() is not None or task.result().is_closed())
