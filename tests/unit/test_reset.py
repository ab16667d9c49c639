"""Which nodes may be reset, and in which order: told by what is asked of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from bake.spec import Role
from firstboot.contract import CONFIG, HOST_KEY, JOIN_KEY, K3S_DATASTORE, NodeConfig
from firstboot.errors import UserError, WorkFailed
from firstboot.remote import _node
from firstboot.snapshot import File
from k3s_bake import ssh
from k3s_bake.adopt import Candidate, How
from k3s_bake.back import Back
from k3s_bake.login import Login, Nobody
from k3s_bake.remove import Remove
from k3s_bake.reset import Reset
from k3s_bake.undo import Undo
from k3s_bake.unreached import silent

pytestmark = pytest.mark.unit

CHANGES = ("cordon", "drain", "forget_node", "reset", "leave", "begin")
GONE = {"ended": True, "drained": True, "pods_left": [], "why_left": ""}


class Fake:
    """A node's end; ``asked`` is one list for all of them."""

    def __init__(self, name: str, config: NodeConfig | None, asked: list[str]) -> None:
        self.name, self.config, self.asked = name, config, asked
        self.key: str | None = HOST_KEY if config and not config.joins else JOIN_KEY
        self.nodes: list[dict[str, Any]] | None = None
        self.broken, self.datastore = False, ""
        self.k3s, self.joined, self.addresses = True, True, ["10.0.0.9/24"]
        self.serial, self.serials = "1", dict[str, str]()
        self.cordons = True

    async def call(self, verb: str, **values: Any) -> dict[str, Any]:
        await asyncio.sleep(0)  # as any request: others go on meanwhile
        if verb in CHANGES:
            what = values.get("name", "") or " ".join(values.get("names", ()))
            self.asked.append(f"{self.name} {verb} {what}".strip())
        if verb in ("reset", "leave") and self.broken:
            raise WorkFailed("broken")
        if verb == "look":
            return {"nodes": self._files(), "machine": self._machine()}
        state = {"phase": "joined", "reason": "", "since": 1, "active": True, "name": self.name}
        if verb == "undo":
            self.asked.append(f"{self.name} undo")
            return {"back": ["/etc/x"], "left": []}
        done = verb != "cordon" or self.cordons
        serials = {"serials": self.serials}
        return {"done": done, "nodes": self.nodes, **serials, "boot_id": self.name, **GONE, **state}

    async def close(self) -> None:
        pass

    def _machine(self) -> dict[str, Any]:
        ours = {"name": self.name, "joined": True} if self.joined else None
        found = {
            "ours": ours,
            "hostname": "raspberrypi",
            "boot_id": self.name,
            "serial": self.serial,
            "k3s": self.k3s,
            "etcd": False,
        }
        return {**found, "k3s_is_on": self.k3s, "addresses": {"eth0": self.addresses}}

    def _files(self) -> dict[str, Any]:
        file = _node(File(1, 0o600, 0, 0, ""))
        found = {path: file for path in (self.key, self.datastore) if path}
        if self.config:
            found[CONFIG] = _node(File(1, 0o600, 0, 0, "", self.config.to_json().encode()))
        return found


class Cluster:
    """Nodes by their names, which are their hosts' as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.sure = True
        self.strangers: UserError = silent()
        """What is said of any other host."""
        self.there = {
            name: Fake(name, NodeConfig("home", role, joins=joins), self.asked)
            for name, role, joins in (
                *(("m1", "master", False), ("m2", "master", True)),
                *(("w1", "worker", True), ("w2", "worker", True)),
            )
        }
        self.of("m1").nodes = self.of("m2").nodes = [
            {"name": "m1", "roles": ["control-plane", "master"]},
            {"name": "m2", "roles": ["control-plane"]},
            {"name": "w1", "roles": []},
        ]

        async def opened(login: Login, *_: object, **__: object) -> Fake:
            if login.host not in self.there:
                raise self.strangers
            return self.there[login.host]

        monkeypatch.setattr(ssh, "opened", opened)

    def of(self, name: str) -> Fake:
        return self.there[name]

    def reset(self, *names: str, master: str | None = None) -> dict[str, str]:
        """The errors; empty for those who are Ready."""

        async def sure(name: str) -> bool:
            return self.sure

        nodes: Sequence[Candidate] = [Candidate(Login(name), Role.WORKER) for name in names]
        made = Reset(nodes, How(Nobody()), Login(master) if master else None, sure)
        asyncio.run(made.run())
        return errors(made)

    def undo(self, *nodes: Candidate) -> Undo:
        async def sure(name: str) -> bool:
            return self.sure

        made = Undo(nodes, How(Nobody()), sure)
        asyncio.run(made.run())
        return made

    def removal(self, *nodes: str | Candidate, master: str = "m1") -> dict[str, Any]:
        """What became of each."""
        made = Remove([of(node) for node in nodes], How(Nobody()), Login(master))
        asyncio.run(asyncio.wait_for(made.run(), 60))
        return by_login(made)

    def remove(self, *names: str, master: str = "m1") -> dict[str, str]:
        """The errors; empty for those who are out."""
        return {name: answer["error"] for name, answer in self.removal(*names, master=master).items()}

    def add(self, *names: str, role: str = "worker") -> None:
        for name in names:
            self.there[name] = Fake(name, NodeConfig("home", role, joins=True), self.asked)


def of(node: str | Candidate) -> Candidate:
    return node if isinstance(node, Candidate) else Candidate(Login(node), Role.WORKER)


def by_login(made: Back) -> dict[str, Any]:
    return {one["login"]: one for one in made.data()}


def errors(made: Back) -> dict[str, str]:
    """Empty for those that were done."""
    return {name: answer["error"] for name, answer in by_login(made).items()}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_masters_come_first_and_the_one_that_leads_before_them(cluster: Cluster) -> None:
    assert set(cluster.reset("w1", "m2", "w2", "m1").values()) == {""}
    order = [line.split()[0] for line in cluster.asked if line.endswith("begin")]
    assert order[:2] == ["m1", "m2"]
    assert not any("drain" in line or "forget" in line for line in cluster.asked), "by whom?"


def test_a_node_is_off_before_it_is_forgotten_and_forgotten_before_it_begins(cluster: Cluster) -> None:
    assert cluster.reset("w1", master="m1") == {"w1": ""}
    assert cluster.asked == ["m1 drain w1", "w1 reset", "m1 forget_node w1", "w1 begin"]


def test_a_master_is_forgotten_while_its_etcd_votes_too(cluster: Cluster) -> None:
    assert cluster.reset("m2", master="m1") == {"m2": ""}
    assert cluster.asked == [
        "m1 drain m2",
        *["m1 forget_node m2", "m2 reset"],
        "m1 forget_node m2",
        "m2 begin",
    ]


def test_what_would_do_harm_changes_nothing_anywhere(cluster: Cluster) -> None:
    assert "m2 would go on with the first" in cluster.reset("m1", "w1")["m1"]
    assert "the other masters have to forget it" in cluster.reset("m2", "w1")["m2"]
    cluster.of("m1").nodes = None
    assert "m2 would go on" in cluster.reset("m1", master="m2")["m1"]
    assert cluster.reset("w1", master="m1") == {"w1": "m1: its Kubernetes does not answer"}
    cluster.sure = False
    assert cluster.reset("m1", "w1") == {
        "m1": "all of its cluster's data would be gone",
        "w1": "left as it was",
    }
    for name, why in (("w1", "it has no credential any more"), ("w2", "no agent of ours has run there")):
        cluster.of(name).key = None
        cluster.of("w2").config = None
        assert cluster.reset(name)[name] == why
    assert cluster.asked == []


def test_a_cluster_in_a_datastore_elsewhere_outlives_its_masters(cluster: Cluster) -> None:
    for name in ("m1", "m2"):
        cluster.of(name).datastore = K3S_DATASTORE
        cluster.sure = False
        assert cluster.reset(name) == {name: ""}


def test_a_master_that_would_forget_itself(cluster: Cluster) -> None:
    """Named by another of its addresses."""
    cluster.there["alias"] = cluster.of("m2")
    assert cluster.reset("m2", master="alias") == {"m2": "it is the master that is to stay"}
    assert cluster.asked == []


def test_workers_stay_as_they_were_where_their_master_fails(cluster: Cluster) -> None:
    cluster.of("m1").broken = True
    cluster.of("m1").nodes = None
    assert cluster.reset("m1", "w1") == {"m1": "broken", "w1": "left as it was"}
    assert cluster.asked == ["m1 reset"]


def test_a_master_of_another_cluster_forgets_nobody(cluster: Cluster) -> None:
    cluster.of("m1").config = NodeConfig("office", "master", joins=False)
    assert cluster.reset("w1", master="m1") == {"w1": "it is of the cluster home, and m1 a master of office"}
    assert cluster.remove("w1") == {"w1": "it is of the cluster home, and m1 a master of office"}
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("name", "whose", "told"),
    [
        ("w2", "home", "it is called w1, not w2"),
        ("w1", "office", "it is of the cluster home, not of office"),
        ("w1", "home", ""),
    ],
)
def test_another_node_than_the_file_names_is_left_alone(
    cluster: Cluster, name: str, whose: str, told: str
) -> None:
    back = cluster.undo(Candidate(Login("w1"), Role.WORKER, name, cluster=whose))
    assert errors(back) == {"w1": told}
    assert cluster.asked == ([] if told else ["w1 undo"])


@pytest.mark.parametrize("sure", [False, True])
def test_the_data_of_a_cluster_are_undone_by_who_means_it(cluster: Cluster, sure: bool) -> None:
    names = ("m1", "m2", "w1")
    cluster.sure = sure
    back = cluster.undo(*map(of, names))
    told = "" if sure else "all of its cluster's data would be gone"
    assert errors(back) == {"m1": told, "m2": "", "w1": ""}
    assert set(cluster.asked) == {f"{name} undo" for name in names if sure or name != "m1"}


def test_a_machine_whose_adoption_was_cut_off_goes_back_without_a_question(cluster: Cluster) -> None:
    cluster.of("m1").config = None
    cluster.sure = False
    assert errors(cluster.undo(of("m1"))) == {"m1": ""}
