from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from firstboot.contract import NodeConfig
from firstboot.join import Memory
from firstboot.token import Grant, NotAnswered
from firstboot.watcher import Watcher

pytestmark = pytest.mark.unit

CA = "a" * 64
SERVER = "https://10.0.0.2:6443"
MEMORY = Memory("pi-7", address="10.0.0.2", server=SERVER, ca=CA)
ME = {"name": "pi-7", "serial": "a1"}
HAND_OUT = {
    "token": f"K10{CA}::node:x",
    "server": SERVER,
    "ca": CA,
    "k3s": "v1.34.9+k3s1",
    "time": 1_700_000_000,
}


class World:
    """Everything around a watcher, and a clock that a test turns."""

    def __init__(self, memory: Memory = MEMORY, role: str = "worker") -> None:
        self.now = 0.0
        self.active = True
        self.rejected = False
        self.reachable = True
        self.masters = {"10.0.0.2": {"ready": False, "ca": CA, "server": SERVER}}
        self.here = None
        self.refusal = "unreachable"
        self.starting = False
        self.asked: list[tuple[str, str]] = []
        self.done: list[tuple[str, ...]] = []
        config = NodeConfig("home", role)
        self.watcher = Watcher(
            self,
            config,
            memory,
            ME,
            self.ask,
            self.heard,
            lambda name: self.here,
            self.answers,
            lambda: self.now,
        )  # type: ignore[arg-type]

    # of the node
    def is_active(self, unit: str) -> bool:
        return self.active

    def is_starting(self, unit: str) -> bool:
        return self.starting

    def is_rejected(self, unit: str) -> bool:
        return self.rejected

    def restart(self, unit: str) -> None:
        self.done.append(("restart", unit))

    def point_at(self, server: str) -> bool:
        self.done.append(("point at", server))
        return True

    def configure_joining(self, grant: Grant, name: str) -> None:
        self.done.append(("configure", grant.server, name))

    # of the network
    def ask(self, address: str, verb: str, request: dict[str, str]) -> dict[str, object]:
        self.asked.append((address, verb))
        assert request["name"] == "pi-7"
        if address not in self.masters:
            raise NotAnswered(self.refusal)
        return dict(HAND_OUT) if verb == "hand-out" else self.masters[address]

    def heard(self) -> Iterator[str]:
        yield from self.masters

    def answers(self, server: str) -> bool:
        return self.reachable

    def looks(self, seconds: float, step: float = 1.0) -> tuple[str, str]:
        end = self.now + seconds
        found = self.watcher.look()
        while self.now < end:
            self.now += step
            found = self.watcher.look()
        return found


def test_active_is_not_ready() -> None:
    world = World()
    assert world.looks(30) == ("starting", "")
    world.masters["10.0.0.2"]["ready"] = True
    assert world.looks(11) == ("joined", "")


def test_questions_get_fewer_while_it_starts_and_rare_once_it_is_well() -> None:
    world = World()
    world.looks(100)
    assert 10 <= len(world.asked) <= 40
    world.masters["10.0.0.2"]["ready"] = True
    world.looks(11)
    world.asked.clear()
    world.looks(1200, 30)
    assert len(world.asked) == 2


def test_one_of_many_asks_less_often_while_it_starts() -> None:
    world = World()
    world.watcher._crowd = 30.0
    world.looks(60)
    assert len(world.asked) <= 3


@pytest.mark.parametrize("reason", ["credential-refused", "untrusted-master"])
def test_a_master_that_refuses_a_joined_node_is_not_called_lost(reason: str) -> None:
    world = World()
    world.masters["10.0.0.2"]["ready"] = True
    world.looks(11)
    world.watcher.memory = replace(world.watcher.memory, joined=True)
    world.refusal = reason
    world.reachable = False
    world.masters.clear()
    world.asked.clear()
    assert world.looks(3600, 5) == ("joined", reason)
    assert len(world.asked) < 100, "and is not asked twice a minute for ever"


def test_a_lost_master_is_told_and_found_again() -> None:
    world = World(replace(MEMORY, joined=True))
    world.masters["10.0.0.2"]["ready"] = True
    assert world.looks(2) == ("joined", "")
    world.reachable = False
    kept = world.masters.pop("10.0.0.2")
    assert world.looks(60, 30) == ("joined", "master-lost")
    assert world.done == [], "K3s goes on running"
    world.masters["10.0.0.2"], world.reachable = kept, True
    assert world.looks(30, 30) == ("joined", "")


def test_a_master_at_another_address_is_followed() -> None:
    world = World(replace(MEMORY, joined=True))
    world.masters = {"10.0.0.9": {"ready": False, "ca": CA, "server": "https://10.0.0.9:6443"}}
    world.reachable = False
    world.looks(1)
    assert world.done == [("point at", "https://10.0.0.9:6443"), ("restart", "k3s-agent")]
    assert (world.watcher.memory.address, world.watcher.memory.server) == (
        "10.0.0.9",
        "https://10.0.0.9:6443",
    )


def test_of_several_masters_another_is_asked_but_not_moved_to() -> None:
    world = World(replace(MEMORY, joined=True))
    world.masters = {"10.0.0.9": {"ready": True, "ca": CA, "server": "https://10.0.0.9:6443"}}
    world.reachable = False
    assert world.looks(1) == ("joined", "")
    assert world.done == []


def test_a_master_of_another_cluster_is_not_followed() -> None:
    world = World(replace(MEMORY, joined=True))
    world.masters = {"10.0.0.9": {"ready": False, "ca": "b" * 64, "server": "https://10.0.0.9:6443"}}
    world.reachable = False
    assert world.looks(1) == ("joined", "other-cluster")
    assert world.done == []


def test_a_rejected_password_is_healed() -> None:
    world = World()
    world.rejected = True
    assert world.looks(15) == ("starting", "password-rejected")
    assert ("10.0.0.2", "rejoin") not in world.asked
    world.looks(40)
    assert world.asked.count(("10.0.0.2", "rejoin")) == 1
    world.rejected = False
    world.masters["10.0.0.2"]["ready"] = True
    assert world.looks(11) == ("joined", "")


def test_a_node_that_does_not_get_ready_gets_a_new_token() -> None:
    world = World()
    world.looks(599)
    assert ("10.0.0.2", "hand-out") not in world.asked
    world.looks(15)
    assert world.asked.count(("10.0.0.2", "hand-out")) == 1
    assert world.done == [("configure", SERVER, "pi-7"), ("restart", "k3s-agent")]


def test_a_k3s_that_takes_minutes_to_start_has_not_failed() -> None:
    world = World(role="master")
    world.active, world.starting, world.here = False, True, None
    assert world.looks(300) == ("starting", "not-ready")
    world.starting = False
    assert world.looks(11) == ("starting", "k3s-failed")


def test_a_k3s_that_does_not_run_is_told() -> None:
    world = World()
    world.active = False
    assert world.looks(50) == ("starting", "")
    assert world.looks(20) == ("starting", "k3s-failed")


def test_a_master_asks_its_own_kubernetes() -> None:
    world = World(role="master")
    assert world.looks(2) == ("starting", "not-ready")
    world.here = True
    assert world.looks(2) == ("joined", "")
    assert world.asked == []
