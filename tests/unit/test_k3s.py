"""K3s on a node: its configuration, unit and secrets."""

import pytest
from raspbian import FULL, Pi, config, master, worker, written

from bake.concerns.k3s import config_yaml
from bake.spec import Datastore, NodeSpec
from firstboot.edits import Remove, Write

pytestmark = pytest.mark.unit


def test_worker_config(pi: Pi) -> None:
    assert config(pi, worker(**FULL)) == {
        "kubelet-arg": ["v=2"],  # and not 'disable', which an agent refuses
        "node-name": "w1",
        "node-label": ["disk=ssd"],
        "node-taint": ["big=true:NoSchedule"],
        "server": "https://10.0.0.2:6443",
        "token-file": "/etc/rancher/k3s/token",
        "prefer-bundled-bin": True,
    }


def test_master_config(pi: Pi) -> None:
    spec = master(cluster="home", datastore=Datastore.ETCD, config={"disable": ["traefik"]})
    assert config(pi, spec) == {
        "disable": ["traefik"],
        "node-name": "home-master",
        "cluster-init": True,
        "prefer-bundled-bin": True,
    }


def test_one_image_for_many_workers_makes_many_nodes(pi: Pi) -> None:
    assert config(pi, worker())["with-node-id"] is True


@pytest.mark.parametrize("version", [None, "v1.21.2+k3s1"])
def test_old_or_unknown_k3s_gets_no_key_it_would_refuse(pi: Pi, version: str | None) -> None:
    assert "prefer-bundled-bin" not in config(pi, worker(version=version))


def test_cgroup_v1_is_allowed_where_k3s_refuses_it(pi: Pi) -> None:
    spec = worker(version="v1.35.0+k3s1", config={"kubelet-arg": ["v=2"]})
    assert config(pi, spec)["kubelet-arg"] == ["v=2", "fail-cgroupv1=false"]
    pi.install(systemd="252")
    assert config(pi, spec)["kubelet-arg"] == ["v=2"]


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (master(version=None), "notify"),
        (worker(), "notify"),
        (worker(version=None), "exec"),
        (worker(version="v1.21.2+k3s1"), "exec"),
    ],
)
def test_unit_type(pi: Pi, spec: NodeSpec, kind: str) -> None:
    unit = written(pi, "k3s", spec)[f"/etc/systemd/system/{spec.role.unit}.service"]
    assert f"\nType={kind}\n" in unit
    assert f"\nExecStart=/usr/local/bin/k3s {spec.role.k3s}\n" in unit


def test_a_worker_that_cannot_join_is_not_started(pi: Pi) -> None:
    started = "/etc/systemd/system/multi-user.target.wants/k3s-agent.service"
    assert Remove(started) in pi.wants("k3s", worker())
    assert Remove(started) not in pi.wants("k3s", worker(**FULL))
    assert pi.notes("k3s", worker(**FULL)) == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (worker(), "this worker still needs --server and --token-file"),
        (worker(server="https://10.0.0.2:6443"), "this worker still needs --token-file"),
        (master(server="https://10.0.0.2:6443"), "this master still needs --token-file"),
    ],
)
def test_what_is_missing_is_said(pi: Pi, spec: NodeSpec, said: str) -> None:
    assert pi.notes("k3s", spec) == [f"K3s is installed but not started at boot: {said}"]


def test_the_environment_is_written_as_systemd_reads_it(pi: Pi) -> None:
    env = {"A": 'ü "b" \\c $d', "B": ""}
    files = written(pi, "k3s", worker(env=env))
    assert files["/etc/systemd/system/k3s-agent.service.env"] == 'A="ü \\"b\\" \\\\c $d"\nB=""\n'


def test_secrets_are_private_and_hidden(pi: Pi) -> None:
    todo = pi.plan(worker(**FULL))
    secrets = {edit.path: edit for edit in todo.edits if isinstance(edit, Write) and edit.secret}
    assert {"/etc/rancher/k3s/token", "/etc/rancher/k3s/registries.yaml"} <= secrets.keys()
    assert all(edit.mode == 0o600 for edit in secrets.values())
    assert todo.secret
    for shown in (repr(todo), repr(worker(**FULL))):
        assert "::node:pw" not in shown
        assert "secret-password" not in shown


def test_yaml_values_cannot_break_out() -> None:
    assert (
        config_yaml({"a": "b\nc: d", "e": "ü"}) == '# Written by k3s-bake.\na: "b\\nc: d"\ne: "ü"\n'.encode()
    )
