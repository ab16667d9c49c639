"""A master's own K3s, by what it says. By the node's own Python, too."""

from __future__ import annotations

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
