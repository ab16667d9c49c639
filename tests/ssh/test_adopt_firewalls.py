"""Machines with a firewall of their own become nodes: the ports are open to others, and nothing else is."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from rig.hosts import Host
from rig.lan import Lan
from rig.packages import fetched, installed

from ssh.adopting import logins, outcomes, shape
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh

NFT = ["libjansson4", "libedit2", "libnftables1", "nftables"]
UFW = ["ufw"]
PERSISTENT = ["netfilter-persistent", "iptables-persistent"]

NFTABLES = """#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		iif lo accept
		ct state established,related accept
		tcp dport 22 accept
	}
}
"""
RULES = """*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
"""
CALLS = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), 0.7).close()
        print("open")
    except ConnectionRefusedError:
        print("open")
    except OSError:
        print("closed")
"""
"""Who is refused has come through: nobody listens there, but no firewall has swallowed it."""
KNOCKS = """
import socket, sys, time
while True:
    for address in sys.argv[1:]:
        try:
            with socket.create_connection((address, 22), 3) as one:
                one.settimeout(10)
                assert one.recv(4) == b"SSH-"
        except Exception as error:
            print(address, repr(error), flush=True)
    time.sleep(0.1)
"""


def with_nftables(host: Host, cache: Path) -> None:
    installed(host, cache, NFT)
    host.path("etc/nftables.conf").write_text(NFTABLES)
    host.run("systemctl enable --now nftables")


def with_ufw(host: Host, cache: Path) -> None:
    installed(host, cache, UFW)
    host.run("ufw allow 22/tcp; ufw --force enable; cp -a /etc/ufw /root/")


def with_persistent(host: Host, cache: Path) -> None:
    installed(host, cache, PERSISTENT)
    rules(host)


def rules(host: Host) -> None:
    for version in (4, 6):
        host.path(f"etc/iptables/rules.v{version}").write_text(RULES)
    host.run("netfilter-persistent start")


def calls(host: Host, other: Host, *ports: int) -> list[str]:
    """Whether TCP gets through, by port."""
    command = host.command("python3", "-c", CALLS, other.address, *map(str, ports))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def knocking(lan: Lan, hosts: list[Host]) -> Iterator[Callable[[], str]]:
    """At the door of SSH all the time; what is called then tells of each that was not opened, and ends it."""
    command = lan.inside("python3", "-c", KNOCKS, *(host.address for host in hosts))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:

        def told() -> str:
            os.killpg(process.pid, signal.SIGKILL)  # nsenter, and Python below it
            return process.communicate(timeout=120)[0]

        try:
            yield told
        finally:
            if process.poll() is None:
                told()


def check_that_ports_are_open(master: Host, *workers: Host) -> None:
    for worker in workers:
        assert calls(master, worker, 10250, 9999) == ["open", "closed"]


FIREWALLS = (with_nftables, with_ufw, with_persistent)


def test_ports_are_open_behind_each_kind_of_firewall_and_ssh_never_shuts(
    lan: Lan, base: Path, machines: Machines, adopt: Operator, operator: Operator
) -> None:
    """Rules of iptables take a restart at first: what its other variant has loaded stays, and drops."""
    master, ufw, persistent = hosts = machines(10, 11, 12)
    fetched(master, base.parent, [*NFT, *UFW, *PERSISTENT])
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda make, host: make(host, base.parent), FIREWALLS, hosts))
    words = "cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory"
    for host in hosts:
        host.run(f"sed -i 's/$/ {words}/' /boot/cmdline.txt")
    before = [shape(host) for host in hosts]
    assert calls(ufw, master, 22, 6443, 9999) == ["open", "closed", "closed"]

    with knocking(lan, [master]) as told:
        done = adopt(*logins(*hosts), "--json")
        assert done.code == 0, done.err + done.out
        assert told() == ""
    for address, one in outcomes(done).items():
        assert (one["ready"], one["failed_commands"]) == (True, [])
        restarted = "rebooting" in [step["phase"] for step in one["timeline"]]
        assert restarted is (address != master.address)
    assert calls(ufw, master, 6443, 6422, 10250, 9999) == ["open", "open", "open", "closed"]
    check_that_ports_are_open(master, ufw, persistent)

    ufw.run("cp -a /root/ufw/* /etc/ufw/; ufw reload")
    rules(persistent)
    assert calls(master, ufw, 10250) == calls(master, persistent, 10250) == ["closed"]
    with knocking(lan, hosts) as told:
        healed = adopt(*logins(*hosts), "--json")
        assert told() == ""
    assert healed.code == 0, healed.err + healed.out
    opened = (
        [],
        ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"],
        ["/etc/iptables/rules.v4", "/etc/iptables/rules.v6"],
    )
    for one, files in zip(outcomes(healed).values(), opened, strict=True):
        assert [change["edit"]["path"] for change in one["changes"]] == files
        assert (one["pending"], one["failed_commands"], one["problems"]) == ([], [], [])
    check_that_ports_are_open(master, ufw, persistent)

    undone = operator("undo", "--yes", *(f"pi@{host.address}" for host in hosts))
    assert undone.code == 0, undone.err + undone.out
    assert [shape(host) for host in hosts] == before
