"""What goes wrong with machines that are to become nodes: a line for each, and the next run heals it."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from rig.hosts import wait
from rig.packages import installed
from rig.running import Person, answers, until

from ssh.adopting import logins, outcomes, shape
from ssh.conftest import Machines, Operator, Start

pytestmark = pytest.mark.ssh


class Fault(NamedTuple):
    done: str
    """To a machine, by root."""
    said: str
    """In its line."""
    undone: str = ""


FAULTS = (
    Fault("chmod a-x /usr/bin/python3*", "it has no python3", "chmod a+x /usr/bin/python3*"),
    Fault("echo 'pi ALL=(ALL) ALL' > /etc/sudoers.d/010_pi-nopasswd", "sudo wants a password of pi"),
    Fault("systemd-run python3 -m http.server 10250", "port 10250 is taken", "pkill -f http.serve[r]"),
    Fault(
        "mkdir -p /var/lib/k3s-bake; mount -t tmpfs -o size=64k tmpfs /var/lib/k3s-bake",
        "No space left on device",
        "umount /var/lib/k3s-bake",
    ),
    Fault("mkdir -p /var/lib/rancher/k3s/agent", "K3s of somebody else is installed there"),
    Fault("rm /home/pi/.ssh/authorized_keys", "the login was refused"),
    Fault(
        # Root itself is busy in a host of a test.
        "for one in /etc /usr /var /boot; do mount --bind $one $one; mount -o remount,ro,bind $one; done",
        "/etc and /usr/lib and /usr/local and /var/lib and /boot are mounted read-only",
        "for one in /etc /usr /var /boot; do mount -o remount,rw,bind $one; done",
    ),
    Fault(
        "mount --bind /boot /boot; mount -o remount,ro,bind /boot",
        "/boot is mounted read-only",
        "umount /boot",
    ),
    Fault(
        "echo boot=overlay console=tty1 > /run/cmdline; mount --bind /run/cmdline /proc/cmdline",
        "its root is an overlay in memory, which a restart undoes",
        "umount /proc/cmdline",
    ),
    Fault("systemctl stop ssh", "the connection was refused", "systemctl start ssh"),
)


def test_each_fault_is_one_line_and_hinders_nobody_else(
    machines: Machines, adopt: Operator, person: Person
) -> None:
    master, changed_key, *ill = machines(*range(10, 12 + len(FAULTS)))
    (person.ssh / "known_hosts").write_text(f"{changed_key.address} {person.public_key.read_text()}")
    by_fault = dict(zip(FAULTS, ill, strict=True))
    for fault, host in by_fault.items():
        host.run(fault.done)
    wait(lambda: any(":10250" in host.run("ss -tln") for host in ill), 20, lambda: "nobody listens")
    nobody = f"{master.address.rpartition('.')[0]}.99"
    done = adopt(*logins(master, changed_key, *ill), "--worker", f"pi@{nobody}", "--json")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    found = outcomes(done)
    assert (found[master.address]["phase"], found[master.address]["ready"]) == ("joined", True)
    expected = {host.address: fault.said for fault, host in by_fault.items()}
    expected |= {changed_key.address: "its host key has changed", nobody: "cannot be reached"}
    for address, words in expected.items():
        assert words in found[address]["error"], found[address]
        assert found[address]["phase"] == "failed"
        assert "\n" not in found[address]["error"]

    healed = [host for fault, host in by_fault.items() if fault.undone]
    for fault, host in by_fault.items():
        host.run(fault.undone)
    again = adopt(*logins(master, *healed), "--json")
    assert again.code == 0, again.err + again.out
    assert all(one["ready"] for one in outcomes(again).values())


FAKED = """#!/bin/sh
export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
export FAKETIME=-2y FAKETIME_DONT_FAKE_MONOTONIC=1
exec /usr/bin/python3.9 "$@"
"""


def test_a_clock_that_is_two_years_behind_and_cannot_be_set(
    base: Path, machines: Machines, adopt: Operator
) -> None:
    """A host of a test shares this machine's clock, and may not set it. It is wrong for its Python alone,
    which looks at it; that it is set where that can be done is a unit test's."""
    master, late = hosts = machines(10, 11)
    installed(late, base.parent, ["libfaketime"])
    late.run("rm /usr/bin/python3; echo '#!/bin/sh\necho no' > /usr/bin/timedatectl")
    late.path("usr/bin/python3").write_text(FAKED)
    late.run("chmod +x /usr/bin/python3")
    before = shape(late)
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 1, done.err
    found = outcomes(done)
    assert found[master.address]["ready"] is True
    assert found[late.address]["error"] == "its clock is wrong, and cannot be set: Operation not permitted"
    told = [one["message"] for one in found[late.address]["problems"]]
    assert told == ["its clock is 730 days behind this machine's"]
    assert shape(late) == before, "nothing is changed in a wrong time"

    late.run("ln -sf python3.9 /usr/bin/python3")
    healed = adopt(*logins(*hosts), "--json")
    assert healed.code == 0, healed.err + healed.out
    assert outcomes(healed)[late.address]["ready"] is True
    assert outcomes(healed)[master.address]["changes"] == []
    assert all(one["problems"] == [] for one in outcomes(healed).values())


def test_a_worker_whose_master_cannot_be_had_waits_for_it_by_itself(
    machines: Machines, adopt: Operator
) -> None:
    master, worker = hosts = machines(10, 11)
    master.run("systemctl stop ssh")
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 1
    assert outcomes(done)[worker.address]["error"] == "it waits for its master, which failed"
    master.run("systemctl start ssh")
    assert adopt(*logins(master)).code == 0
    worker.until("joined")


def test_hosts_that_say_nothing_or_have_no_room_for_a_master(machines: Machines, adopt: Operator) -> None:
    master, silent, taken = machines(10, 11, 12)
    listen = 'import socket, time; s = socket.create_server(("", 22)); time.sleep(600)'
    silent.run(f"systemctl stop ssh; systemd-run python3 -c '{listen}'")
    taken.run("systemd-run python3 -m http.server 6443")
    until([silent], answers)
    wait(lambda: ":6443" in taken.run("ss -tln"), 20, lambda: "nobody listens")
    masters = ["--master", f"pi@{taken.address}"]
    done = adopt(*logins(master, silent), *masters, "--json")
    assert done.code == 1, done.err
    found = outcomes(done)
    assert found[master.address]["phase"] == "joined"
    assert found[silent.address]["error"] == "SSH does not answer"
    assert found[taken.address]["error"] == "port 6443 is taken"


def test_a_host_that_loses_power_in_the_middle(
    machines: Machines, start: Start, adopt: Operator, adopting: list[str]
) -> None:
    master, worker = hosts = machines(10, 11)
    for at in range(4):
        with start(*adopting, *logins(*hosts), "--timeout", "15") as process:
            time.sleep(1.2 + at * 0.3)
            worker.stop()
            worker.start()
            _, said = process.communicate(timeout=120)
        assert "Traceback" not in said
        assert process.returncode in (0, 1), said
        until(hosts, answers)
    done = adopt(*logins(master, worker), "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())


def test_a_master_that_never_becomes_ready(machines: Machines, adopt: Operator) -> None:
    master, worker = hosts = machines(10, 11)
    text = "[Service]\nExecStartPre=/bin/sh -c 'echo broken on purpose; exit 1'\n"
    master.run("mkdir -p /etc/systemd/system/k3s.service.d")
    master.path("etc/systemd/system/k3s.service.d/broken.conf").write_text(text)
    done = adopt(*logins(*hosts), "--timeout", "12", "--json")
    assert done.code == 1
    found = outcomes(done)
    assert "not Ready after 12 s" in found[master.address]["error"]
    assert "broken on purpose" in found[master.address]["hint"]
    assert "not Ready after 12 s" in found[worker.address]["error"]
    master.run("rm /etc/systemd/system/k3s.service.d/broken.conf; systemctl daemon-reload")
    healed = adopt(*logins(*hosts), "--json")
    assert healed.code == 0, healed.err + healed.out


def test_a_k3s_that_waits_in_its_start_reads_what_has_changed(
    machines: Machines, adopt: Operator, tmp_path: Path
) -> None:
    """As one does for minutes whose datastore does not let it in."""
    (master,) = machines(10)
    waits = "grep -q SLOW /etc/systemd/system/k3s.service.env && sleep 1000; true"
    master.run("mkdir -p /etc/systemd/system/k3s.service.d")
    master.path("etc/systemd/system/k3s.service.d/slow.conf").write_text(
        f"[Service]\nExecStartPre=/bin/sh -c '{waits}'\n"
    )

    def file(variable: str) -> Path:
        node = f'[[node]]\nrole = "master"\nhost = "{master.address}"\nuser = "pi"\n'
        (tmp_path / "cluster.toml").write_text(f'[k3s.env]\n{variable} = "1"\n{node}')
        return tmp_path / "cluster.toml"

    assert adopt("--file", file("SLOW"), "--timeout", "8").code == 1
    assert master.run("systemctl is-active k3s", check=False) == "activating"
    healed = adopt("--file", file("FAST"), "--json")
    assert healed.code == 0, healed.err + healed.out


def test_whoever_kills_the_operator_at_any_moment_runs_it_again(
    machines: Machines, start: Start, adopt: Operator, adopting: list[str]
) -> None:
    hosts = machines(10, 11)
    for at in range(20):
        with start(*adopting, *logins(*hosts)) as process:
            try:
                process.communicate(timeout=0.8 + at * 0.15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        until(hosts, answers)
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    for host in hosts:
        assert host.run("ls /var/lib/k3s-bake/parts 2>/dev/null", check=False) == ""


def test_ctrl_c_says_how_far_each_is(machines: Machines, start: Start, adopting: list[str]) -> None:
    master, worker = machines(10, 11)
    master.run("mkdir -p /etc/systemd/system/k3s.service.d")
    late = master.path("etc/systemd/system/k3s.service.d/late.conf")
    late.write_text("[Service]\nExecStartPre=/bin/sleep 60\n")
    with start(*adopting, *logins(master, worker)) as process:
        wait(lambda: worker.state().get("phase") == "asking", 60, lambda: "nobody asks")
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert "interrupted: run it again to go on" in err
    assert "a node goes on with what it has begun" in err
    assert "Traceback" not in err
    assert "asking" in next(line for line in out.splitlines() if worker.address in line)


def test_a_fleet_of_which_a_third_fails(machines: Machines, adopt: Operator) -> None:
    master, *workers = machines(*range(10, 30))
    broken = workers[::3]
    for host in broken:
        host.run("systemctl stop ssh")
    done = adopt(*logins(master, *workers), "--json")
    assert done.code == 1
    found = outcomes(done)
    for host in workers:
        assert (found[host.address]["phase"] == "joined") is (host not in broken), found[host.address]
    ready = [row.split()[1] for row in master.run("k3s kubectl get nodes").splitlines()[1:]]
    assert ready == ["Ready"] * (20 - len(broken))


def test_ports_that_a_firewall_closes_between_nodes(machines: Machines, operator: Operator) -> None:
    """Told before anything is changed; the adoption opens the nodes' own firewalls, and stops at none."""
    master, one, two = machines(10, 11, 12)
    words = ("preflight", *logins(master, one, two), "--accept-new", "--json")
    well = operator(*words)
    assert well.code == 0, well.err
    assert not any(found["problems"] for found in outcomes(well).values())
    master.drop("tcp dport 6443")
    two.drop("udp dport 8472")
    found = outcomes(operator(*words))
    told = {
        host.address: [each["message"] for each in found[host.address]["problems"]]
        for host in (master, one, two)
    }
    assert told[master.address] == []
    assert told[one.address] == [f"it does not reach {master.address} at TCP 6443: no answer"]
    assert told[two.address] == [
        f"it does not reach {master.address} at TCP 6443: no answer",
        *(f"nothing of {host.address} arrives at UDP 8472" for host in (master, one)),
    ]
    assert not any(each["phase"] == "failed" for each in found.values())
