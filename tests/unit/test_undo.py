"""Whether the cluster of a node that is undone still lists it, and what is said of that."""

import pytest
from test_reset import Cluster, of

from firstboot.contract import K3S_DATASTORE
from k3s_bake.cli.undo import _undone

pytestmark = pytest.mark.unit

BOTH = [{"name": "m1", "roles": ["control-plane"]}, {"name": "m2", "roles": ["etcd"]}]
ALONE = [{"name": "m1", "roles": ["control-plane"]}, {"name": "w1", "roles": []}]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(monkeypatch)
    made.of("m1").nodes = made.of("m2").nodes = BOTH
    return made


def listed(cluster: Cluster, *names: str) -> dict[str, bool | None]:
    return {one["login"]: one["still_listed"] for one in cluster.undo(*map(of, names)).data()}


def test_a_cluster_lists_its_undone_nodes_for_as_long_as_it_has_a_master(cluster: Cluster) -> None:
    assert listed(cluster, "w1", "w2") == {"w1": True, "w2": True}
    assert listed(cluster, "m1", "w1") == {"m1": True, "w1": True}, "m2 goes on"
    assert listed(cluster, "m1", "m2", "w1") == {"m1": False, "m2": False, "w1": False}
    cluster.of("m1").nodes = ALONE
    assert listed(cluster, "m1", "w1") == {"m1": False, "w1": False}


def test_who_was_removed_first_is_listed_no_more(cluster: Cluster) -> None:
    cluster.of("w1").joined = False
    cluster.of("m2").joined = False
    assert listed(cluster, "w1", "w2", "m2") == {"w1": False, "w2": True, "m2": False}


def test_where_nobody_says_whether_there_are_other_masters(cluster: Cluster) -> None:
    cluster.of("m1").nodes = None
    assert listed(cluster, "m1", "w1") == {"m1": False, "w1": False}, "its state was on it alone"
    cluster.of("m1").datastore = K3S_DATASTORE
    assert listed(cluster, "m1", "w1") == {"m1": None, "w1": None}
    assert listed(cluster, "m1", "m2", "w1") == {"m1": False, "m2": False, "w1": False}, "m2 says it"


def test_it_is_said_in_a_line_how_it_is_forgotten() -> None:
    answer = {"login": "pi@10.0.0.4", "name": "w1", "back": ["/etc/x"], "left": []}
    (line,) = _undone({**answer, "still_listed": True}).splitlines()[1:]
    assert "its cluster still lists it, as w1" in line
    assert "'k3s-bake remove pi@10.0.0.4 --master LOGIN' has it forgotten" in line
    assert "if its cluster goes on" in _undone({**answer, "still_listed": None})
    assert "cluster" not in _undone({**answer, "still_listed": False})
