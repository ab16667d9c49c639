"""What goes wrong when cards are powered on, with the agent and the join service as they are baked. What the
status file says then, and that it heals without hands where it can."""

import os
import random
import time
from pathlib import Path

import pytest
from guest.conftest import ROOT
from rig.hosts import Host, wait

from bake import ssh_keygen
from bake.ssh_keygen import Wish
from bake.trust import Cluster
from firstboot.contract import WORKER, Credential
from ssh.conftest import Operator, Power

pytestmark = pytest.mark.ssh

K3S_LATE = "[Service]\nExecStartPre=/bin/sleep 25\n"
"""Longer than a master lets a worker wait for it."""


def nodes(master: Host) -> set[str]:
    """Those that are Ready."""
    rows = master.run("k3s kubectl get nodes").splitlines()[1:]
    return {row.split()[0] for row in rows if row.split()[1] == "Ready"}


def test_a_worker_waits_for_its_master_and_then_joins(power: Power) -> None:
    """For an hour of waiting see the tests of join.py: it is the same steps again and again."""
    worker = power(11, "worker")
    status = worker.until("searching", "no-master")
    assert "No master of this cluster is heard: is it on, and in the same network?" in status
    time.sleep(12)
    power(10, "master")
    assert "https://10.9.0.10:6443" in worker.until("joined")


def test_a_master_that_starts_anew_while_workers_ask(power: Power) -> None:
    master = power(10, "master")
    master.stop()
    master.put("etc/systemd/system/k3s.service.d/late.conf", K3S_LATE)
    master.start()
    workers = [power(number, "worker") for number in (11, 12)]
    for worker in workers:
        assert "The master's K3s is not up yet." in worker.until("asking", "not-ready")
    master.stop()
    time.sleep(6)
    master.start()
    for worker in workers:
        worker.until("joined")


def test_an_old_k3s_without_tokens_of_its_own_making(power: Power, tmp_path: Path) -> None:
    """v1.21: no ``token create``, and agents that do not notify systemd."""
    if os.environ.get("K3S_BAKE_TEST_K3S_AMD64"):
        pytest.skip("a real K3s is of one version; K3S_BAKE_TEST_K3S_VERSION names it to all tests")
    old = "v1.21.2+k3s1"
    program = tmp_path / "k3s"
    program.write_text((ROOT / "tests/fakes/k3s").read_text().replace("v1.34.9+k3s1", old))
    program.chmod(0o755)
    options = ("--k3s", str(program), "--k3s-version", old)
    master, worker = power(10, "master", *options), power(11, "worker", *options)
    worker.until("joined")
    assert nodes(master) == {"home-master", "home-00000b"}
    token = worker.text("etc/rancher/k3s/token").strip()
    assert token.endswith("::node:" + master.text("etc/rancher/k3s/agent-token").strip())
    assert master.text("etc/rancher/k3s/agent-token").strip() not in master.text(
        "var/lib/rancher/k3s/server/token"
    )


def test_a_further_master_joins_and_starts_no_cluster_of_its_own(power: Power) -> None:
    second = power(20, "master", "--join", "--datastore", "etcd")
    second.until("searching", "no-master")
    first = power(10, "master", "--datastore", "etcd")
    worker = power(11, "worker")
    for host in (second, worker):
        host.until("joined", seconds=120)
    assert nodes(first) == {"home-master", "home-000014", "home-00000b"}
    assert "::server:" in second.text("etc/rancher/k3s/token")
    assert "::server:" not in worker.text("etc/rancher/k3s/token")


def test_a_link_that_loses_most_packets(power: Power) -> None:
    """Of all that comes in at the workers."""
    power(10, "master")
    workers = [power(number, "worker") for number in (11, 12)]
    for worker in workers:
        worker.lose(60)
    for worker in workers:
        worker.until("joined", seconds=300)


def test_power_cuts_at_any_moment(power: Power) -> None:
    """Fifty of them; for one at each single write see the tests of the agent."""
    master = power(10, "master")
    workers = [power(number, "worker") for number in range(11, 16)]
    master.until("joined")
    dice = random.Random(6422)
    for _ in range(10):
        cuts = sorted((dice.uniform(0.3, 4.0), number) for number in range(len(workers)))
        started = time.monotonic()
        for moment, number in cuts:
            time.sleep(max(0.0, started + moment - time.monotonic()))
            workers[number].stop()
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.until("joined", seconds=180)
    assert nodes(master) == {"home-master", *(f"home-00000{number:x}" for number in range(11, 16))}


def test_two_clusters_on_one_network(power: Power) -> None:
    hosts = {
        (cluster, role): power(number, role, cluster=cluster)
        for number, (cluster, role) in enumerate(
            [("away", "worker"), ("home", "worker"), ("away", "master"), ("home", "master")], 10
        )
    }
    for cluster in ("home", "away"):
        status = hosts[cluster, "worker"].until("joined")
        assert hosts[cluster, "master"].address in status
        names = nodes(hosts[cluster, "master"])
        assert [name.split("-")[0] for name in names] == [cluster, cluster]


def test_two_masters_that_are_two_clusters_of_one_name(power: Power) -> None:
    """The second starts later: two avahis that begin with one name at once rename themselves in step."""
    first = power(10, "master")
    first.until("joined")
    second = power(20, "master")
    second.until("joined")
    worker = power(11, "worker")
    assert "are two clusters: turn one off" in worker.until("blocked", "two-clusters")
    second.stop()
    assert first.address in worker.until("joined", seconds=120)


def test_a_copied_card_in_a_second_board(power: Power, operator: Operator) -> None:
    power(10, "master").until("joined")
    first = power(11, "worker", "--name", "w1")
    first.until("joined")
    second = power(12, "worker", "--name", "w1")
    status = second.until("blocked", "name-taken")
    assert "Another board has joined under this name: k3s-bake release NAME admits this one." in status
    refused = operator("release", "w1", "--cluster", "home")
    assert refused.code == 1, refused.err  # somebody is Ready under it
    first.stop()
    wait(lambda: operator("release", "w1", "--cluster", "home").code == 0, 60, lambda: "not released")
    second.until("joined", seconds=120)


def test_a_card_that_was_flashed_again(power: Power) -> None:
    master = power(10, "master")
    first = power(11, "worker", "--name", "w1")
    first.until("joined")
    first.stop()
    again = power(12, "worker", "--name", "w1", serial=f"10000000{11:08x}")
    status = again.until("starting", "password-rejected")
    assert "it is asked to take the node back" in status
    again.until("joined", seconds=180)
    assert nodes(master) == {"home-master", "w1"}


def test_a_master_that_moves(power: Power) -> None:
    master, worker = power(10, "master"), power(11, "worker")
    worker.until("joined")
    master.stop()
    worker.until("joined", "master-lost")
    master.move(30)
    master.start()
    assert "https://10.9.0.30:6443" in worker.until("joined", seconds=180)


def test_a_revoked_credential(power: Power, operator: Operator) -> None:
    """Who is in stays in until it is released; with that credential nobody comes in any more."""
    power(10, "master", cluster="attic").until("joined")
    power(11, "worker", cluster="attic").until("joined")
    done = operator("revoke", "golden/worker", "--cluster", "attic")
    assert done.code == 0, done.err
    status = power(12, "worker", cluster="attic").until("blocked", "credential-refused")
    assert "The master refuses this card's certificate: it is revoked or expired." in status


def test_an_expired_credential(power: Power, operator: Operator, home: Cluster, tmp_path: Path) -> None:
    power(10, "master").until("joined")
    key = tmp_path / "key"
    ssh_keygen.make_key(key)
    wish = Wish("w1", WORKER, "20200101:20210101")
    certificate = ssh_keygen.sign(home.folder / "authority", key, wish, 7)
    worker = power(11, "worker", start=False)
    brought = Credential("w1", key.read_text(), certificate.read_text())
    worker.put("boot/k3s-bake/credential", brought.to_bytes().decode())
    worker.start().until("blocked", "credential-refused")


def test_a_cards_own_credential_is_revoked(power: Power, operator: Operator, home: Cluster) -> None:
    power(10, "master").until("joined")
    own = home.card("w1", WORKER)
    workers = []
    for number in (11, 12):
        worker = power(number, "worker", start=False)
        brought = Credential("w1", own.key, own.certificate)
        worker.put("boot/k3s-bake/credential", brought.to_bytes().decode())
        workers.append(worker)
    workers[0].start().until("joined")
    done = operator("revoke", "w1", "--cluster", "home")
    assert done.code == 0, done.err
    workers[1].start().until("blocked", "credential-refused")
    power(13, "worker").until("joined")
