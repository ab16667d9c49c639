"""Strangers on the network: those who pose as a master, and those who call a master's join service."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from guest.conftest import Run
from rig.hosts import Host, wait
from rig.lan import Lan

from bake.trust import Cluster
from firstboot import avahi
from firstboot.contract import Announcement
from ssh.conftest import Images, Operator, Power

pytestmark = pytest.mark.ssh

ANSWERS = Path(__file__).parent.parent / "rig/stranger.py"
SSHD = """Port 6422
HostKey /etc/stranger_key
PidFile none
LogLevel DEBUG3
UsePAM no
AuthorizedKeysFile none
"""


def stranger(lan: Lan, image: Images, how: str) -> Host:
    """A host that announces itself as a master of the cluster 'home', and answers on its port in some way."""
    host = Host(lan, 20, lan.root(image("worker")))
    host.link("etc/systemd/system/k3s-bake.service", "/dev/null")
    said = Announcement("home", "master", "home-first", "joined", addr=host.address, serial="99", since=1)
    host.put("etc/avahi/services/k3s-bake.service", avahi.service(said).decode())
    host.put("usr/local/bin/stranger.py", ANSWERS.read_text())
    command = f"/usr/bin/python3 /usr/local/bin/stranger.py {how}"
    if how == "sshd":
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host.upper / "etc/stranger_key"], check=True
        )
        host.put("etc/stranger_config", SSHD)
        command = "/bin/sh -c 'mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f /etc/stranger_config'"
    host.put("etc/systemd/system/stranger.service", f"[Service]\nExecStart={command}\n")
    host.link("etc/systemd/system/multi-user.target.wants/stranger.service", "../stranger.service")
    return host.start()


@contextmanager
def there(host: Host) -> Iterator[Host]:
    wait(lambda: ":6422" in host.run("ss -tln"), 30, lambda: "no stranger")
    try:
        yield host
    finally:
        host.stop()


def test_one_with_keys_of_its_own_gets_nothing(lan: Lan, image: Images, power: Power) -> None:
    with there(stranger(lan, image, "sshd")) as rogue:
        worker = power(11, "worker")
        # Who of the two ends the connection first decides what ssh has to say.
        reasons = ("(untrusted-master)", "(unreachable)")
        wait(lambda: any(line.endswith(reasons) for line in worker.said()), 60, lambda: str(worker.said()))
        log = rogue.run("journalctl -u stranger -o cat --no-pager")
        assert "Connection from 10.9.0.11" in log
        assert "userauth" not in log.lower(), "the worker went on after it saw the key"
        power(10, "master")
        assert "https://10.9.0.10:6443" in worker.until("joined")


def test_one_with_a_certificate_of_another_cluster_gets_nothing(
    lan: Lan, image: Images, power: Power, cli: Run
) -> None:
    """Its cluster has the same name, but another authority."""
    other = power(20, "master", cluster="away")
    other.until("joined")
    config = json.loads(other.text("/etc/k3s-bake/agent.json"))
    other.path("/etc/k3s-bake/agent.json").write_text(json.dumps({**config, "cluster": "home"}))
    other.run("systemctl restart k3s-bake")
    other.until("joined")
    worker = power(11, "worker")
    worker.until("asking", "untrusted-master")
    assert "hand-out" not in other.run("journalctl -u k3s-bake-helper -o cat --no-pager")
    power(10, "master")
    assert "https://10.9.0.10:6443" in worker.until("joined")


def test_one_that_relays_gets_nothing_either(lan: Lan, image: Images, power: Power) -> None:
    """What it passes on is enciphered, and the answer names the true master."""
    with there(stranger(lan, image, "relay:10.9.0.10")) as rogue:
        master, worker = power(10, "master"), power(11, "worker")
        assert "https://10.9.0.10:6443" in worker.until("joined")
        token = worker.text("/etc/rancher/k3s/token").strip().rpartition("::")[2]
        passed = rogue.path("/tmp/passed").read_bytes() if rogue.path("/tmp/passed").exists() else b""
        assert b"SSH-2.0" in passed, "nobody came by"
        assert token.encode() not in passed
        assert master.address in worker.text("/etc/rancher/k3s/config.yaml")


@pytest.mark.parametrize("how", ["silent", "garbage", "endless"])
def test_a_server_that_is_none(lan: Lan, image: Images, power: Power, how: str) -> None:
    """It never answers, says what is no SSH, or does so without an end (a gigabyte). Nobody waits for it."""
    with there(stranger(lan, image, how)):
        worker = power(11, "worker")
        worker.until("asking", "unreachable")
        power(10, "master")
        worker.until("joined")
        agent = worker.run("systemctl show -p MainPID --value k3s-bake")
        used = int(worker.run(f"grep VmRSS /proc/{agent}/status").split()[1])
        assert used < 40 << 10


def ssh(lan: Lan, cluster: Cluster, *words: str, stdin: bytes = b"", golden: str = "") -> tuple[int, str]:
    """A holder of a certificate who wants something else: exit code, and all that was said."""
    trust = cluster.operator()
    key = str(cluster.folder / f"golden-{golden}/key") if golden else trust.key
    options = [
        *("-F", "/dev/null", "-p", "6422", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={trust.known_hosts}", "-o", "HostKeyAlias=k3s-bake-home"),
        *("-o", f"IdentityFile={key}", "-o", f"CertificateFile={key}-cert.pub"),
        *("-o", "ExitOnForwardFailure=yes"),
    ]
    command = lan.inside("ssh", *options, *words)
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def test_a_master_does_nothing_but_its_own_verbs(lan: Lan, power: Power, home: Cluster) -> None:
    power(10, "master").until("joined")
    at = "k3s-join@10.9.0.10"
    for words in (["id"], ["sh", "-c", "id"], [], ["hand-out;id"], ["hand-out", "x"], ["scp", "-t", "/"]):
        code, said = ssh(lan, home, at, *words)
        assert '{"error": "not-allowed"}' in said, (words, said)
        assert "uid=" not in said
        assert code == 0
    assert (
        "not-allowed" in ssh(lan, home, "-s", at, "sftp")[1]
        or "subsystem request failed" in ssh(lan, home, "-s", at, "sftp")[1]
    )
    code, said = ssh(lan, home, "-N", "-R", "7000:127.0.0.1:22", at)
    assert code == 255, said
    code, said = ssh(lan, home, "-W", "127.0.0.1:6443", at)
    assert code != 0, said
    code, said = ssh(lan, home, "root@10.9.0.10", "status")
    assert (code, "Permission denied" in said) == (255, True), said


def test_what_a_master_is_asked_is_checked(lan: Lan, power: Power, home: Cluster) -> None:
    master = power(10, "master")
    master.until("joined")
    at = "k3s-join@10.9.0.10"
    garbled = [b"\xff\xfe", b"[]", b"null", b"{" * 100_000, b"[" * 60_000, b"x" * 200_000, b'{"name": {}}']
    for stdin in garbled:
        said = ssh(lan, home, at, "hand-out", stdin=stdin, golden="worker")[1]
        assert '{"error": "bad-answer"}' in said, (stdin[:20], said)
    me = {"name": "w1", "serial": "1", "role": "worker"}
    bad = [{"name": "../w1"}, {"name": "w1\n"}, {"serial": ""}, {"role": "king"}, {"serial": "x" * 65}]
    for wrong in bad:
        asked = json.dumps({**me, **wrong}).encode()
        assert "bad-answer" in ssh(lan, home, at, "hand-out", stdin=asked, golden="worker")[1]
    asked = json.dumps({**me, "role": "master"}).encode()
    assert "not-allowed" in ssh(lan, home, at, "hand-out", stdin=asked, golden="worker")[1]
    for verb in ("kubeconfig", "revoke", "release"):
        assert "not-allowed" in ssh(lan, home, at, verb, stdin=b"{}", golden="worker")[1]
    assert "not-allowed" in ssh(lan, home, at, "hand-out", stdin=b"{}")[1]  # an operator is no node
    assert master.text("/var/lib/k3s-bake/nodes.json") in ("", "{}\n")


def test_two_hundred_who_hold_the_line_keep_nobody_out(lan: Lan, power: Power) -> None:
    power(10, "master").until("joined")
    command = lan.inside(sys.executable, ANSWERS, "hold:10.9.0.10:200")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holders:
        assert holders.stdout
        assert holders.stdout.readline() == b"held\n"
        power(11, "worker").until("joined", seconds=180)
        assert holders.poll() is None
        holders.kill()


def test_what_an_operator_does(power: Power, operator: Operator, tmp_path: Path) -> None:
    """Against a real master."""
    power(10, "master").until("joined")
    power(11, "worker", "--name", "w1").until("joined")

    def heard() -> dict[str, tuple[str, str]]:
        listed = operator("nodes", "--json")
        return {node["name"]: (node["phase"], node["addr"]) for node in json.loads(listed.out or "[]")}

    expected = {"home-master": ("joined", "10.9.0.10"), "w1": ("joined", "10.9.0.11")}
    wait(lambda: heard() == expected, 60, lambda: str(heard()))
    taken = operator("kubeconfig", "--cluster", "home", "--output", tmp_path / "kube.yaml")
    assert taken.code == 0, taken.err
    assert "https://10.9.0.10:6443" in (tmp_path / "kube.yaml").read_text()
    assert (tmp_path / "kube.yaml").stat().st_mode & 0o77 == 0
