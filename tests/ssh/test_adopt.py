"""Machines that run become nodes, by one command, over a real sshd and sudo."""

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from guest.conftest import ROOT, Done
from rig.hosts import Host, wait
from rig.lan import Lan
from rig.running import Person, answers, machine, until
from rig.secrets import Watch

from ssh.conftest import Images, Operator, Power

pytestmark = pytest.mark.ssh

Machines = Callable[..., list[Host]]
Adopt = Callable[..., Done]


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "person")


@pytest.fixture
def machines(lan: Lan, base: Path, person: Person) -> Iterator[Machines]:
    """Of these numbers, on. At the end no secret of any was seen anywhere."""
    hosts: list[Host] = []
    with Watch(lan) as watch:

        def on(*numbers: int) -> list[Host]:
            made = [machine(lan, base, number, person).start() for number in numbers]
            hosts.extend(made)
            until(made, answers)
            return made

        yield on
        watch.check(hosts)
    for host in hosts:
        host.stop()


@pytest.fixture
def run(lan: Lan, environment: dict[str, str], person: Person) -> Operator:
    """k3s-bake, as the person."""

    def run(*arguments: object) -> Done:
        command = lan.inside(Path(sys.executable).with_name("k3s-bake"), *map(str, arguments))
        done = subprocess.run(
            command,
            env={**environment, "HOME": str(person.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def adopt(run: Operator, k3s: list[str], image: Images) -> Adopt:
    image("worker")  # fetches what the agent is made of: machines on the network of a test reach no other

    def adopt(*arguments: object) -> Done:
        return run("adopt", "--cluster", "home", *arguments, *k3s, "--airgap", "none", "--accept-new")

    return adopt


def logins(master: Host, *workers: Host) -> list[str]:
    words = ["--master", f"pi@{master.address}"]
    return words + [word for host in workers for word in ("--worker", f"pi@{host.address}")]


def outcomes(done: Done) -> dict[str, dict[str, Any]]:
    """By address."""
    return {one["login"].rpartition("@")[2]: one for one in json.loads(done.out)}


def executions(host: Host) -> int:
    """Of Python by sudo, since it is there."""
    return host.run("journalctl -t sudo --no-pager").count("COMMAND=/usr/bin/python3")


def shape(host: Host) -> str:
    """All that an adoption may touch, but for clocks and logs."""
    places = "etc boot usr/local/bin usr/lib/k3s-bake home var/lib/rancher var/lib/k3s-bake"
    script = (
        f"cd /; find {places} -xdev \\( -type f -o -type l \\) ! -name fake-hwclock.data 2>/dev/null |"
        "sort |"
        'while read -r path; do stat -c \'%A %u %g %N\' "$path"; [ -L "$path" ] || md5sum "$path"; done'
    )
    return host.run(script)


def test_a_master_and_two_workers(machines: Machines, adopt: Adopt, run: Operator) -> None:
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

    undone = run("undo", *(f"pi@{host.address}" for host in hosts))
    assert undone.code == 0, undone.err + undone.out
    assert [shape(host) for host in hosts] == before
    for host in hosts:
        assert host.run("hostname") == "raspberrypi"
        assert host.run("systemctl is-active k3s k3s-agent k3s-bake", check=False).split() == ["inactive"] * 3
    assert run("undo", f"pi@{master.address}").code == 2


def test_what_a_person_has_changed_since_is_not_overwritten(
    machines: Machines, adopt: Adopt, run: Operator
) -> None:
    master, worker = hosts = machines(10, 11)
    assert adopt(*logins(*hosts)).code == 0
    worker.run("echo hello >> /etc/systemd/system/k3s-agent.service")
    removed = run("remove", f"pi@{worker.address}", "--master", f"pi@{master.address}")
    assert removed.code == 0, removed.err + removed.out
    assert "home-00000b" not in master.run("k3s kubectl get nodes")
    undone = run("undo", f"pi@{worker.address}", "--json")
    assert undone.code == 0, undone.err
    assert json.loads(undone.out)[f"pi@{worker.address}"]["left"] == ["/etc/systemd/system/k3s-agent.service"]
    assert worker.text("etc/systemd/system/k3s-agent.service").endswith("hello\n")


def test_a_baked_node_has_nothing_to_do_and_a_blocked_one_is_healed(
    power: Power, image: Images, adopt: Adopt, person: Person
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


def test_each_fault_is_one_line_and_hinders_nobody_else(
    lan: Lan, base: Path, machines: Machines, adopt: Adopt, person: Person
) -> None:
    master, no_python, wants_password, changed_key, occupied, full, other = machines(*range(10, 17))
    stranger = machine(lan, base, 17, None).start()
    deaf = machine(lan, base, 18, person).start()
    until([stranger, deaf], answers)
    no_python.run("chmod a-x /usr/bin/python3*")
    wants_password.run("echo 'pi ALL=(ALL) ALL' > /etc/sudoers.d/010_pi-nopasswd; echo pi:secret | chpasswd")
    (person.ssh / "known_hosts").write_text(f"{changed_key.address} {person.public_key.read_text()}")
    occupied.run("systemd-run python3 -m http.server 10250")
    full.run("mkdir -p /var/lib/k3s-bake && mount -t tmpfs -o size=64k tmpfs /var/lib/k3s-bake")
    other.run("mkdir -p /var/lib/rancher/k3s/agent")
    deaf.run("systemctl stop ssh")
    wait(lambda: ":10250" in occupied.run("ss -tln"), 20, lambda: "nobody listens")
    workers = [no_python, wants_password, changed_key, occupied, full, other, stranger, deaf]
    nobody = f"{master.address.rpartition('.')[0]}.99"
    done = adopt(*logins(master, *workers), "--worker", f"pi@{nobody}", "--json")
    assert done.code == 1, done.err
    found = outcomes(done)
    assert (found[master.address]["phase"], found[master.address]["ready"]) == ("joined", True)
    errors = {
        no_python: "it has no python3",
        wants_password: "sudo wants a password of pi",
        changed_key: "its host key has changed",
        occupied: "port 10250 is taken",
        full: "No space left on device",
        other: "K3s of somebody else is installed there",
        stranger: "the login was refused",
        deaf: "the connection was refused",
    }
    for host, words in errors.items():
        one = found[host.address]
        assert words in one["error"], one
        assert one["phase"] == "failed"
        assert "\n" not in one["error"]
    assert "cannot be reached" in found[nobody]["error"]

    for host, remedy in {
        no_python: "chmod a+x /usr/bin/python3*",
        occupied: "pkill -f http.serve[r]",
        full: "umount /var/lib/k3s-bake",
        deaf: "systemctl start ssh",
    }.items():
        host.run(remedy)
    healed = adopt(*logins(master, no_python, occupied, full, deaf), "--json")
    assert healed.code == 0, healed.err + healed.out
    assert all(one["ready"] for one in outcomes(healed).values())
    for host in (stranger, deaf):
        host.stop()


def test_a_worker_whose_master_cannot_be_had_waits_for_it_by_itself(machines: Machines, adopt: Adopt) -> None:
    master, worker = hosts = machines(10, 11)
    master.run("systemctl stop ssh")
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 1
    assert outcomes(done)[worker.address]["error"] == "it waits for its master, which failed"
    master.run("systemctl start ssh")
    assert adopt(*logins(master)).code == 0
    worker.until("joined")


def test_hosts_that_say_nothing_or_have_no_room_for_a_master(machines: Machines, adopt: Adopt) -> None:
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
    machines: Machines, lan: Lan, environment: dict[str, str], person: Person, adopt: Adopt, k3s: list[str]
) -> None:
    master, worker = hosts = machines(10, 11)
    command = lan.inside(Path(sys.executable).with_name("k3s-bake"), "adopt", *logins(*hosts))
    command += ["--cluster", "home", *k3s, "--airgap", "none", "--accept-new", "--timeout", "15"]
    for at in range(4):
        with subprocess.Popen(
            command,
            env={**environment, "HOME": str(person.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            time.sleep(1.2 + at * 0.3)
            worker.stop()
            worker.start()
            said = process.communicate(timeout=120)[0]
            assert "Traceback" not in said
            assert process.returncode in (0, 1), said
        until(hosts, answers)
    done = adopt(*logins(master, worker), "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())


def test_a_master_that_never_becomes_ready(machines: Machines, adopt: Adopt) -> None:
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


def test_three_masters_are_one_cluster(machines: Machines, adopt: Adopt) -> None:
    first, second, third, worker = hosts = machines(10, 11, 12, 13)
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
    machines: Machines, adopt: Adopt
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


def test_passwords_are_typed_at_a_terminal(
    machines: Machines, lan: Lan, environment: dict[str, str], person: Person, image: Images, k3s: list[str]
) -> None:
    """The login's, and sudo's: asked for, not shown, and wrong ones told."""
    image("worker")
    (host,) = machines(10)
    host.run("echo 'pi ALL=(ALL) ALL' > /etc/sudoers.d/010_pi-nopasswd; echo pi:correct-horse | chpasswd")
    host.run("rm /home/pi/.ssh/authorized_keys")
    words = ("preflight", "--worker", f"pi@{host.address}", "--accept-new")
    typed = {"password: ": "correct-horse", "sudo password of pi": "battery-staple"}
    said = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert "the sudo password of pi is wrong" in said
    typed["sudo password of pi"] = "correct-horse"
    said = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert "fit" in said
    assert "correct-horse" not in said
    assert "correct-horse" not in host.run("journalctl --no-pager")


def at_a_terminal(lan: Lan, environment: dict[str, str], words: Sequence[str], typed: dict[str, str]) -> str:
    """What is shown there; each question is answered once."""
    command = lan.inside(Path(sys.executable).with_name("k3s-bake"), *words)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(shutil.which(command[0]) or command[0], command, {**os.environ, **environment})
    said, open_questions = "", dict(typed)
    with contextlib.suppress(OSError):  # its end
        while piece := os.read(terminal, 4096).decode(errors="replace"):
            said += piece
            for question, answer in list(open_questions.items()):
                if question in said and said.rstrip(" ").endswith(":"):
                    del open_questions[question]
                    os.write(terminal, f"{answer}\n".encode())
                    break
    os.waitpid(child, 0)
    os.close(terminal)
    return said


def test_a_rolling_upgrade_and_one_that_is_taken_back(
    machines: Machines, adopt: Adopt, run: Operator, tmp_path: Path
) -> None:
    if os.environ.get("K3S_BAKE_TEST_K3S_AMD64"):
        pytest.skip("there is one real K3s; this test needs a second one")
    master, *workers = hosts = machines(10, 11, 12)
    assert adopt(*logins(*hosts)).code == 0
    newer = tmp_path / "newer"
    newer.write_text((ROOT / "tests/fakes/k3s").read_text().replace("v1.34.9+k3s1", "v1.35.1+k3s1"))
    broken = tmp_path / "broken"
    text = newer.read_text().replace("v1.35.1+k3s1", "v1.36.0+k3s1")
    agent = "def run_agent():\n"
    assert agent in text
    broken.write_text(text.replace(agent, f"{agent}    raise Failure('broken on purpose')\n"))
    for path in (newer, broken):
        path.chmod(0o755)

    def upgrade(path: Path, version: str) -> Done:
        how = ("--k3s", path, "--k3s-version", version, "--airgap", "none", "--timeout", "20", "--json")
        return run("upgrade", "--cluster", "home", *logins(*hosts), *how)

    done = upgrade(newer, "v1.35.1+k3s1")
    assert done.code == 0, done.err + done.out
    assert master.run("k3s kubectl get nodes").count("v1.35.1+k3s1") == 3
    failed = upgrade(broken, "v1.36.0+k3s1")
    assert failed.code == 1, failed.out
    found = outcomes(failed)
    assert found[master.address]["error"] == ""
    for host in workers:
        assert "it has v1.35.1+k3s1 again" in found[host.address]["error"]
        assert host.run("ls /var/lib/k3s-bake/parts 2>/dev/null", check=False) == ""
    rows = master.run("k3s kubectl get nodes").splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["Ready"] * 3


def test_whoever_kills_the_operator_at_any_moment_runs_it_again(
    machines: Machines, lan: Lan, environment: dict[str, str], person: Person, adopt: Adopt, k3s: list[str]
) -> None:
    hosts = machines(10, 11)
    command = lan.inside(Path(sys.executable).with_name("k3s-bake"), "adopt", *logins(*hosts))
    command += ["--cluster", "home"]
    for at in range(20):
        process = subprocess.Popen(
            [*command, *k3s, "--airgap", "none", "--accept-new"],
            env={**environment, "HOME": str(person.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(0.8 + at * 0.15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        until(hosts, answers)
    done = adopt(*logins(*hosts), "--json")
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    for host in hosts:
        assert host.run("ls /var/lib/k3s-bake/parts 2>/dev/null", check=False) == ""


def test_a_fleet_of_which_a_third_fails(machines: Machines, adopt: Adopt) -> None:
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
