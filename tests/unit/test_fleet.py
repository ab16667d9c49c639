"""Who is called what, who leads, and whose a machine is: before anything is changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bake.cache import Home
from bake.concerns import record
from bake.download import Web
from bake.node import Plan
from bake.progress import Silent
from bake.spec import Role
from bake.wish import Wish
from firstboot.contract import CONFIG, NAME, NodeConfig
from firstboot.errors import WorkFailed
from firstboot.snapshot import File, Snapshot
from k3s_bake import ssh
from k3s_bake.adopt import Candidate, How, Looked, Machine
from k3s_bake.fleet import Fleet, Order
from k3s_bake.login import Login, Nobody
from k3s_bake.preflight import Problem

pytestmark = pytest.mark.unit

Made = tuple[Role, str, NodeConfig | None]


def fleet(*machines: Made, given: dict[int, str] | None = None) -> Fleet:
    """Of roles, host names, and what the agents there were told."""
    candidates = [
        Candidate(Login(f"10.0.0.{at}", "pi"), role, (given or {}).get(at))
        for at, (role, _, _) in enumerate(machines)
    ]
    home = Home(Path("/nonexistent"), Path("/nonexistent"))
    made = Fleet(Order("home", candidates, Wish({}), False, home, Web(Silent())), How(Nobody()))
    for at, (_, hostname, config) in enumerate(machines):
        remote: Any = None
        machine = Machine(candidates[at], made.outcomes[at], remote, made.how)
        machine.looked = Looked(snapshot(config), facts(hostname, at, joined=config is not None))
        made.machines[at] = machine
    return made


def snapshot(config: NodeConfig | None) -> Snapshot:
    if config is None:
        return Snapshot({}, ())
    content = config.to_json().encode()
    return Snapshot({CONFIG: File(len(content), 0o644, 0, 0, "", content)}, ())


def facts(hostname: str, at: int, *, joined: bool) -> dict[str, Any]:
    ours = {"name": hostname, "joined": True} if joined else None
    return {"hostname": hostname, "serial": f"1000000000a1b2c{at}", "ours": ours, "k3s": joined}


def names(made: Fleet) -> list[str]:
    made._check_names()
    return [made._name_to_be(one) for one in made.machines.values()]


def test_cards_that_are_all_called_the_same_get_names_of_their_own() -> None:
    made = fleet(*((role, "raspberrypi", None) for role in (Role.MASTER, Role.WORKER, Role.WORKER)))
    assert names(made) == ["home-master", "home-a1b2c1", "home-a1b2c2"]


def test_a_host_name_stays() -> None:
    made = fleet((Role.MASTER, "attic", None), (Role.WORKER, "Shed", None))
    assert names(made) == ["attic", "shed"]


def test_two_that_a_person_has_called_the_same_are_both_told() -> None:
    made = fleet((Role.MASTER, "attic", None), (Role.WORKER, "shed", None), (Role.WORKER, "shed", None))
    assert names(made) == ["attic"]
    assert [one.error for one in made.outcomes] == ["", *["another node is called shed, too"] * 2]
    assert all("hostnamectl" in one.hint for one in made.outcomes[1:])


def test_who_has_joined_keeps_the_name_that_another_brings() -> None:
    config = NodeConfig("home", "worker", name="shed")
    made = fleet((Role.WORKER, "shed", None), (Role.WORKER, "shed", config))
    assert names(made) == ["shed"]
    assert [bool(one.error) for one in made.outcomes] == [True, False]


def test_a_name_that_the_cluster_has_already_stops_another_board() -> None:
    leads = NodeConfig("home", "master", name="attic", joins=False)
    made = fleet((Role.MASTER, "attic", leads), (Role.WORKER, "shed", None), (Role.WORKER, "barn", None))

    class Remote:
        async def call(self, verb: str) -> dict[str, Any]:
            nodes = [{"name": name} for name in ("attic", "shed", "barn")]
            return {"nodes": nodes, "serials": {"shed": "1000000000ffffff", "barn": "1000000000a1b2c2"}}

    remote: Any = Remote()
    made.machines[0].remote = remote
    asyncio.run(made._check_taken())
    stopped = ["", "the cluster has another board called shed", ""]
    assert [one.error for one in made.outcomes] == stopped, "barn is the same board, set up anew"


def test_the_clock_of_a_node_that_leaves_its_cluster_may_go_back() -> None:
    """Its certificates are not taken along."""
    ours, theirs = (NodeConfig(cluster, "worker", name="shed") for cluster in ("home", "work"))
    made = fleet((Role.WORKER, "shed", ours), (Role.WORKER, "barn", theirs))
    joined = []

    class Remote:
        async def call(self, verb: str, **values: Any) -> dict[str, Any]:
            joined.append(values["joined"])
            return {"set": True}

    remote: Any = Remote()
    for machine in made.machines.values():
        machine.remote = remote
        machine.outcome.problems = [Problem("clock", "its clock is 2 years ahead of this machine's", "")]
        asyncio.run(made._set_clock(machine))
    assert joined == [True, False]


def test_a_name_that_is_given_wins() -> None:
    made = fleet((Role.MASTER, "attic", None), (Role.WORKER, "shed", None), given={1: "pi-7"})
    assert names(made) == ["attic", "pi-7"]


def test_cards_of_one_image_keep_the_names_that_they_brought_along() -> None:
    baked = NodeConfig("home", "worker", name="pi")
    made = fleet(*[(Role.WORKER, "raspberrypi", baked)] * 3, given={2: "pi-9"})
    for at, machine in made.machines.items():
        name = f"pi-{at}\n".encode()
        config, card = snapshot(baked).get(CONFIG), File(len(name), 0o600, 0, 0, "", name)
        assert config
        found = Snapshot({CONFIG: config, NAME: card, record.PATH: config}, ())
        machine.looked = Looked(found, facts("raspberrypi", at, joined=False))
    assert names(made) == ["pi-0", "pi-1", "pi-9"]
    assert not any(one.error for one in made.outcomes)
    told = []

    class Planned:
        async def again(self, machine: Machine, values: dict[str, Any]) -> Any:
            told.append(values["name"])
            raise WorkFailed("enough")

    wanted: Any = Planned()
    made._wanted = wanted
    for machine in made.machines.values():
        with pytest.raises(WorkFailed, match="enough"):
            asyncio.run(made._plan(machine))
    assert told == ["pi-0", "pi-1", "pi-9"], "and not what the record says of the image"


def test_two_that_have_joined_under_one_name_are_both_told() -> None:
    config = NodeConfig("home", "worker", name="pi-7")
    made = fleet((Role.WORKER, "pi-7", config), (Role.WORKER, "pi-7", config))
    made._check_names()
    assert made.machines == {}
    assert all("another node is called pi-7" in one.error for one in made.outcomes)


def test_the_leader_is_the_one_that_has_led_before() -> None:
    joins, leads = (NodeConfig("home", "master", joins=how) for how in (True, False))
    made = fleet((Role.MASTER, "m1", joins), (Role.MASTER, "m2", leads), (Role.WORKER, "w", None))
    assert made.leader is made.machines[1]
    assert fleet((Role.WORKER, "w", None)).leader is None


def test_the_order_is_theirs_who_named_them_and_not_the_fastest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fleet(*[(Role.MASTER, f"m{at}", None) for at in range(3)])
    answering = dict(made.machines)
    made.machines.clear()

    @asynccontextmanager
    async def last_first(candidate: Candidate, *rest: object) -> AsyncIterator[Machine]:
        at = made.order.candidates.index(candidate)
        await asyncio.sleep((3 - at) / 1000)
        yield answering[at]

    async def look(machine: Machine) -> None:
        pass

    monkeypatch.setattr("k3s_bake.adopt.logged_in", last_first)
    monkeypatch.setattr(Machine, "look", look)
    monkeypatch.setattr(Fleet, "_check", lambda fleet, machine: None)
    asyncio.run(made.check())
    assert list(made.machines) == [0, 1, 2]
    assert made.leader is made.machines[0]


def test_whose_a_machine_is() -> None:
    made = fleet(
        (Role.WORKER, "a", NodeConfig("home", "worker")),
        (Role.WORKER, "b", NodeConfig("work", "worker")),
        (Role.WORKER, "c", NodeConfig("home", "master")),
        (Role.WORKER, "d", None),
    )
    assert [made._is_anothers(one) for one in made.machines.values()] == [False, True, True, False]


def test_who_is_planned_for_is_changed_while_others_still_wait_for_theirs_but_masters_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = fleet((Role.WORKER, "shed", None), (Role.MASTER, "attic", None), (Role.WORKER, "barn", None))
    made.how = replace(made.how, wait=False)
    done: list[str] = []
    turn = asyncio.Lock()

    async def ready_to_plan(self: Fleet, stack: Any) -> None:
        pass

    async def plan(self: Fleet, machine: Machine) -> None:
        async with turn:  # as credentials are signed
            await asyncio.sleep(0)
            done.append(f"plan {machine.looked.name}")
            machine.outcome.plan = Plan((), (), False)

    async def change(self: Fleet, machine: Machine) -> None:
        done.append(f"change {machine.looked.name}")

    for name, step in (("_ready_to_plan", ready_to_plan), ("_plan", plan), ("_change", change)):
        monkeypatch.setattr(Fleet, name, step)
    asyncio.run(made.adopt())
    assert done[0] == "plan attic"
    assert sorted(done) == sorted(
        f"{step} {name}" for step in ("plan", "change") for name in ("attic", "barn", "shed")
    )
    assert done.index("change shed") < done.index("plan barn")


class Restarting:
    """A node that is down before it has answered, and then another boot of it."""

    def __init__(self, boot_id: str | None) -> None:
        self._boot_id = boot_id

    async def call(self, verb: str) -> dict[str, Any]:
        if self._boot_id is None:
            raise WorkFailed("the connection was lost: Connection reset by peer")
        return {"boot_id": self._boot_id}

    async def close(self) -> None:
        pass


def test_a_restart_that_cuts_its_own_answer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fleet((Role.WORKER, "pi", None)).machines[0]
    machine.looked.machine["boot_id"] = "before"  # type: ignore[index]
    machine.remote = Restarting(None)  # type: ignore[assignment]
    boots = iter(["before", "after"])

    async def opened(*_: Any, **__: Any) -> Restarting:
        return Restarting(next(boots))

    async def at_once(seconds: float) -> None:
        assert seconds == 1

    monkeypatch.setattr(ssh, "opened", opened)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    asyncio.run(machine._reboot())
    assert next(boots, None) is None
