"""Nodes that go back: out of their cluster, to what they were, or to their first boot."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from guest.conftest import Done
from rig.hosts import Host, wait
from rig.lan import Lan, children
from rig.running import Person

from ssh.adopting import at_a_terminal, cluster_file, logins, outcomes, shape
from ssh.conftest import Machines, Operator, Start

pytestmark = pytest.mark.ssh


def login(host: Host) -> str:
    return f"pi@{host.address}"


def answers(done: Done) -> dict[str, dict[str, Any]]:
    """By login."""
    return {one["login"]: one for one in json.loads(done.out)}


def ready(master: Host) -> dict[str, bool]:
    """By name, as Kubernetes says."""
    rows = [row.split() for row in master.run("k3s kubectl get nodes").splitlines()[1:]]
    return {row[0]: row[1] == "Ready" for row in rows}


def test_what_a_person_has_changed_since_is_not_overwritten(
    machines: Machines, adopt: Operator, operator: Operator
) -> None:
    master, worker = hosts = machines(10, 11)
    assert adopt(*logins(*hosts)).code == 0
    worker.run("echo hello >> /etc/systemd/system/k3s-agent.service")
    removed = operator("remove", f"pi@{worker.address}", "--master", f"pi@{master.address}")
    assert removed.code == 0, removed.err + removed.out
    assert "home-00000b" not in master.run("k3s kubectl get nodes")
    undone = operator("undo", f"pi@{worker.address}", "--json")
    assert undone.code == 0, undone.err
    assert answers(undone)[login(worker)]["left"] == ["/etc/systemd/system/k3s-agent.service"]
    assert worker.text("etc/systemd/system/k3s-agent.service").endswith("hello\n")


def break_k3s(worker: Host) -> None:
    """Beyond repair, and for good: it was somebody's disk that its data are on."""
    worker.run(
        "systemctl stop k3s-agent; cp -a /var/lib/rancher/k3s /tmp/kept;"
        "mount -t tmpfs tmpfs /var/lib/rancher/k3s; cp -a /tmp/kept/. /var/lib/rancher/k3s;"
        "cd /var/lib/rancher/k3s; mkdir -p agent/images data; echo image >agent/images/mine.tar;"
        "for file in agent/*.crt agent/*.key; do echo garbage >$file; done; echo x >data/garbage;"
        "echo garbage >/etc/rancher/k3s/token; systemctl start --no-block k3s-agent"
    )


def test_a_worker_that_is_broken_begins_anew(
    machines: Machines, adopt: Operator, operator: Operator, tmp_path: Path
) -> None:
    """With a master that forgets it first, and by its agent alone."""
    master, worker = hosts = machines(10, 11)
    file = cluster_file(tmp_path, hosts)
    assert adopt(*logins(*hosts)).code == 0
    before = {path: worker.text(path) for path in ("etc/k3s-bake/join_key", "etc/k3s-bake/agent.json")}
    passwords = [worker.text("etc/rancher/node/password")]
    by_its_master = (login(worker), "--master", login(master), "--no-wait")
    for words in ((login(worker),), ("--file", file, worker.address), by_its_master):
        break_k3s(worker)
        wait(lambda: not ready(master)["home-00000b"], 240, lambda: "it is Ready all the same")
        done = operator("reset", *words, "--json")
        assert done.code == 0, done.err + done.out
        assert done.err == ""
        answer = answers(done)[login(worker)]
        assert answer["name"] == "home-00000b"
        assert answer["reset_seconds"] > 0
        assert (answer["drained"] is None) is ("--master" not in words and "--file" not in words)
        wait(lambda: ready(master).get("home-00000b", False), 240, lambda: "it does not come back")
        assert answer["ready"] is (None if "--no-wait" in words else True)
        passwords.append(worker.text("etc/rancher/node/password"))
        assert worker.text("var/lib/rancher/k3s/agent/images/mine.tar") == "image\n"
        assert worker.run("ls /var/lib/rancher/k3s/data 2>/dev/null", check=False) == ""
        assert worker.run("findmnt -n -o FSTYPE /var/lib/rancher/k3s | tail -n 1") == "tmpfs"
        worker.run("systemctl stop k3s-agent; umount /var/lib/rancher/k3s; rm -rf /tmp/kept")
        worker.run("systemctl start k3s-agent", check=False)
    assert before == {path: worker.text(path) for path in before}
    assert len(set(passwords)) == len(passwords)
    assert worker.run("systemctl is-enabled k3s-bake k3s-agent").split() == ["enabled"] * 2


def test_ready_is_said_of_the_new_node_and_not_of_the_old_one(
    machines: Machines, adopt: Operator, operator: Operator
) -> None:
    """Which Kubernetes calls Ready for some time, while the new one is rejected for its password."""
    master, worker = hosts = machines(10, 11)
    assert adopt(*logins(*hosts)).code == 0
    done = operator("reset", login(worker), "--json")
    assert done.code == 0, done.err + done.out
    assert worker.run("systemctl is-active k3s-agent", check=False) == "active"
    assert ready(master)["home-00000b"]


def test_whoever_kills_a_reset_in_the_middle_runs_it_again(
    machines: Machines, adopt: Operator, operator: Operator, start: Start
) -> None:
    """Off and cleared, not begun, and without a memory of its name: so it is found, and so it is finished."""
    master, worker = hosts = machines(10, 11)
    assert adopt(*logins(*hosts)).code == 0
    worker.run("mkdir -p /etc/systemd/system/k3s-agent.service.d")
    slow = worker.path("etc/systemd/system/k3s-agent.service.d/slow.conf")
    slow.write_text("[Service]\nExecStop=/bin/sleep 5\n")
    worker.run("systemctl daemon-reload")
    words = ("reset", login(worker), "--master", login(master))
    with start(*words) as process:
        wait(lambda: worker.run("systemctl is-active k3s-agent", check=False) == "deactivating", 240, str)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    wait(lambda: not worker.text("var/lib/k3s-bake/state.json"), 240, lambda: "it stopped in the middle")
    assert worker.run("systemctl is-active k3s-bake", check=False) == "inactive"
    slow.unlink()
    refused = adopt(*logins(*hosts), "--json")
    assert refused.code == 2
    told = outcomes(refused)[worker.address]
    assert (told["error"], told["hint"]) == (
        "a reset of it was cut off in the middle",
        "k3s-bake reset finishes it.",
    )
    done = operator(*words, "--json")
    assert done.code == 0, done.err + done.out
    assert answers(done)[login(worker)]["name"] == "home-00000b"
    assert ready(master) == {"home-master": True, "home-00000b": True}


def test_ctrl_c_says_how_far_a_reset_is(machines: Machines, adopt: Operator, start: Start) -> None:
    master, worker = hosts = machines(10, 11)
    assert adopt(*logins(*hosts)).code == 0
    master.run("systemctl stop k3s")  # so that nobody lets it in
    for more in ((), ("--json",)):
        worker.run("systemctl stop k3s-bake; rm /var/lib/k3s-bake/state.json")
        with start("reset", login(worker), *more) as process:
            wait(lambda: worker.state().get("phase") == "asking", 240, lambda: "nobody asks")
            (child,) = children(process.pid)  # of which nsenter tells how it ended
            os.kill(child, signal.SIGINT)
            out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert "error: interrupted" in err
        assert "what is done stays done" in err
        if more:
            assert json.loads(out)[0]["error"].startswith("interrupted: ")
        else:
            assert "interrupted: run it again to go on" in err
            assert out.startswith(f"{login(worker)}: interrupted: ")


def test_a_master_that_begins_a_new_cluster(
    machines: Machines,
    adopt: Operator,
    operator: Operator,
    lan: Lan,
    environment: dict[str, str],
    person: Person,
    tmp_path: Path,
) -> None:
    """Only if its name is typed, or --yes; a worker that is not reset stays out, and one that is joins."""
    master, worker, other = hosts = machines(10, 11, 12)
    assert adopt(*logins(*hosts)).code == 0
    token = master.text("var/lib/rancher/k3s/server/token")

    refused = operator("reset", login(master), login(worker), "--json")
    assert refused.code == 2
    assert answers(refused)[login(master)]["error"] == "all of its cluster's data would be gone"
    assert answers(refused)[login(worker)]["error"] == "left as it was"
    home = {**environment, "HOME": str(person.home)}
    words = ("reset", login(master), login(worker))
    said, code = at_a_terminal(lan, home, words, {"to go on: ": "home-worker\n"})
    assert code == 2, said
    assert master.text("var/lib/rancher/k3s/server/token") == token
    assert ready(master) == dict.fromkeys(("home-master", "home-00000b", "home-00000c"), True)

    said, code = at_a_terminal(lan, home, words, {"to go on: ": "home-master\n"})
    assert code == 0, said
    assert "home-master leads a new cluster" in said
    assert "home-00000b is Ready: reset in" in said
    assert ready(master) == {"home-master": True, "home-00000b": True}
    assert master.text("var/lib/rancher/k3s/server/token") != token
    wait(lambda: other.state()["reason"] == "other-cluster", 240, lambda: str(other.state()))

    left = adopt(*logins(master, other), "--json")
    assert left.code == 2
    told = outcomes(left)[other.address]
    assert told["error"].startswith("its cluster is another one than that of the master")
    assert f"k3s-bake reset {login(other)}" in told["hint"]
    done = operator("reset", "--file", cluster_file(tmp_path, hosts), "--all", "--yes")
    assert done.code == 0, done.err + done.out
    assert ready(master) == dict.fromkeys(("home-master", "home-00000b", "home-00000c"), True)


def test_masters_of_one_cluster(machines: Machines, adopt: Operator, operator: Operator) -> None:
    first, second, worker = machines(10, 11, 12)
    masters = ["--master", login(first), "--master", login(second)]
    assert adopt(*masters, "--worker", login(worker)).code == 0
    split = operator("reset", login(first), "--yes", "--json")
    assert split.code == 2
    assert "home-00000b would go on with the first" in answers(split)[login(first)]["error"]
    alone = operator("reset", login(second), "--json")
    assert alone.code == 2
    assert "the other masters have to forget it" in answers(alone)[login(second)]["error"]
    done = operator("reset", login(second), "--master", login(first), "--json")
    assert done.code == 0, done.err + done.out
    assert ready(first) == dict.fromkeys(("home-master", "home-00000b", "home-00000c"), True)
    assert f'server: "https://{first.address}:6443"' in second.text("etc/rancher/k3s/config.yaml")
    together = operator("reset", *map(login, (worker, second, first)), "--yes", "--json")
    assert together.code == 0, together.err + together.out
    assert ready(first) == dict.fromkeys(("home-master", "home-00000b", "home-00000c"), True)


def test_nodes_of_a_file_are_removed_and_undone(
    machines: Machines, adopt: Operator, operator: Operator, tmp_path: Path
) -> None:
    master, *workers = hosts = machines(10, 11, 12)
    before = [shape(host) for host in hosts]
    file = cluster_file(tmp_path, hosts)
    assert adopt("--file", file).code == 0
    removed = operator("remove", "--file", file, workers[0].address)
    assert removed.code == 0, removed.err + removed.out
    assert f"{login(workers[0])}: home-00000b is out of the cluster" in removed.out
    assert f"{login(workers[0])}: removed" in removed.err
    assert ready(master) == {"home-master": True, "home-00000c": True}
    gone = operator("reset", login(workers[0]), "--json")
    assert answers(gone)[login(workers[0])]["error"] == "it has no credential any more"
    itself = operator(
        "remove", login(master), "--master", f"pi@[::ffff:{master.address}]:22", "--json", "--accept-new"
    )
    assert "it is the master that is to stay" in itself.out + itself.err, itself
    nobody = operator("remove", login(workers[1]), "--master", login(workers[0]), "--json")
    assert nobody.code == 1
    assert "its Kubernetes does not answer" in answers(nobody)[login(workers[1])]["error"]
    assert ready(master) == {"home-master": True, "home-00000c": True}
    again = operator("remove", "--file", file, "--all", "--master", master.address, "--json")
    assert again.code == 0, again.err + again.out
    assert answers(again).keys() == set(map(login, workers)), "and one that has left leaves again"
    assert ready(master) == {"home-master": True}
    assert operator("undo", "--file", file).code == 2
    undone = operator("undo", "--file", file, "--yes", "--json")
    assert undone.code == 0, undone.err + undone.out
    assert answers(undone).keys() == set(map(login, hosts))
    assert [shape(host) for host in hosts] == before


def pod(name: str, node: str, **meta: object) -> dict[str, object]:
    return {"kind": "Pod", "metadata": {"name": name, **meta}, "spec": {"nodeName": node}}


def test_nodes_are_drained_side_by_side_and_pods_that_stay_are_named(
    machines: Machines, adopt: Operator, operator: Operator
) -> None:
    """One has a pod that a budget holds, the other one that does not end."""
    master, *workers = hosts = machines(10, 11, 12)
    assert adopt(*logins(*hosts)).code == 0
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    items = [
        pod("free", "home-00000b"),
        pod("held", "home-00000b", labels={"app": "web"}),
        pod("slow", "home-00000c", finalizers=["example.org/never"]),
        {"kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget},
    ]
    master.path("root/pods.json").write_text(json.dumps({"kind": "List", "items": items}))
    master.run("k3s kubectl create -f /root/pods.json")
    removed = operator("remove", *map(login, workers), "--master", login(master))
    assert removed.code == 0, removed.err + removed.out
    phases = [line.rpartition(": ")[2] for line in removed.err.splitlines() if "ing" in line]
    assert phases.index("leaving") > [at for at, phase in enumerate(phases) if phase == "draining"][1]
    stayed = "    1 pod stayed, and ended with it: "
    assert f"{stayed}a PodDisruptionBudget does not let them go: default/held\n" in removed.out
    assert f"{stayed}they did not end within 60 s: default/slow\n" in removed.out
    assert ready(master) == {"home-master": True}


def test_nodes_that_are_none_any_more_are_forgotten(
    machines: Machines, adopt: Operator, operator: Operator
) -> None:
    """One was undone; the other is off, and before that only its SSH was."""
    master, undone, off = hosts = machines(10, 11, 12)
    assert adopt(*logins(*hosts)).code == 0
    done = operator("undo", login(undone))
    assert done.code == 0, done.err + done.out
    how = (
        f"its cluster still lists it, as home-00000b, NotReady before long: 'k3s-bake remove {login(undone)} "
    )
    assert how in done.out
    assert "home-00000b" in ready(master)
    removed = operator("remove", login(undone), "--master", login(master))
    assert removed.code == 0, removed.err + removed.out
    assert "home-00000b is out of the cluster; the machine itself was not touched: K3s is gone" in removed.out
    assert ready(master) == {"home-master": True, "home-00000c": True}
    again = operator("remove", login(undone), "--master", login(master), "--json")
    assert again.code == 2
    assert "no agent of ours has run there" in again.out

    off.run("systemctl stop ssh.socket ssh")
    alive = operator("remove", login(off), "--master", login(master))
    assert alive.code == 1
    assert "and its cluster calls home-00000c Ready" in alive.out
    assert ready(master)["home-00000c"]
    off.stop()
    wait(lambda: not ready(master)["home-00000c"], 240, lambda: "it is Ready all the same")
    gone = operator("remove", "home-00000c", "--master", login(master))
    assert gone.code == 0, gone.err + gone.out
    assert "home-00000c is out of the cluster; the machine itself was not touched: it cannot be" in gone.out
    assert ready(master) == {"home-master": True}
