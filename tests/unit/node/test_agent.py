"""The agent from power-on to joined, in a folder: programs, network and clock are the test's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firstboot import agent, avahi, board, clock, mdns, status, token
from firstboot.agent import Agent
from firstboot.contract import (
    CREDENTIAL,
    JOIN_KEY,
    K3S_CONFIG,
    K3S_PASSWORD,
    K3S_TOKEN,
    STATE,
    STATUS,
    STATUS_BYTES,
    Announcement,
    Credential,
    NodeConfig,
)
from firstboot.network import DHCPCD
from firstboot.node import Node
from firstboot.token import NotAnswered

pytestmark = pytest.mark.unit

WORKER = NodeConfig("home", "worker")
BROUGHT = Credential(None, "join key\n", "join certificate\n", "host key\n", "host certificate\n")
CA = "a" * 64
SECRET = "s3cret-of-agents"
MASTER = Announcement("home", "master", "home-master", "joined", addr="10.0.0.2", serial="aa", since=7)
ANSWER = {"ca": CA, "server": "https://10.0.0.2:6443", "k3s": "v1.34.9+k3s1", "time": 1_800_000_000}


class End(BaseException):
    """The test has seen enough."""


class PowerCut(BaseException):
    pass


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 5.0
        self.clock = 1_800_000_000.0
        self.heard: list[Announcement] = [MASTER]
        self.masters = {"10.0.0.2": dict(ANSWER, ready=True)}
        self.refusal: dict[str, str] = {}
        self.started: list[str] = []
        self.enabled = False
        self.is_network_told = False
        self.said: list[Announcement] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.end: Callable[[], bool] = lambda: self.phase == ("joined", "")
        self.board = board.Board("armv7l", "10000000a1b2c3d4", "")
        (root / "boot/k3s-bake").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "boot" / STATUS).write_bytes(b" " * (STATUS_BYTES - 1) + b"\n")
        (root / "boot" / CREDENTIAL).write_bytes(BROUGHT.to_bytes())

    @property
    def phase(self) -> tuple[str, str]:
        return self.said[-1].phase, self.said[-1].reason

    def text(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()

    # what the agent uses

    def run(self, command: list[str], **_: object) -> tuple[int, bytes, str]:
        self.enabled = self.enabled or command[:2] == ["systemctl", "enable"]
        if command[:2] == ["systemctl", "start"]:
            self.started.append(command[-1])
        self.is_network_told = self.is_network_told or command == ["systemctl", "start", "dhcpcd"]
        if command[0].endswith("k3s"):
            return 0, b"k3s version v1.34.9+k3s1 (stand-in)\n", ""
        return 0, b"active\n" if command[1:2] == ["is-active"] and self.started else b"", ""

    def browse(
        self, seconds: float, enough: Callable[[list[Announcement]], bool] = lambda heard: False
    ) -> list[Announcement]:
        self.now += 0.1 if enough(self.heard) else seconds
        return self.heard

    def ask(self, address: str, verb: str, request: dict[str, str], *_: object) -> dict[str, object]:
        self.now += 0.2
        self.asked.append((address, verb, request))
        if address in self.refusal:
            raise NotAnswered(self.refusal[address])
        if verb == "hand-out":
            ca = self.masters[address]["ca"]
            return dict(self.masters[address], token=f"K10{ca}::node:{SECRET}")
        return self.masters[address]

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.end() or self.now > 4000:
            raise End

    def say(self, announcement: Announcement) -> None:
        self.said.append(announcement)

    def power_on(self, config: NodeConfig = WORKER) -> Agent:
        """Until ``end`` holds, or the power is cut."""
        self.started.clear()
        self.is_network_told = False
        made = Agent(Node(str(self.root), self.run), config)
        try:
            made.run()
        except End:
            return made
        raise AssertionError("it ended")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path)
    for module, name, value in [
        (mdns, "browse", found.browse),
        (mdns, "lan_addresses", lambda: ["10.0.0.7"]),
        (avahi, "runs", lambda: False),
        (mdns.Announcer, "say", lambda _, said: found.say(said)),
        (mdns.Announcer, "check", lambda _: None),
        (token, "ask", found.ask),
        (board, "read", lambda _: found.board),
        (clock, "set_clock", lambda moment: setattr(found, "clock", float(moment))),
        (agent.time, "monotonic", lambda: found.now),
        (agent.time, "time", lambda: found.clock),
        (agent.time, "sleep", found.sleep),
        (agent, "answers", lambda server: True),
        (agent.kubernetes, "is_ready", lambda name: True),
    ]:
        monkeypatch.setattr(module, name, value)
    return found


def test_from_power_on_to_joined(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.power_on()
    assert [said.phase for said in world.said] == [
        "checking",
        "clock",
        "searching",
        "asking",
        "starting",
        "joined",
    ]
    joined = world.said[-1]
    assert (joined.name, joined.addr, joined.serial) == ("home-b2c3d4", "10.0.0.7", "10000000a1b2c3d4")
    assert joined.k3s == "v1.34.9+k3s1"
    assert float(joined.conf) > 0
    assert joined.inst
    assert world.started == ["k3s-agent"]
    assert world.enabled
    assert world.asked[0][1:] == (
        "hand-out",
        {"name": "home-b2c3d4", "serial": "10000000a1b2c3d4", "role": "worker", "k3s": "v1.34.9+k3s1"},
    )
    assert 'node-name: "home-b2c3d4"' in world.text(K3S_CONFIG)
    assert "phase          joined" in world.text(f"/boot/{STATUS}")
    assert capsys.readouterr().out.splitlines()[-1] == "k3s-bake: home-b2c3d4: joined"


def test_no_secret_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.power_on()
    told = capsys.readouterr().out + repr(world.said) + world.text(STATE) + world.text(f"/boot/{STATUS}")
    told += world.text("/etc/issue")
    for secret in (SECRET, world.text(K3S_PASSWORD).strip(), "join key"):
        assert secret not in told


def test_after_a_reboot_it_is_joined_again_without_asking_for_a_token(world: World) -> None:
    world.power_on()
    times = world.said[-1].conf, world.said[-1].inst
    world.asked.clear()
    world.said.clear()
    world.heard = []
    world.power_on()
    assert [said.phase for said in world.said] == ["checking", "clock", "starting", "joined"]
    assert {verb for _, verb, _ in world.asked} == {"status"}
    assert (world.said[-1].conf, world.said[-1].inst) == times, "those of the first time"
    assert world.started == ["k3s-agent"]


def test_a_further_master_that_never_joined_asks_again_after_a_power_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first master may have another address by now."""
    config = NodeConfig("home", "master", joins=True)
    monkeypatch.setattr(agent.kubernetes, "is_ready", lambda name: None)
    world.end = lambda: "k3s" in world.started
    world.power_on(config)
    assert [verb for _, verb, _ in world.asked] == ["hand-out"]
    world.asked.clear()
    monkeypatch.setattr(agent.kubernetes, "is_ready", lambda name: True)
    world.end = lambda: world.phase == ("joined", "")
    world.power_on(config)
    assert "hand-out" in [verb for _, verb, _ in world.asked]


def test_the_name_is_frozen_after_the_first_join(world: World) -> None:
    world.power_on()
    world.power_on(NodeConfig("home", "worker", name="another"))
    assert world.said[-1].name == "home-b2c3d4"


def test_an_hour_without_a_master(world: World) -> None:
    world.heard = []
    world.end = lambda: world.now > 3600
    world.power_on()
    assert world.phase == ("searching", "no-master")
    assert len(world.said) == 3, "told once"
    world.heard, world.end = [MASTER], lambda: world.phase == ("joined", "")
    world.power_on()


@pytest.mark.parametrize("reason", ["armv6", "no-memory-cgroup"])
def test_a_board_that_cannot(world: World, reason: str) -> None:
    world.board = world.board._replace(reason=reason)
    world.end = lambda: world.now > 200
    world.power_on()
    assert world.phase == ("blocked", reason)
    assert world.asked == []


def test_a_card_without_a_credential_is_blocked_until_it_has_one(world: World) -> None:
    place = world.root / "boot" / CREDENTIAL
    kept = place.read_bytes()
    place.unlink()

    def end() -> bool:
        if world.now > 200 and not place.exists() and world.phase == ("blocked", "no-credential"):
            place.write_bytes(kept)
        return world.phase == ("joined", "")

    world.end = end
    world.power_on()
    assert ("blocked", "no-credential") in [(said.phase, said.reason) for said in world.said]


def test_the_clock_starts_at_the_bake_and_is_set_by_the_master(world: World) -> None:
    config = NodeConfig("home", "worker", not_before="2026-11-25")
    world.clock, moments = 0.0, []
    world.end = lambda: bool(moments.append(world.clock)) or world.phase == ("joined", "")
    world.power_on(config)
    assert world.said[2].since >= 1_795_564_800  # 2026-11-25
    assert ANSWER["time"] <= world.clock <= ANSWER["time"] + 5, "what has passed since then is added"


def test_a_clock_a_year_ahead_steps_back_before_the_first_join_alone(world: World) -> None:
    world.clock = ANSWER["time"] + 366 * 86400.0
    kept = world.root / clock.KEPT.lstrip("/")
    kept.write_bytes(clock.kept(ANSWER["time"] + 366 * 86400))
    world.power_on()
    assert ANSWER["time"] <= world.clock <= ANSWER["time"] + 5
    assert kept.read_bytes() == clock.kept(int(world.clock)), "or a power cut brings the wrong time back"
    (world.root / K3S_TOKEN.lstrip("/")).write_text("")  # it has to ask again
    world.clock = ANSWER["time"] + 366 * 86400.0
    world.power_on()
    assert world.clock == ANSWER["time"] + 366 * 86400.0


def test_a_leading_master_waits_for_nobody(world: World) -> None:
    world.heard = []
    world.power_on(NodeConfig("home", "master", joins=False))
    assert world.said[-1].name == "home-master"
    assert world.started == ["k3s-bake-join.service", "k3s"]
    assert world.asked == []


def test_a_further_master_never_leads(world: World) -> None:
    world.heard = []
    world.end = lambda: world.now > 200
    config = NodeConfig("home", "master", joins=True)
    world.power_on(config)
    assert world.phase == ("searching", "no-master")
    assert "k3s" not in world.started
    world.heard, world.end = [MASTER], lambda: world.phase == ("joined", "")
    world.power_on(config)
    assert world.asked[0][2]["role"] == "master"
    assert 'server: "https://10.0.0.2:6443"' in world.text(K3S_CONFIG)


def test_blocked_is_told_once_and_heals(world: World) -> None:
    world.refusal["10.0.0.2"] = "name-taken"

    def end() -> bool:
        if world.now > 600:
            world.refusal.clear()
        return world.phase == ("joined", "")

    world.end = end
    world.power_on()
    told = [(said.phase, said.reason) for said in world.said]
    assert told.count(("blocked", "name-taken")) == 1
    assert told[-1] == ("joined", "")


class Supply:
    """Power that goes at the nth thing done to the disk; after that nothing is done any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1 << 30
        for name in ("rename", "fsync", "unlink", "mkdir", "symlink", "open", "sync"):
            monkeypatch.setattr(os, name, self.taking(getattr(os, name)))

    def taking(self, work: Callable[..., object]) -> Callable[..., object]:
        def measured(*given: object, **named: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise PowerCut
            return work(*given, **named)

        return measured


def test_power_cut_at_every_step_that_reaches_the_disk(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = Supply(monkeypatch)
    cuts, names = 0, set()
    config = replace(WORKER, network_manager="dhcpcd")
    brought = replace(BROUGHT, address="10.0.0.7/24", gateway="10.0.0.1")
    while True:
        world.__init__(tmp_path_factory.mktemp("card"))  # type: ignore[misc]
        (world.root / "boot" / CREDENTIAL).write_bytes(brought.to_bytes())
        supply.left = cuts
        try:
            world.power_on(config)
        except PowerCut:
            cuts += 1
        else:
            break
        finally:
            supply.left = 1 << 30
        is_up_by_itself = (world.root / DHCPCD[1:]).exists()
        world.power_on(config)
        check_whole(world)
        assert "static ip_address=10.0.0.7/24\n" in world.text(DHCPCD)
        assert is_up_by_itself or world.is_network_told
        names.add(world.said[-1].name)
    assert cuts > 100
    assert names == {"home-b2c3d4"}


def check_whole(world: World) -> None:
    assert world.phase == ("joined", "")
    assert world.enabled
    assert world.text(JOIN_KEY) == "join key\n"
    assert not (world.root / "boot" / CREDENTIAL).exists()
    assert world.text(K3S_TOKEN) == f"K10{CA}::node:{SECRET}\n"
    assert len(world.text(K3S_PASSWORD).strip()) == 32
    assert json.loads(world.text(STATE))["joined"] is True
    assert status.remembered(str(world.root)).ca == CA
