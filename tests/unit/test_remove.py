"""Nodes that leave their cluster, several in one run: told by what is asked of them."""

from typing import Any

import pytest
from test_reset import GONE, Cluster

from bake.spec import Role
from firstboot.errors import UserError, WorkFailed
from k3s_bake.adopt import Candidate
from k3s_bake.login import Login

pytestmark = pytest.mark.unit

WORKERS = tuple(f"w{number}" for number in range(1, 7))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(monkeypatch)
    made.add(*WORKERS)
    return made


def test_nodes_are_drained_side_by_side_but_not_all_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is said to have ended before four have begun; one after the other would never end."""
    master = cluster.of("m1")
    running: set[str] = set()
    most = 0
    call = master.call

    async def slow(verb: str, **values: Any) -> dict[str, Any]:
        nonlocal most
        if verb == "drain":
            running.add(values["name"])
            most = max(most, len(running))
        if verb == "drained":
            if most < 4:
                return {"ended": False}
            running.discard(values["name"])
        return await call(verb, **values)

    monkeypatch.setattr(master, "call", slow)
    assert set(cluster.remove(*WORKERS).values()) == {""}
    assert most == 4
    assert cluster.asked[0] == "m1 cordon w1 w2 w3 w4 w5 w6", "or pods go to one that is drained next"


def test_each_has_a_result_whatever_becomes_of_the_others(cluster: Cluster) -> None:
    cluster.of("w2").broken = True
    cluster.of("w3").config = None
    found = cluster.remove("w1", "w2", "w3", "w4")
    assert found == {"w1": "", "w2": "broken", "w3": "no agent of ours has run there", "w4": ""}
    assert cluster.asked[0] == "m1 cordon w1 w2 w4"
    assert "m1 forget_node w2" not in cluster.asked
    assert "uncordon w2" in cluster.removal("w2")["w2"]["hint"]
    cluster.asked.pop()
    assert {"m1 forget_node w1", "m1 forget_node w4"} <= set(cluster.asked)


def test_where_new_pods_would_come_none_is_drained(cluster: Cluster) -> None:
    cluster.of("m1").cordons = False
    assert set(cluster.remove("w1", "w2").values()) == {"its master did not keep new pods from it"}
    assert cluster.asked == ["m1 cordon w1 w2"]


def test_etcd_loses_its_members_one_after_the_other(cluster: Cluster) -> None:
    cluster.add("m3", role="master")
    assert set(cluster.remove("m2", "w1", "m3").values()) == {""}
    steps = {
        name: [f"m1 forget_node {name}", f"{name} leave", f"m1 forget_node {name}"] for name in ("m2", "m3")
    }
    asked = [line for line in cluster.asked if line in steps["m2"] + steps["m3"]]
    assert asked in (steps["m2"] + steps["m3"], steps["m3"] + steps["m2"])


def test_a_master_that_fails_lets_the_next_one_go(cluster: Cluster) -> None:
    cluster.add("m3", role="master")
    cluster.of("m2").broken = True
    assert cluster.remove("m2", "m3") == {"m2": "broken", "m3": ""}


def test_what_became_of_pods_is_the_nodes_own(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {**GONE, "drained": False, "pods_left": ["shop/web"], "why_left": "why"}
    master = cluster.of("m1")
    call = master.call

    async def some(verb: str, **values: Any) -> dict[str, Any]:
        if verb == "drained" and values["name"] == "w2":
            return left
        return await call(verb, **values)

    monkeypatch.setattr(master, "call", some)
    made = cluster.removal("w1", "w2")
    assert (made["w1"]["drained"], made["w1"]["pods_left"], made["w1"]["why_left"]) == (True, [], "")
    assert (made["w2"]["drained"], made["w2"]["pods_left"], made["w2"]["why_left"]) == (
        False,
        ["shop/web"],
        "why",
    )


# nodes that are none any more


def listed(name: str, address: str, *, ready: bool = False, roles: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "address": address, "ready": ready, "roles": roles, "k3s": "v1.34.9+k3s1"}


@pytest.fixture
def dead(cluster: Cluster) -> Cluster:
    """The cluster has nodes of machines that are off, and one of a machine that has been undone."""
    cluster.of("m1").nodes = [
        listed("m1", "10.0.0.1", ready=True, roles=("control-plane",)),
        listed("w8", "10.0.0.8"),
        listed("w7", "10.0.0.7", ready=True),
        listed("m9", "10.0.0.90", roles=("control-plane", "etcd")),
        listed("w1", "10.0.0.11", ready=True),
    ]
    bare = cluster.of("w1")
    bare.config, bare.k3s, bare.joined, bare.addresses = None, False, False, ["10.0.0.11/24"]
    return cluster


def test_a_node_that_cannot_be_reached_is_forgotten_by_its_address_or_its_name(dead: Cluster) -> None:
    for one in ("10.0.0.8", "w8", Candidate(Login("10.9.9.9"), Role.WORKER, "w8", cluster="home")):
        dead.asked.clear()
        (answer,) = dead.removal(one).values()
        assert (answer["name"], answer["role"], answer["address"]) == ("w8", "worker", "10.0.0.8")
        assert (answer["phase"], answer["drained"]) == ("forgotten", None)
        assert answer["untouched"] == "SSH does not answer"
        assert dead.asked == ["m1 forget_node w8"]
    assert set(dead.remove("m9", "w8", "w2").values()) == {""}, "beside one that is well"


def test_who_might_come_again_is_not_forgotten(dead: Cluster) -> None:
    told = dead.remove("10.0.0.7", "w99", "10.0.0.90")
    assert told["10.0.0.7"] == "SSH does not answer, and its cluster calls w7 Ready"
    assert told["w99"] == "SSH does not answer", "nobody knows it"
    assert told["10.0.0.90"] == ""
    other = Candidate(Login("10.9.9.9"), Role.WORKER, "w8", cluster="office")
    assert "it is of the cluster office, and m1 a master of home" in dead.remove(other)["10.9.9.9"]
    dead.strangers = UserError("the login was refused")
    assert dead.remove("10.0.0.8") == {"10.0.0.8": "the login was refused"}, "somebody is there"
    dead.strangers = WorkFailed("it lets us in, but runs nothing")
    assert "lets us in" in dead.remove("10.0.0.8")["10.0.0.8"], "mended, it would come again"
    assert dead.asked == ["m1 forget_node m9"]


def test_an_undone_node_is_forgotten_though_it_is_called_ready_for_a_while(dead: Cluster) -> None:
    (answer,) = dead.removal("w1").values()
    assert (answer["name"], answer["untouched"]) == ("w1", "K3s is gone from it")
    assert dead.asked == ["m1 forget_node w1"]
    dead.of("m1").serials = {"w1": "2"}
    assert dead.remove("w1") == {"w1": "no agent of ours has run there"}, "DHCP gave it another one's address"
    dead.of("m1").serials = {"w1": "1"}
    assert dead.remove("w1") == {"w1": ""}
    dead.asked.pop()
    dead.of("w1").addresses = ["10.0.0.12/24"]
    assert dead.remove("w1") == {"w1": "no agent of ours has run there"}
    named = Candidate(Login("w1"), Role.WORKER, "w1", cluster="home")
    assert "calls w1 Ready at 10.0.0.11" in dead.remove(named)["w1"], "the file has another one's address"
    dead.of("w1").addresses, dead.of("w1").k3s = ["10.0.0.11/24"], True
    assert dead.remove("w1") == {"w1": "no agent of ours has run there"}, "somebody's K3s is"
    assert dead.asked == ["m1 forget_node w1"]
