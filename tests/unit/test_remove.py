"""Nodes that leave their cluster, several in one run: told by what is asked of them."""

from typing import Any

import pytest
from test_reset import GONE, Cluster

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
    assert {"m1 forget_node w1", "m1 forget_node w4"} <= set(cluster.asked)


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
    assert made["w1"] == {"name": "w1", "drained": True, "pods_left": [], "why_left": ""}
    assert made["w2"] == {"name": "w2", "drained": False, "pods_left": ["shop/web"], "why_left": "why"}
