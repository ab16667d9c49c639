"""Who is in the network, of what was heard, asked and known."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot.contract import Announcement
from firstboot.errors import UserError
from k3s_bake.discover import addresses, banner, macs, neighbours

pytestmark = pytest.mark.unit

ARP = """IP address       HW type     Flags       HW address            Mask     Device
10.0.0.5         0x1         0x2         dc:a6:32:01:02:03     *        eth0
10.0.0.9         0x1         0x2         B8:27:EB:01:02:03     *        eth0
10.0.0.1         0x1         0x2         11:22:33:44:55:66     *        eth0
10.0.0.7         0x1         0x0         00:00:00:00:00:00     *        eth0
"""
W1 = Announcement("home", "worker", "w1", "joined", addr="10.0.0.20")


def test_every_address_but_our_own() -> None:
    network = ipaddress.IPv4Network("10.0.0.0/29")
    assert addresses([network, network], ["10.0.0.2"]) == [f"10.0.0.{at}" for at in (1, 3, 4, 5, 6)]
    with pytest.raises(UserError, match="10.0.0.0/16 has too many addresses"):
        addresses([ipaddress.IPv4Network("10.0.0.0/16")], [])


def test_ours_first_then_pis() -> None:
    ssh = {"10.0.0.1": "dropbear", "10.0.0.5": "OpenSSH_7.9p1 Raspbian"}
    found = neighbours(ssh, {"10.0.0.5": "raspberrypi.local"}, macs(ARP), [W1])
    assert [one.address for one in found] == ["10.0.0.20", "10.0.0.5", "10.0.0.9", "10.0.0.1"]
    assert [one.is_pi for one in found] == [False, True, True, False]
    assert found[0].node is W1
    assert (found[1].name, found[1].ssh) == ("raspberrypi.local", "OpenSSH_7.9p1 Raspbian")
    assert found[2].ssh == ""  # it is there, and SSH is off


@given(st.text())
def test_any_table_of_the_kernel_s(text: str) -> None:
    macs(text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"SSH-2.0-OpenSSH_8.4p1 Debian-5\r\n", "OpenSSH_8.4p1 Debian-5"),
        (b"SSH-2.0-x\x1b[31m\r\n", "x"),
        (b"220 ftp\r\n", ""),
        (b"", ""),
        (b"SSH-2.0-" + b"x" * 500, "x" * 80),
    ],
)
def test_what_a_server_calls_itself(line: bytes, said: str) -> None:
    assert banner(line) == said
