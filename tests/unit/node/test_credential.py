"""What a card brings along: its form on the FAT, and how the agent takes it, with the address of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firstboot import credential
from firstboot.contract import (
    CREDENTIAL,
    CREDENTIAL_BYTES,
    HOST_KEY,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    NETWORK_MANAGERS,
    Credential,
    NodeConfig,
)
from firstboot.errors import UserError
from firstboot.network import DHCPCD, with_blocks
from firstboot.node import Node

pytestmark = pytest.mark.unit

KEYS = ("join key\n", "join certificate\n", "host key\n", "host certificate\n")
BROUGHT = Credential("pi-7", *KEYS)
ADDRESSED = Credential("pi-7", *KEYS, "10.0.0.3/24", "10.0.0.1", ("10.0.0.1", "2001:db8::1"))
WIRELESS = Credential("pi-7", *KEYS, "10.0.0.3/24", "10.0.0.1", (), "wlan0")

PROFILE = "/etc/NetworkManager/system-connections/k3s-bake-{}.nmconnection"
UNIT = "/etc/systemd/network/10-k3s-bake-{}.network"
TOLD = {
    "dhcpcd": [
        ["systemctl", "stop", "dhcpcd"],
        ["ip", "-4", "address", "flush", "dev", "eth0", "scope", "global"],
        ["systemctl", "start", "dhcpcd"],
    ],
    "systemd-networkd": [["systemctl", "restart", "systemd-networkd"]],
    "NetworkManager": [
        ["nmcli", "connection", "reload"],
        ["nmcli", "--wait", "30", "connection", "up", "k3s-bake-eth0"],
    ],
}
FILES = {"dhcpcd": DHCPCD, "systemd-networkd": UNIT.format("eth0"), "NetworkManager": PROFILE.format("eth0")}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("name", "join_key", "host_key", "address", "gateway", "dns", "interface", "other")
GOOD = st.sampled_from(
    [
        "10.0.0.3/24",
        "10.0.0.1",
        ["10.0.0.1"],
        "wlan0",
        "10.0.0.3/24\n",
        "10.0.0.1\n",
        ["9.9.9.9\nx"],
        "eth0\n",
        1,
    ]
)


class Stopped(BaseException):
    """As by a signal: of the agent alone, the node goes on."""


class Card:
    """A node whose card has that credential, and what its programs were asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[list[str]] = []
        self.is_killed = False
        self.node = Node(str(root), self.run)
        (root / "boot/k3s-bake").mkdir(parents=True)

    def run(self, command: list[str], **_: object) -> tuple[int, bytes, str]:
        if self.is_killed:
            raise Stopped
        self.asked.append(command)
        assert self.file.read_bytes().strip(), "it is there until all that it asks for is done"
        return 0, b"", ""

    @property
    def file(self) -> Path:
        return self.root / "boot" / CREDENTIAL

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, text: str) -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)

    def take(self, brought: Credential | None = None, manager: str | None = None) -> bool:
        if brought is not None:
            self.file.write_bytes(brought.to_bytes())
        return credential.take(self.node, NodeConfig("home", "worker", network_manager=manager))


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


# the form


@pytest.mark.parametrize("brought", [BROUGHT, ADDRESSED, WIRELESS, Credential()])
def test_what_is_stamped_is_read(brought: Credential) -> None:
    stamp = brought.to_bytes()
    assert len(stamp) == CREDENTIAL_BYTES
    assert Credential.from_bytes(stamp) == brought
    assert "key" not in repr(brought).lower()


def test_without_an_address_it_is_as_earlier_versions_write_and_read_it() -> None:
    values = json.loads(BROUGHT.to_bytes())
    assert list(values) == ["name", "join_key", "join_certificate", "host_key", "host_certificate"]
    assert Credential.from_bytes(json.dumps(values).encode()) == BROUGHT


@pytest.mark.parametrize(
    "change",
    [
        {"address": 5},
        {"address": "10.0.0.3"},
        {"address": "10.0.0.3/24\n"},
        {"address": "2001:db8::3/64", "gateway": "2001:db8::1"},
        {"address": None},
        {"gateway": None},
        {"gateway": 167772161},  # 10.0.0.1, for ipaddress
        {"gateway": "10.0.1.1"},
        {"gateway": "2001:db8::1"},
        {"gateway": "10.0.0.1\nx"},
        {"dns": "10.0.0.1"},
        {"dns": {"10.0.0.1": ""}},
        {"dns": [167772161]},
        {"dns": ["10.0.0.1 10.0.0.2"]},
        {"dns": ["fe80::1%eth0\nx"]},
        {"dns": None},
        {"interface": None},
        {"interface": ""},
        {"interface": "../eth0"},
        {"interface": "eth0\n"},
        {"interface": "a" * 16},
        {"interface": ["eth0"]},
        {"name": []},
        {"other": ""},
    ],
)
def test_anything_else_is_garbage(change: dict[str, object]) -> None:
    values = {**json.loads(ADDRESSED.to_bytes()), **change}
    assert Credential.from_bytes(json.dumps(values).encode()) is None


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON | GOOD)))
@example({"dns": []})
@example({"name": {}})
@example([["name"]])
def test_garbage_never_raises_and_what_passes_is_plain_text(value: object) -> None:
    found = Credential.from_bytes(json.dumps(value).encode())
    address = found.static_address if found else None
    if address:
        for text in (address.address, address.gateway, address.interface, *address.dns):
            assert text.isascii()
            assert text.isprintable()
            assert not set(text) & set(" ;,'\"\\#=[]")


@given(st.binary(max_size=100))
def test_bytes_never_raise(data: bytes) -> None:
    assert Credential.from_bytes(data) in (None, Credential())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"address": "10.0.0.3/24"}, "needs a gateway"),
        ({"gateway": "10.0.0.1"}, "go with an address"),
        ({"dns": ("10.0.0.1",)}, "go with an address"),
        ({"interface": "eth1"}, "go with an address"),
        ({"address": "10.0.0.3/24", "gateway": "10.0.1.1"}, "not in 10.0.0.0/24"),
    ],
)
def test_what_cannot_be_is_refused_before_a_card_gets_it(values: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Credential(**values)


def test_more_than_it_has_room_for() -> None:
    long = Credential(None, "", "", "", "", "10.0.0.3/24", "10.0.0.1", ("10.0.0.1",) * 700)
    with pytest.raises(UserError, match="no room"):
        long.to_bytes()


# keys and name


def test_it_moves_to_where_only_root_reads_it(card: Card) -> None:
    card.file.write_bytes(BROUGHT.to_bytes())
    with card.file.open("rb") as on_the_card:
        assert card.take()
        assert on_the_card.read().strip() == b"", "what was on the card is overwritten, not only deleted"
    assert not card.file.exists()
    for path in (JOIN_KEY, JOIN_CERTIFICATE, HOST_KEY):
        assert card.at(path).stat().st_mode & 0o777 == 0o600
    assert card.at(JOIN_KEY).read_text() == "join key\n"
    assert card.node.brought_name() == "pi-7"
    assert card.asked == []
    assert card.take(), "and at the next boot it is there"


@pytest.mark.parametrize("left", [b"", b" " * 8191 + b"\n", b"{half", BROUGHT.to_bytes()[:50]])
def test_none_is_waited_for_and_left_alone(card: Card, left: bytes) -> None:
    card.file.write_bytes(left)
    assert not card.take()
    assert card.file.read_bytes() == left
    card.file.unlink()
    assert not card.take()


def test_what_a_power_cut_left_of_the_wiping_is_wiped(card: Card) -> None:
    card.take(BROUGHT)
    card.file.write_bytes(b" " * 50 + BROUGHT.to_bytes()[50:])
    assert card.take()
    assert not card.file.exists()
    assert card.at(JOIN_KEY).read_text() == "join key\n"


# its own address


@pytest.mark.parametrize("manager", NETWORK_MANAGERS)
def test_the_address_is_written_and_told(card: Card, manager: str) -> None:
    assert card.take(ADDRESSED, manager)
    assert "10.0.0.3/24" in card.at(FILES[manager]).read_text()
    assert card.asked == TOLD[manager]
    assert not card.file.exists()
    assert card.take(None, manager)
    assert card.asked == TOLD[manager], "once"


@pytest.mark.parametrize("manager", NETWORK_MANAGERS)
def test_an_agent_that_is_stopped_before_it_has_told_does_so_when_it_starts(card: Card, manager: str) -> None:
    card.is_killed = True
    with pytest.raises(Stopped):
        card.take(ADDRESSED, manager)
    assert card.at(FILES[manager]).exists()
    card.is_killed = False
    assert card.take(None, manager)
    assert card.asked == TOLD[manager]


def test_a_card_without_a_key_is_looked_at_again_but_told_once(card: Card) -> None:
    keyless = Credential(None, "", "", "", "", "10.0.0.3/24", "10.0.0.1")
    for _ in range(3):
        assert not card.take(keyless, "dhcpcd")
    assert card.asked == TOLD["dhcpcd"]


def test_dhcpcd_has_it_in_the_place_of_the_images_own(card: Card) -> None:
    there = Credential(None, *KEYS, "10.0.0.9/24", "10.0.0.1", (), "eth1").static_address
    card.put(DHCPCD, with_blocks("hostname\npersistent\n", there))
    card.at(DHCPCD).chmod(0o664)
    card.take(ADDRESSED, "dhcpcd")
    text = card.at(DHCPCD).read_text()
    assert text == with_blocks("hostname\npersistent\n", ADDRESSED.static_address)
    assert text.count("static ip_address") == 1
    assert card.at(DHCPCD).stat().st_mode & 0o777 == 0o664, "whose it is and who reads it stay"


def test_networkmanager_has_it_in_the_place_of_the_images_own(card: Card) -> None:
    wifi = "[connection]\nid=k3s-bake-wifi\n\n[wifi-security]\npsk=a[ipv4]\n\n"
    static = "[ipv4]\nmethod=manual\naddress1=10.0.0.9/24,10.0.0.1\ndns=10.0.0.1;\n\n[ipv6]\nmethod=auto\n"
    card.put(PROFILE.format("wifi"), wifi + static)
    card.put(PROFILE.format("eth1"), "")
    theirs = "/etc/NetworkManager/system-connections/home.nmconnection"
    card.put(theirs, "")
    card.take(ADDRESSED, "NetworkManager")
    assert "address1=10.0.0.3/24,10.0.0.1\ndns=10.0.0.1;\n" in card.at(PROFILE.format("eth0")).read_text()
    assert card.at(PROFILE.format("eth0")).stat().st_mode & 0o777 == 0o600
    assert not card.at(PROFILE.format("eth1")).exists()
    assert card.at(theirs).exists()
    assert card.at(PROFILE.format("wifi")).read_text() == (
        wifi + "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    )


def test_networkd_has_it_in_the_place_of_the_images_own(card: Card) -> None:
    card.put(UNIT.format("eth1"), "")
    card.put(UNIT.format("wlan0"), "[Match]\nName=wlan0\n\n[Network]\nAddress=10.0.0.9/24\n")
    card.take(ADDRESSED, "systemd-networkd")
    assert "Address=10.0.0.3/24\n" in card.at(UNIT.format("eth0")).read_text()
    assert not card.at(UNIT.format("eth1")).exists()
    assert "DHCP=yes" in card.at(UNIT.format("wlan0")).read_text(), "without its file it has no Wi-Fi"


@pytest.mark.parametrize(
    ("brought", "manager", "why"),
    [
        (ADDRESSED, None, "its image does not say which program sets addresses"),
        (WIRELESS, "NetworkManager", "NetworkManager keeps the address of wlan0 with its Wi-Fi"),
    ],
)
def test_an_address_that_cannot_be_set_is_in_the_journal_and_stops_nothing(
    card: Card, capsys: pytest.CaptureFixture[str], brought: Credential, manager: str | None, why: str
) -> None:
    assert card.take(brought, manager)
    said = capsys.readouterr().out
    assert said.startswith(f"the card's own address 10.0.0.3/24 is not set: {why}")
    assert said.count("\n") == 1
    assert card.asked == []
    assert not card.at("/etc/NetworkManager").exists()
    assert not card.file.exists()


@pytest.mark.parametrize("manager", ["dhcpcd", "systemd-networkd"])
def test_the_address_of_a_wireless_interface(card: Card, manager: str) -> None:
    card.take(WIRELESS, manager)
    path = {"dhcpcd": DHCPCD, "systemd-networkd": UNIT.format("wlan0")}[manager]
    assert "wlan0" in card.at(path).read_text()
    assert card.asked[-1] == TOLD[manager][-1]


# what the node is told at bake


def test_a_config_of_an_earlier_version() -> None:
    assert NodeConfig.from_json('{"cluster": "home", "role": "worker"}').network_manager is None


@pytest.mark.parametrize("value", ["connman", "", 5, ["dhcpcd"], {}])
def test_a_config_that_names_another_program_is_garbled(value: object) -> None:
    text = json.dumps({"cluster": "home", "role": "worker", "network_manager": value})
    with pytest.raises(UserError, match="garbled"):
        NodeConfig.from_json(text)
