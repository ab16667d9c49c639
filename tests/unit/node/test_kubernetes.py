"""A master's own K3s, by what it says. By the node's own Python, too."""

from __future__ import annotations

import json

import pytest

from firstboot import kubernetes
from firstboot.kubernetes import KubernetesNode

pytestmark = pytest.mark.unit


def test_nodes_of_kubectl() -> None:
    item = {
        "metadata": {"name": "w1", "labels": {"node-role.kubernetes.io/master": "true", "x": "y"}},
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True"},
            ],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.3"}],
            "nodeInfo": {"kubeletVersion": "v1.34.9+k3s1"},
        },
    }
    expected = KubernetesNode("w1", True, "v1.34.9+k3s1", ("master",), "10.0.0.3")
    assert kubernetes.nodes_of({"items": [item]}) == [expected]
    item["status"] = {}  # just registered
    assert kubernetes.nodes_of({"items": [item]})[0].ready is False
    for garbled in ([], {}, {"items": [7]}, {"items": [{}]}, None):
        with pytest.raises(ValueError, match="no list of nodes"):
            kubernetes.nodes_of(garbled)


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("v1.21.2+k3s1", False),
        ("v1.23.16+k3s1", False),
        ("v1.23.17+k3s1", True),
        ("v1.24.10+k3s1", False),
        ("v1.25.7+k3s1", True),
        ("v1.26.1+k3s1", False),
        ("v1.26.2+k3s1", True),
        ("v1.27.0+k3s1", True),
        ("v2.0.0+k3s1", True),
        ("", False),
    ],
)
def test_which_k3s_makes_tokens(version: str, can: bool) -> None:
    assert kubernetes.can_create_tokens(version) is can


def pod(name: str, phase: str = "Running", **meta: object) -> dict[str, object]:
    return {"metadata": {"namespace": "shop", "name": name, **meta}, "status": {"phase": phase}}


def owned(kind: str) -> dict[str, object]:
    return {"ownerReferences": [{"kind": kind, "name": "x", "controller": True}]}


def test_pods_that_a_drain_is_to_move() -> None:
    items = [
        pod("web", **owned("ReplicaSet")),
        pod("bare"),
        pod("log", **owned("DaemonSet")),
        pod("file", annotations={"kubernetes.io/config.mirror": "x"}),
        pod("job", "Succeeded"),
    ]
    assert kubernetes.pods_of({"items": items}) == ("shop/bare", "shop/web")
    for garbled in ([], {}, {"items": [7]}, {"items": [{}]}, None):
        with pytest.raises(ValueError, match="no list of pods"):
            kubernetes.pods_of(garbled)


BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."
HELD = 'error when evicting pods/"web" -n "shop"'
SLOW = 'error when waiting for pod "web" in namespace "shop" to terminate: global timeout reached: 1m0s'


@pytest.mark.parametrize(
    ("complaint", "why"),
    [
        (f"{HELD} (will retry after 5s): {BUDGET}", "a PodDisruptionBudget does not let them go"),
        (f"{HELD}: global timeout reached: 1m0s\n{SLOW}", "a PodDisruptionBudget does not let them go"),
        (SLOW, "they did not end within 60 s"),
        ("error: drain did not complete within 1m0s", "they did not end within 60 s"),
        ("x\nThe connection to the server was refused\n", "The connection to the server was refused"),
        ("", ""),
    ],
)
def test_why_pods_stay(monkeypatch: pytest.MonkeyPatch, complaint: str, why: str) -> None:
    listed = json.dumps({"items": [pod("web")]}).encode()
    answers = {"drain": (1, b"", complaint), "get": (0, listed, "")}
    monkeypatch.setattr(kubernetes, "run", lambda command, **_: answers[command[2]])
    found = kubernetes.drain("w1")
    assert (found.drained, found.pods_left) == (False, ("shop/web",))
    assert why in found.why_left
    assert bool(why) is bool(found.why_left)
    answers["get"] = (0, b'{"items": []}', "")
    assert kubernetes.drain("w1") == (True, (), ""), "they have ended since"
    answers["get"] = (1, b"", "")
    assert kubernetes.drain("w1")[:2] == (False, ()), "nobody knows which"


def test_a_node_that_is_none_any_more_has_no_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = 'Error from server (NotFound): nodes "w1" not found\n'
    monkeypatch.setattr(kubernetes, "run", lambda command, **_: (1, b"", gone))
    assert kubernetes.drain("w1") == (True, (), "")
    assert not kubernetes.drain("--all").drained


def test_who_is_no_node_is_not_cordoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """kubectl stops at the first that it does not find."""
    ran: list[list[str]] = []
    known = [KubernetesNode(name, True, "", (), "") for name in ("w1", "w2", "w3")]
    monkeypatch.setattr(kubernetes, "nodes", lambda: known)
    monkeypatch.setattr(kubernetes, "run", lambda command, **_: ran.append(list(command[1:])) or (0, b"", ""))
    assert kubernetes.cordon(["w3", "gone", "w1"])
    assert kubernetes.cordon(["gone"])
    monkeypatch.setattr(kubernetes, "nodes", lambda: None)
    assert not kubernetes.cordon(["w1"]), "nobody knows"
    assert ran == [["kubectl", "cordon", "w1", "w3"]]


def test_the_address_of_a_master(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "_text", lambda path: 'log: "x"\nhttps-listen-port: "7443"\n')
    assert kubernetes.url("10.0.0.2") == "https://10.0.0.2:7443"
    monkeypatch.setattr(kubernetes, "_text", lambda path: "")
    assert kubernetes.url("2001:db8::2") == "https://[2001:db8::2]:6443"
    monkeypatch.setattr(
        kubernetes, "_text", lambda path: "a:\n    server: https://127.0.0.1:6443\n  name: default\n"
    )
    assert (
        kubernetes.kubeconfig("https://10.0.0.2:6443")
        == "a:\n    server: https://10.0.0.2:6443\n  name: default\n"
    )
    monkeypatch.setattr(kubernetes, "_text", lambda path: "")
    assert kubernetes.kubeconfig("https://10.0.0.2:6443") is None
