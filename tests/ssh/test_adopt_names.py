"""Machines whose names clash: told before anything is changed, and no node is taken over."""

from pathlib import Path

import pytest
from rig.hosts import Host

from ssh.adopting import logins, outcomes, shape
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh


def call(host: Host, name: str) -> None:
    """As a person does it who has not heard of /etc/hosts."""
    host.run(f"echo {name} > /etc/hostname; hostname {name}")


def test_two_of_one_name_are_told_and_stock_ones_get_names_of_their_own(
    machines: Machines, adopt: Operator
) -> None:
    master, stock, one, two = hosts = machines(10, 11, 12, 13)
    for host in (one, two):
        call(host, "pi-1")
    before = [shape(host) for host in (one, two)]
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 2, done.err
    found = outcomes(done)
    assert [found[host.address]["name"] for host in (master, stock)] == ["home-master", "home-00000b"]
    assert all(found[host.address]["ready"] for host in (master, stock))
    for host in (one, two):
        assert found[host.address]["error"] == "another node is called pi-1, too"
        assert "hostnamectl" in found[host.address]["hint"]
    assert [shape(host) for host in (one, two)] == before

    call(two, "Pi-2")
    healed = adopt(*logins(*hosts), "--json")
    assert healed.code == 0, healed.err + healed.out
    found = outcomes(healed)
    assert [found[host.address]["name"] for host in (one, two)] == ["pi-1", "pi-2"]
    again = adopt(*logins(*hosts), "--json")
    assert [one["changes"] for one in outcomes(again).values()] == [[]] * 4


def test_a_name_that_the_cluster_has_already(machines: Machines, adopt: Operator, tmp_path: Path) -> None:
    master, first, second = machines(10, 11, 12)
    for host in (first, second):
        call(host, "pi-1")
    assert adopt(*logins(master, first)).code == 0
    before = shape(second)
    told = adopt(*logins(master, second), "--json")
    assert told.code == 2, told.err
    found = outcomes(told)[second.address]
    assert found["error"] == "the cluster has another board called pi-1"
    assert "k3s-bake release pi-1" in found["hint"]
    assert shape(second) == before

    alone = adopt("--worker", f"pi@{second.address}", "--json")  # whom can it ask?
    assert alone.code == 2, alone.err
    found = outcomes(alone)[second.address]
    assert found["error"] == "it is blocked: name-taken"
    assert "k3s-bake release" in found["hint"]
    assert "pi-1" in master.run("k3s kubectl get nodes")
    assert first.state()["phase"] == "joined"

    nodes = tmp_path / "cluster.toml"
    login = f'host = "{second.address}"\nuser = "pi"\n'
    nodes.write_text(f'[cluster]\nname = "home"\n[[node]]\nrole = "worker"\nname = "pi-2"\n{login}')
    healed = adopt("--master", f"pi@{master.address}", "--file", nodes, "--json")
    assert healed.code == 0, healed.err + healed.out
    assert outcomes(healed)[second.address]["name"] == "pi-2"
    assert master.run("k3s kubectl get nodes").count(" Ready ") == 3
