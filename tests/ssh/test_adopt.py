"""Machines that run become nodes, by one command, over a real sshd and sudo; and back."""

import json
import os
from pathlib import Path

import pytest
from guest.conftest import ROOT, Done
from rig.hosts import Host
from rig.running import Person

from ssh.adopting import REGISTRIES, cluster_file, executions, logins, outcomes, shape
from ssh.conftest import Images, Machines, Operator, Power

pytestmark = pytest.mark.ssh


def check_what_is_told_of(hosts: list[Host], operator: Operator) -> None:
    """Once they are a cluster, by the commands that only ask."""
    status = operator("status", "--json")
    assert status.code == 0, status.err
    told = {one["name"]: one for one in json.loads(status.out)["nodes"]}
    assert told.keys() == {"home-master", "home-00000b", "home-00000c"}
    assert all(one["ready"] for one in told.values())
    assert "Ready" in operator("status").out

    found = {one["address"]: one for one in json.loads(operator("discover", "--json").out)}
    for host in hosts:
        assert found[host.address]["ssh"].startswith("OpenSSH")
        assert found[host.address]["node"]["phase"] == "joined"


def test_a_master_and_two_workers(machines: Machines, adopt: Operator, operator: Operator) -> None:
    """The experiment that this tool grew from: times, pings, states; and what it did not do."""
    master, *_ = hosts = machines(10, 11, 12)
    before = [shape(host) for host in hosts]

    dry = adopt(*logins(*hosts), "--dry-run")
    assert dry.code == 0, dry.err
    assert "+cgroup_enable=cpuset" in dry.out or "cgroup_memory=1" in dry.out
    assert "nothing was changed" in dry.out
    assert [shape(host) for host in hosts] == before
    asked = executions(master)

    done = adopt(*logins(*hosts), "--json")
    assert done.code == 0, done.err + done.out
    for one in outcomes(done).values():
        assert (one["phase"], one["ready"], one["error"]) == ("joined", True, "")
        assert one["configuration_seconds"] > 0
        assert one["installation_seconds"] > 0
        assert len(one["changes"]) > 20
        assert len(one["ping_ms"]) == 2
        assert all(took < 100 for took in one["ping_ms"].values())
    assert {host.run("hostname") for host in hosts} == {"home-master", "home-00000b", "home-00000c"}
    assert executions(master) - asked == 2, "one, and one after its restart"

    shown = adopt(*logins(*hosts))
    assert shown.code == 0, shown.err
    for line in shown.out.splitlines()[1:4]:
        assert line.split()[-1] == "none"
        assert "Ready" in line
    assert executions(master) - asked == 3

    check_what_is_told_of(hosts, operator)

    undone = operator("undo", "--yes", *(f"pi@{host.address}" for host in hosts))
    assert undone.code == 0, undone.err + undone.out
    assert [shape(host) for host in hosts] == before
    for host in hosts:
        assert host.run("hostname") == "raspberrypi"
        assert host.run("systemctl is-active k3s k3s-agent k3s-bake", check=False).split() == ["inactive"] * 3
    again = operator("undo", f"pi@{master.address}")
    assert again.code == 0, again.err
    assert "nothing to put back" in again.out


def test_what_a_run_that_was_cut_off_has_not_told_the_system(machines: Machines, adopt: Operator) -> None:
    """All files are right, and neither has the kernel read its command line nor does the agent run."""
    (master,) = machines(10)
    done = adopt(*logins(master), "--no-reboot", "--no-wait", "--json")
    assert outcomes(done)[master.address]["pending"] == ["/boot/cmdline.txt"]
    again = adopt(*logins(master), "--no-reboot", "--no-wait", "--json")
    assert outcomes(again)[master.address]["changes"] == []
    assert outcomes(again)[master.address]["pending"] == ["/boot/cmdline.txt"]
    before = master.run("cat /proc/sys/kernel/random/boot_id; uptime -s")
    done = adopt(*logins(master), "--json")
    assert done.code == 0, done.err
    assert outcomes(done)[master.address]["ready"]
    assert master.run("cat /proc/sys/kernel/random/boot_id; uptime -s") != before
    master.run(
        "systemctl stop k3s-bake; echo '[\"/usr/lib/k3s-bake/firstboot.pyz\"]' >/run/k3s-bake-unfinished.json"
    )
    done = adopt(*logins(master), "--json")
    assert done.code == 0, done.err
    assert master.run("systemctl is-active k3s-bake") == "active"
    assert master.run("ls /run/k3s-bake-unfinished.json", check=False) == ""


def test_a_baked_node_has_nothing_to_do_and_a_blocked_one_is_healed(
    power: Power, image: Images, adopt: Operator, person: Person
) -> None:
    key = ("--authorized-key", str(person.public_key))
    master = power(10, "master", *key)
    worker = power(11, "worker", *key)
    blocked = power(12, "worker", *key, "--no-credential")
    for host in (master, worker):
        host.until("joined")
    blocked.until("blocked", "no-credential")
    done = adopt(*logins(master, worker, blocked), "--cluster", "home", "--json")
    assert done.code == 0, done.err + done.out
    found = outcomes(done)
    for host in (master, worker):
        changed = [one["edit"]["path"] for one in found[host.address]["changes"]]
        assert changed == ["/etc/dhcpcd.conf"], "which is the rig's own"
    assert "/etc/k3s-bake/join_key" in [one["edit"]["path"] for one in found[blocked.address]["changes"]]
    assert {one["phase"] for one in found.values()} == {"joined"}
    assert {one["ready"] for one in found.values()} == {True}


def test_three_masters_are_one_cluster(machines: Machines, adopt: Operator) -> None:
    first, second, third, worker = hosts = machines(10, 11, 12, 13)
    first.run("rm /boot/cmdline.txt && echo >/etc/fstab")  # a PC, say: nothing there is a Pi's firmware
    masters = [word for host in (first, second, third) for word in ("--master", f"pi@{host.address}")]
    done = adopt(*masters, "--worker", f"pi@{worker.address}", "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    assert "cluster-init: true" in first.text("etc/rancher/k3s/config.yaml")
    for host in (second, third):
        assert f'server: "https://{first.address}:6443"' in host.text("etc/rancher/k3s/config.yaml")
        assert "cluster-init" not in host.text("etc/rancher/k3s/config.yaml")
    again = adopt(*masters, "--worker", f"pi@{worker.address}", "--json")
    assert again.code == 0, again.err + again.out
    assert all(one["changes"] == [] for one in outcomes(again).values())
    assert len({host.text("etc/rancher/k3s/agent-token") for host in hosts[:3]}) == 1


def test_a_node_of_another_cluster_is_taken_over_only_if_that_is_said(
    machines: Machines, adopt: Operator
) -> None:
    first, second, worker = machines(10, 11, 12)
    assert adopt(*logins(first, worker), "--cluster", "home").code == 0
    assert adopt(*logins(second), "--cluster", "work").code == 0
    refused = adopt(*logins(second, worker), "--cluster", "work", "--json")
    assert refused.code == 2
    assert outcomes(refused)[worker.address]["error"] == "it is a worker of the cluster home"
    assert worker.state()["phase"] == "joined"
    taken = adopt(*logins(second, worker), "--cluster", "work", "--take-over", "--json")
    assert taken.code == 0, taken.err + taken.out
    assert outcomes(taken)[worker.address]["ready"] is True
    assert outcomes(taken)[second.address]["changes"] == [], "it is of that cluster already"
    assert worker.run("hostname") in second.run("k3s kubectl get nodes")


def test_a_rolling_upgrade_and_one_that_is_taken_back(
    machines: Machines, adopt: Operator, operator: Operator, tmp_path: Path
) -> None:
    """Of a cluster in a file, with a secret of which its nodes' records have a stand-in."""
    if os.environ.get("K3S_BAKE_TEST_K3S_AMD64"):
        pytest.skip("there is one real K3s; this test needs a second one")
    master, *workers = hosts = machines(10, 11, 12)
    file = cluster_file(tmp_path, hosts)
    done = adopt("--file", file)
    assert done.code == 0, done.err + done.out
    newer, broken = tmp_path / "newer", tmp_path / "broken"
    newer.write_text((ROOT / "tests/fakes/k3s").read_text().replace("v1.34.9+k3s1", "v1.35.1+k3s1"))
    text, agent = newer.read_text().replace("v1.35.1+k3s1", "v1.36.0+k3s1"), "def run_agent():\n"
    assert agent in text
    broken.write_text(text.replace(agent, f"{agent}    raise Failure('broken on purpose')\n"))

    def upgrade(path: Path, version: str, *more: str) -> Done:
        path.chmod(0o755)
        how = ("--k3s", path, "--k3s-version", version, "--airgap", "none", "--json")
        return operator("upgrade", "--file", file, *how, *more)

    done = upgrade(newer, "v1.35.1+k3s1")
    assert done.code == 0, done.err + done.out
    assert master.run("k3s kubectl get nodes").count("v1.35.1+k3s1") == 3
    failed = upgrade(broken, "v1.36.0+k3s1", "--at-once", "1", "--timeout", "30")
    assert failed.code == 1, failed.out
    found = outcomes(failed)
    assert found[master.address]["error"] == ""
    first, second = workers
    assert "it has v1.35.1+k3s1 again" in found[first.address]["error"]
    assert "broken on purpose" in found[first.address]["hint"]
    assert found[second.address]["phase"] == "left as it was"
    for host in workers:
        assert host.text("etc/rancher/k3s/registries.yaml") == REGISTRIES
        assert host.run("k3s --version").split()[2] == "v1.35.1+k3s1"
        assert host.run("ls /var/lib/k3s-bake/parts 2>/dev/null", check=False) == ""
    rows = master.run("k3s kubectl get nodes").splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["Ready"] * 3
