"""Through which hosts a login leads, and that they are logged in to once."""

import asyncio
from typing import Any

import pytest

from firstboot.errors import UserError, WorkFailed
from k3s_bake.jumps import Jumps, way
from k3s_bake.login import Login, behind

pytestmark = pytest.mark.unit


def shown(login: Login, config: dict[str, str]) -> list[str]:
    return [str(host) for host in way(login, lambda one: config.get(one.host))]


@pytest.mark.parametrize(
    ("jump", "config", "hosts"),
    [
        (None, {}, []),
        ("pi@gate", {}, ["pi@gate"]),
        ("gate,inner", {}, ["gate", "inner"]),
        (None, {"node": "gate,inner"}, ["gate", "inner"]),
        (None, {"node": "inner", "inner": "gate"}, ["gate", "inner"]),
        ("inner,last", {"inner": "gate", "last": "never"}, ["gate", "inner", "last"]),
        ("none", {"node": "gate"}, []),
        ("gate", {"node": "never"}, ["gate"]),
        (None, {"node": "gate", "gate": "gate"}, ["gate"]),
        (None, {"node": "gate,inner", "gate": "gate,inner"}, ["gate", "inner"]),
    ],
)
def test_the_way_to_a_node(jump: str | None, config: dict[str, str], hosts: list[str]) -> None:
    assert shown(behind("pi@node", jump), config) == hosts


def test_a_host_of_the_list_is_reached_through_those_before_it() -> None:
    assert shown(behind("gate", "gate,inner"), {}) == []
    assert shown(behind("inner", "gate,inner"), {}) == ["gate"]


def test_a_circle() -> None:
    with pytest.raises(UserError, match="in a circle"):
        shown(Login("node"), {"node": "a", "a": "b", "b": "a"})


class Connection:
    def __init__(self, through: Any) -> None:
        self.through = through
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        assert self.closed


class Hosts:
    """Log in to them; ``failing``: what those do that fail."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.failing: dict[str, UserError] = {}

    async def connect(self, login: Login, through: Any) -> Connection:
        self.logins.append(str(login))
        await asyncio.sleep(0)
        if str(login) in self.failing:
            raise self.failing[str(login)]
        return Connection(through)


GATE, INNER = Login("gate"), Login("inner")


def test_many_go_through_one_connection_and_all_are_closed() -> None:
    hosts = Hosts()

    async def twenty() -> list[Connection]:
        async with Jumps() as jumps:
            ways = [(GATE,), (GATE, INNER)] * 10
            found = await asyncio.gather(*(jumps.through(one, hosts.connect) for one in ways))
            assert await jumps.through((), hosts.connect) is None
            async with jumps:
                pass
            assert not any(one.closed for one in found)
        return found

    gate, inner, *others = asyncio.run(twenty())
    assert hosts.logins == ["gate", "inner"]
    assert set(others) == {gate, inner}
    assert inner.through is gate
    assert gate.closed
    assert inner.closed


def test_one_that_was_lost_is_logged_in_to_again() -> None:
    hosts = Hosts()

    async def again() -> None:
        async with Jumps() as jumps:
            first = await jumps.through((GATE,), hosts.connect)
            first.close()
            assert not (await jumps.through((GATE,), hosts.connect)).closed

    asyncio.run(again())
    assert hosts.logins == ["gate", "gate"]


def test_one_that_fails_is_told_to_each_by_its_name_and_tried_again_later() -> None:
    hosts = Hosts()
    hosts.failing["gate"] = WorkFailed("SSH does not answer", "Is it on?")

    async def two() -> list[Any]:
        async with Jumps() as jumps:
            tries = (jumps.through((GATE, INNER), hosts.connect) for _ in range(2))
            found = await asyncio.gather(*tries, return_exceptions=True)
            hosts.failing.clear()
            assert await jumps.through((GATE, INNER), hosts.connect)
        return found

    for error in asyncio.run(two()):
        assert isinstance(error, WorkFailed)
        assert (error.message, error.hint) == ("its jump host gate: SSH does not answer", "Is it on?")
    assert hosts.logins == ["gate", "gate", "inner"]
