"""An address that one card was given when flashed. On running hosts dhcpcd and networkd set it."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from rig.hosts import Host, wait
from rig.lan import NETWORK, OWN, Lan

from bake.trust import Cluster
from firstboot.addresses import StaticAddress
from firstboot.contract import CREDENTIAL_BYTES, WORKER, Credential, NodeConfig
from firstboot.network import with_blocks
from ssh.conftest import Power

pytestmark = pytest.mark.ssh

RASPBIANS = "hostname\nclientid\npersistent\noption domain_name_servers, domain_name\noption routers\n"
"""Of its dhcpcd.conf what matters here: the router is asked for, and what was set stays when dhcpcd ends."""

BAKED = StaticAddress(f"{NETWORK}.11/24", f"{NETWORK}.1", (), "host0")

_SERVE = f"""
import socket
from ipaddress import IPv4Address
from bake.emulator import dhcp
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.bind(("br0", 0))
print("up", flush=True)
while True:
    frame = link.recv(2048)
    answer = dhcp.asks(frame) and dhcp.reply(frame, dhcp.Lan(), IPv4Address("{NETWORK}.11"))
    if answer:
        link.send(answer)
"""


@pytest.fixture
def dhcp(lan: Lan) -> Iterator[None]:
    """A router that gives the address 11 to whoever asks."""
    command = lan.inside(sys.executable, "-c", _SERVE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "up\n"
        yield
        server.kill()


def wait_for_address(host: Host, number: int) -> None:
    """For it, and for no other beside it."""

    def found() -> list[str]:
        rows = host.run("ip -4 -oneline address show dev host0", check=False).splitlines()
        return [row.split()[3] for row in rows]

    wait(lambda: found() == [f"{NETWORK}.{number}/24"], 40, lambda: f"{host.name} has {found()}")


def put_dhcpcd(host: Host, baked: StaticAddress | None) -> None:
    host.put("etc/dhcpcd.conf", with_blocks(RASPBIANS, baked))


def put_networkd(host: Host) -> None:
    """In the place of dhcpcd, which the sample base has; its own settings ask DHCP."""
    config = NodeConfig("home", "worker", network_manager="systemd-networkd")
    host.put("etc/k3s-bake/agent.json", config.to_json())
    host.link("etc/systemd/system/dhcpcd.service", "/dev/null")
    unit = "systemd-networkd.service"
    host.link(f"etc/systemd/system/multi-user.target.wants/{unit}", f"/lib/systemd/system/{unit}")


@pytest.mark.usefixtures("dhcp")
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda host: put_dhcpcd(host, None), id="dhcpcd"),
        pytest.param(lambda host: put_dhcpcd(host, BAKED), id="dhcpcd, static"),
        pytest.param(put_networkd, id="systemd-networkd"),
    ],
)
def test_a_card_with_an_address_of_its_own(
    power: Power, home: Cluster, prepare: Callable[[Host], None]
) -> None:
    """It takes the place of the router's or the image's, while the host runs and after it was off."""
    power(10, "master")
    worker = power(11, "worker", start=False)
    worker.put("etc/network/interfaces", "auto lo\niface lo inet loopback\n")
    prepare(worker)
    worker.put("boot/k3s-bake/credential", " " * CREDENTIAL_BYTES)
    worker.start().until("blocked", "no-credential")
    wait_for_address(worker, 11)
    own = home.card("w1", WORKER)
    address = (f"{NETWORK}.50/24", OWN, (), "host0")
    brought = Credential("w1", own.key, own.certificate, "", "", *address)
    worker.path("boot/k3s-bake/credential").write_bytes(brought.to_bytes())
    worker.until("joined")
    for _ in range(2):
        wait_for_address(worker, 50)
        routes = worker.run("ip -4 route show default").splitlines()
        assert [route.split()[2] for route in routes] == [OWN]
        assert not worker.text("boot/k3s-bake/credential")
        worker.stop()
        worker.start().until("joined")
