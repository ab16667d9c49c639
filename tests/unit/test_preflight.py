"""Is a running machine fit?"""

from typing import Any

import pytest

from bake.spec import Role
from k3s_bake.preflight import MB, clashes, lan_address, name_for, problems, taken, unreachable

pytestmark = pytest.mark.unit

NOW = 1_800_000_000.0


def machine(**values: Any) -> dict[str, Any]:
    return {
        "reason": "",
        "hostname": "raspberrypi",
        "memory": 927 * MB,
        "free": {"/var/lib": 4096 * MB, "/usr/local": 4096 * MB},
        "read_only": [],
        "volatile": False,
        "time": NOW,
        "addresses": {"eth0": ["10.0.0.3/24"]},
        "taken": [],
        "ours": None,
        "k3s": False,
        "others": [],
        **values,
    }


def test_a_pi_3_is_fit_for_either_role() -> None:
    for role in Role:
        assert problems(machine(), role, NOW) == []


@pytest.mark.parametrize(
    ("values", "code", "stops"),
    [
        ({"reason": "armv6"}, "armv6", True),
        ({"reason": "no-memory-cgroup"}, "no-memory-cgroup", False),
        ({"memory": 100 * MB}, "memory", True),
        ({"read_only": ["/", "/etc", "/boot"]}, "read-only", True),
        ({"read_only": ["/boot"]}, "read-only", True),
        ({"volatile": True}, "volatile", True),
        ({"free": {"/var/lib": 10 * MB, "/usr/local": 10 * MB}}, "room", True),
        ({"others": ["MicroK8s"]}, "other-kubernetes", True),
        ({"k3s": True}, "other-k3s", True),
        ({"taken": [10250]}, "port", True),
        ({"time": NOW - 2 * 365 * 86400}, "clock", False),
    ],
)
def test_what_stands_in_the_way(values: dict[str, Any], code: str, stops: bool) -> None:
    (found,) = problems(machine(**values), Role.WORKER, NOW)
    assert (found.code, found.stops) == (code, stops)
    assert found.remedy


def test_a_reset_that_was_cut_off_is_no_k3s_of_somebody_else() -> None:
    (found,) = problems(machine(resetting=True, k3s=True), Role.WORKER, NOW)
    assert (found.code, found.remedy) == ("reset", "k3s-bake reset finishes it.")


def test_a_kernel_without_memory_cgroup_is_mended_on_a_pi_alone() -> None:
    (found,) = problems(machine(reason="no-memory-cgroup"), Role.MASTER, NOW, firmware=False)
    assert found.stops
    for word in ("cgroup_enable=memory", "/etc/default/grub", "cmdline.txt of a Pi that boots from the net"):
        assert word in found.remedy


def test_ours_may_use_its_own_ports_and_a_taken_over_one_too() -> None:
    busy = machine(taken=[6443, 6422, 10250], k3s=True)
    assert problems(busy, Role.MASTER, NOW)
    assert problems(busy | {"ours": {"name": "pi-1"}}, Role.MASTER, NOW) == []
    assert problems(busy, Role.MASTER, NOW, take_over=True) == []


def test_what_stops_comes_first() -> None:
    found = problems(machine(time=0.0, read_only=["/"]), Role.WORKER, NOW)
    assert [one.stops for one in found] == [True, False]


def test_what_is_read_only_is_named() -> None:
    told = [
        problems(machine(read_only=found), Role.WORKER, NOW)[0]
        for found in (["/", "/etc"], ["/etc", "/boot"])
    ]
    assert told[0].message == "its root is mounted read-only"
    assert told[1].message == "/etc and /boot are mounted read-only"


def test_the_clocks_difference_is_told_in_words() -> None:
    (found,) = problems(machine(time=NOW + 730 * 86400), Role.WORKER, NOW)
    assert "730 days ahead" in found.message


def test_names() -> None:
    assert name_for("Pi-7") == "pi-7"
    assert name_for("raspberrypi") is None
    assert name_for("my_pi") is None
    names = {"a": "pi-1", "b": "pi-1", "c": "pi-2"}
    assert clashes(names, []).keys() == clashes(names, ["a", "b", "c"]).keys() == {"a", "b"}
    assert clashes(names, ["b"]).keys() == {"a"}


def test_a_name_that_the_cluster_has_is_another_boards_unless_it_is_the_same() -> None:
    known = {"pi-1": "1000a1", "pi-2": "1000a2"}
    nodes = ["home-master", "pi-1"]
    assert taken("pi-1", "1000a1", nodes, known) is None, "set up anew"
    assert taken("pi-3", "1000a3", nodes, known) is None
    for name in ("pi-1", "pi-2", "home-master"):
        found = taken(name, "1000a3", nodes, known)
        assert found
        assert found.message == f"the cluster has another board called {name}"
        assert f"release {name}" in found.remedy


def test_the_address_is_none_of_pods_or_containers() -> None:
    several = machine(
        addresses={"cni0": ["10.42.0.1/24"], "docker0": ["172.17.0.1/16"], "wlan0": ["10.0.0.9/24"]}
    )
    assert lan_address(several, "pi.local") == "10.0.0.9"
    two = machine(addresses={"eth0": ["10.0.0.3/24"], "wlan0": ["10.0.0.9/24"]})
    assert lan_address(two, "10.0.0.9") == "10.0.0.9"
    assert lan_address(machine(addresses={}), "10.0.0.9") is None


def test_what_does_not_get_through_between_nodes() -> None:
    """b's K3s listens already, so that nothing is heard there; c did not answer."""
    answers = {
        "a": {"reached": {"b": {}, "c": {"6443": "no answer"}}, "heard": [], "taken": []},
        "b": {"reached": {"a": {"6443": "connection refused"}}, "heard": [], "taken": [8472]},
    }
    found = unreachable(answers, {"a", "c"})
    assert [one.message for one in found["a"]] == ["nothing of b arrives at UDP 8472"]
    assert [one.message for one in found["b"]] == ["it does not reach a at TCP 6443: connection refused"]
    assert not any(one.stops for one in found["a"] + found["b"])


def test_two_addresses_of_one_network() -> None:
    two = {
        "eth0": ["10.0.0.3/24", "10.0.0.77/24", "192.168.1.2/24"],
        "cni0": ["10.42.0.1/24", "10.42.0.2/24"],
    }
    (found,) = problems(machine(addresses=two), Role.WORKER, NOW)
    assert (found.code, found.stops) == ("two-addresses", False)
    assert "eth0 has 10.0.0.3 and 10.0.0.77" in found.message
    assert problems(machine(addresses={"eth0": ["10.0.0.3/24", "10.1.0.3/24"]}), Role.WORKER, NOW) == []
