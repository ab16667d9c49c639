"""Nodes that the operator's machine does not reach, but through another host."""

import subprocess
from pathlib import Path

import pytest
from rig.hosts import Host
from rig.lan import OWN, Lan
from rig.running import Person

from ssh.adopting import logins, outcomes
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh


def apart(lan: Lan, *hosts: Host) -> None:
    """The operator's machine does not reach their SSH from now on; each other they do."""
    addresses = ", ".join(host.address for host in hosts)
    rules = (
        "table inet apart {\n chain output {\n  type filter hook output priority 0\n"
        f"  ip daddr {{ {addresses} }} tcp dport 22 reject with tcp reset\n }}\n}}\n"
    )
    subprocess.run(lan.inside("nft", "-f", "-"), input=rules, text=True, check=True)


def accepted(host: Host) -> list[str]:
    """From where logins came, since it is on."""
    lines = host.run("journalctl -t sshd --no-pager -o cat | grep '^Accepted' || true").splitlines()
    return [line.split(" from ")[1].split()[0] for line in lines]


def test_nodes_behind_the_jump_host_of_the_configuration(
    machines: Machines, lan: Lan, adopt: Operator, operator: Operator, person: Person
) -> None:
    """One login there, whoever goes through; another where it was lost."""
    gate, master, worker = machines(10, 11, 12)
    apart(lan, master, worker)
    refused = adopt(*logins(master, worker), "--json")
    assert {one["error"] for one in outcomes(refused).values()} == {"the connection was refused"}

    (person.ssh / "config").write_text(
        f"Host {master.address} {worker.address}\n  ProxyJump pi@{gate.address}\n"
    )
    done = adopt(*logins(master, worker), "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    assert "rebooting" in done.err
    assert accepted(gate) == [OWN]
    assert set(accepted(worker)) == {gate.address}
    assert gate.run("ls /usr/local/bin/k3s", check=False) == ""

    known = (person.ssh / "known_hosts").read_text()
    assert [known.count(f"{host.address} ") for host in (gate, master, worker)] == [1, 1, 1]
    (person.ssh / "config").unlink()
    undone = operator("undo", f"pi@{worker.address}", "--jump", f"pi@{gate.address}")
    assert undone.code == 0, undone.err + undone.out


def test_nodes_behind_the_jump_hosts_of_the_cluster_file(
    machines: Machines, lan: Lan, operator: Operator, adopting: list[str], tmp_path: Path
) -> None:
    gate, inner, master, worker = machines(10, 11, 12, 13)
    apart(lan, inner, master, worker)
    text = f"""
        [cluster]
        name = "home"
        user = "pi"
        jump = "pi@{gate.address}"
        [[node]]
        role = "master"
        host = "{master.address}"
        [[node]]
        role = "worker"
        host = "{worker.address}"
        jump = "pi@{gate.address},pi@{inner.address}"
    """
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    done = operator(*adopting, "--file", file, "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    assert set(accepted(master)) == {gate.address, worker.address}, "which asks for its token"
    assert set(accepted(worker)) == {inner.address}
    assert accepted(inner) == [gate.address]
    assert accepted(gate) == [OWN]


def test_jump_hosts_that_are_of_no_use_are_told_by_name_and_hinder_nobody_else(
    machines: Machines, operator: Operator, tmp_path: Path
) -> None:
    dead, closed, well, behind = machines(10, 11, 12, 13)
    dead.run("systemctl stop ssh")
    closed.run("echo 'AllowTcpForwarding no' >>/etc/ssh/sshd_config; systemctl restart ssh")
    nodes = {f"{behind.address}": f"pi@{closed.address}", "10.9.0.98": f"pi@{well.address}"}
    nodes |= {"10.9.0.96": f"pi@{dead.address}", "10.9.0.97": f"pi@{dead.address}", well.address: "none"}
    file = tmp_path / "cluster.toml"
    file.write_text(
        '[cluster]\nuser = "pi"\n'
        + "".join(
            f'[[node]]\nrole = "worker"\nhost = "{host}"\njump = "{jump}"\n' for host, jump in nodes.items()
        )
    )
    done = operator("preflight", "--file", file, "--accept-new", "--json")
    assert "Traceback" not in done.err
    errors = {address: one["error"] for address, one in outcomes(done).items()}
    assert errors[well.address] == ""
    for address in ("10.9.0.96", "10.9.0.97"):
        assert errors[address] == f"its jump host pi@{dead.address}: the connection was refused"
    assert errors["10.9.0.98"].startswith("its jump host does not reach it: ")
    assert errors[behind.address] == "its jump host forwards nothing"


def test_a_jump_host_that_is_seen_for_the_first_time(
    machines: Machines, lan: Lan, operator: Operator, person: Person
) -> None:
    gate, node = machines(10, 11)
    words = ("preflight", "--worker", f"pi@{node.address}", "--jump", f"pi@{gate.address}")
    done = operator(*words, "--json")
    assert done.code == 2
    (found,) = outcomes(done).values()
    assert found["error"] == f"its jump host pi@{gate.address}: its host key is not known here"
    assert f"'ssh pi@{gate.address}' once" in found["hint"]
    assert accepted(gate) == []
    assert operator(*words, "--accept-new").code == 0
    (person.ssh / "known_hosts").write_text(f"{gate.address} {person.public_key.read_text()}")
    (found,) = outcomes(operator(*words, "--accept-new", "--json")).values()
    assert found["error"] == f"its jump host pi@{gate.address}: its host key has changed"


def test_a_jump_host_that_is_a_node_cuts_off_those_behind_it_when_it_restarts(
    machines: Machines, lan: Lan, adopt: Operator
) -> None:
    """Which is told of them alone, and the next run goes on."""
    gate, worker = hosts = machines(10, 11)
    apart(lan, worker)
    words_of_the_kernel = "cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory"
    worker.run(
        f"sed -i 's/$/ {words_of_the_kernel}/' /boot/cmdline.txt"
    )  # so that it waits, and is not restarted
    words = (*logins(*hosts), "--jump", f"pi@{gate.address}", "--json")
    first = adopt(*words)
    assert "Traceback" not in first.err
    found = outcomes(first)
    assert found[gate.address]["phase"] == "joined"
    assert "the connection was lost" in found[worker.address]["error"]
    again = adopt(*words)
    assert again.code == 0, again.err + again.out
    assert all(one["ready"] for one in outcomes(again).values())
