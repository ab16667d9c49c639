"""A large file that goes from the operator to one node, and from there to the others."""

import os
from pathlib import Path

import pytest
from guest.conftest import Done
from rig.hosts import Host

from ssh.adopting import executions, logins, outcomes
from ssh.conftest import Machines, Operator

pytestmark = pytest.mark.ssh

IMAGES = os.urandom(3_000_000)
"""In the place of container images: the stand-in imports none."""
PLACE = "var/lib/rancher/k3s/agent/images/images.tar"


@pytest.fixture
def share(adopt: Operator, tmp_path: Path) -> Operator:
    images = tmp_path / "images.tar"
    images.write_bytes(IMAGES)

    def share(*arguments: object) -> Done:
        return adopt("--airgap", images, "--fetch", "peer", "--json", *arguments)

    return share


def ways(log: str, host: Host) -> list[str]:
    """How the images came, and may have been tried to."""
    lines = [line.partition(f"pi@{host.address}: ")[2] for line in log.splitlines()]
    return [line for line in lines if line.startswith(("sending (images", "fetching (images"))]


def test_it_is_sent_once(machines: Machines, share: Operator) -> None:
    """Also where those who have it have to restart, which they would long before they have handed it on."""
    hosts = machines(10, 11, 12, 13)
    for host in hosts:
        host.run(
            "tc qdisc add dev $(ls /sys/class/net | grep -v lo) root tbf rate 8mbit burst 32k latency 1s"
        )
    done = share(*logins(*hosts))
    assert done.code == 0, done.err + done.out
    assert all(one["ready"] for one in outcomes(done).values())
    assert done.err.count("rebooting") == len(hosts)
    came = [way for host in hosts for way in ways(done.err, host)]
    assert [way for way in came if way.startswith("sending")] == ["sending (images.tar)"], came
    assert len(came) == len(hosts)
    for host in hosts:
        assert host.path(PLACE).read_bytes() == IMAGES
        assert host.run("ls /var/lib/k3s-bake/parts", check=False) == ""
        assert executions(host) == 2


def test_where_a_firewall_is_between_them_it_is_sent_to_each(machines: Machines, share: Operator) -> None:
    hosts = machines(10, 11, 12, 13)
    for host in hosts:
        host.run("iptables -A INPUT -p tcp -m tcp --dport 32768:60999 --syn -j DROP")
    done = share("--no-reboot", *logins(*hosts))
    assert "not reach" not in done.out
    for host in hosts:
        assert ways(done.err, host)[-1] == "sending (images.tar)"
        assert host.path(PLACE).read_bytes() == IMAGES
    assert 1 <= done.err.count("fetching (images") <= 3, "soon it is not tried any more"
    again = share("--no-reboot", *logins(*hosts))
    assert all(one["changes"] == [] for one in outcomes(again).values()), again.out
