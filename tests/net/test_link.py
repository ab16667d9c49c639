"""The link of the emulated machines, without the machines: frames in, frames out."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bake.emulator.dhcp import Lan
from bake.emulator.link import Port, Switch

pytestmark = pytest.mark.net

FRAME = bytes(range(60))
Make = Callable[..., list[socket.socket]]


@pytest.fixture
def plugged() -> Iterator[Callable[[float], tuple[list[Port], list[socket.socket]]]]:
    """Three ports of a switch that loses a part of the frames, and what a machine holds of each."""
    switches: list[Switch] = []
    ends: list[socket.socket] = []

    def make(loss: float) -> tuple[list[Port], list[socket.socket]]:
        lan = Lan()
        switches.append(Switch(lan, loss))
        ports = [switches[0].port(lan.address(at)) for at in range(3)]
        for port in ports:
            ends.append(socket.socket(fileno=os.dup(port.handle)))
            ends[-1].settimeout(5)
        switches[0].start()
        return ports, ends

    yield make
    for closed in [*map(closing, ends), *map(closing, switches)]:
        closed.__exit__(None, None, None)


def arrived(end: socket.socket) -> bool:
    end.settimeout(0.3)
    try:
        return end.recv(2000) == FRAME
    except TimeoutError:
        return False


def test_a_frame_goes_to_all_others(plugged: Make) -> None:
    _, (one, two, three) = plugged(0.0)
    one.send(FRAME)
    assert two.recv(2000) == FRAME
    assert three.recv(2000) == FRAME
    assert not arrived(one)


def test_a_pulled_cable_carries_nothing(plugged: Make) -> None:
    ports, (one, two, three) = plugged(0.0)
    ports[1].plugged = False
    one.send(FRAME)
    two.send(FRAME)
    assert arrived(three)
    assert not arrived(two)
    assert not arrived(one)
    ports[1].plugged = True
    two.send(FRAME)
    assert arrived(one)


def test_a_router_is_given_what_is_its_own() -> None:
    with closing(Switch(Lan())) as switch:
        machine, router = switch.port(Lan().address(0)), switch.port(None)
        switch.start()
        other = bytes.fromhex("b827eb000002b827eb0000010800").ljust(60)
        own = bytes.fromhex("52550a090001b827eb0000010800").ljust(60)
        search = bytes.fromhex("ffffffffffffb827eb0000010806").ljust(60)
        with (
            socket.socket(fileno=os.dup(machine.handle)) as one,
            socket.socket(fileno=os.dup(router.handle)) as end,
        ):
            for frame in (other, own, search):
                one.send(frame)
            end.settimeout(5)
            assert [end.recv(2000), end.recv(2000)] == [own, search]


def test_a_part_gets_lost(plugged: Make) -> None:
    _, (one, two, _) = plugged(0.6)
    for _ in range(200):
        one.send(FRAME)
    assert 50 < sum(iter(lambda: arrived(two), False)) < 110


def test_a_machine_that_is_off_hinders_nobody_and_finds_nothing_old(plugged: Make) -> None:
    ports, (one, two, three) = plugged(0.0)
    for _ in range(20_000):
        one.send(FRAME)
        assert two.recv(2000) == FRAME  # three reads nothing
    three.send(FRAME)
    assert arrived(one)  # so the switch has done with all that came before
    ports[2].drain()
    assert not arrived(three)
    one.send(FRAME)
    assert arrived(three)
