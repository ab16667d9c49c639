"""Wi-Fi and static addresses for each program that sets them, and what cannot be either."""

import configparser
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raspbian import Pi, worker

from bake.concerns.network import supplicant_conf, wifi_profile
from bake.spec import NodeSpec, StaticAddress, Wifi
from firstboot.edits import Link, Remove, Write
from firstboot.errors import UserError
from firstboot.network import wired_profile, with_blocks

pytestmark = pytest.mark.unit

HOME = Wifi("DE", "home", "secret-password")
WIRED = StaticAddress("10.0.0.3/24", "10.0.0.1", ("10.0.0.1", "2001:db8::1"))
WIRELESS = StaticAddress("10.0.0.3/24", "10.0.0.1", (), "wlan0")

SSIDS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: len(text.encode()) <= 32)
PASSWORDS = st.from_regex(r"[ -~]{8,63}", fullmatch=True)
KEYS = st.from_regex(r"[0-9a-fA-F]{64}", fullmatch=True)
PODS = "# k3s-bake: begin\ndenyinterfaces veth* cni* flannel*\n# k3s-bake: end\n"
LINES = st.lists(
    st.sampled_from(["hostname", "", "# k3s-bake: begin", "interface eth0", "#x", "# k3s-bake: end "])
)


def written(pi: Pi, spec: NodeSpec) -> dict[str, Write]:
    return {edit.path: edit for edit in pi.wants("network", spec) if isinstance(edit, Write)}


def text(pi: Pi, spec: NodeSpec, path: str) -> str:
    return written(pi, spec)[path].content.decode()


def supplicant_value(conf: str, key: str) -> bytes:
    """As wpa_supplicant reads it: what is between the first and the last quote, else hexadecimal."""
    value = re.findall(rf"^\t{key}=(.*)$", conf, re.MULTILINE)
    assert len(value) == 1
    if value[0].startswith('"'):
        return value[0][1 : value[0].rindex('"')].encode()
    return bytes.fromhex(value[0])


def keyfile(content: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.read_string(content)
    return parser


def keyfile_ssid(value: str) -> bytes:
    """As NetworkManager reads it: a list of numbers where all is digits and semicolons, else text."""
    if re.fullmatch(r"(\d{1,3};)+", value):
        return bytes(int(number) for number in value.split(";")[:-1])
    return value.encode()


def unescaped(value: str) -> str:
    """As GLib reads a keyfile's text."""
    return re.sub(r"\\(.)", lambda found: {"s": " ", "\\": "\\"}[found[1]], value)


class TestWpaSupplicant:
    @given(ssid=SSIDS, psk=PASSWORDS)
    def test_any_name_and_password_arrive(self, ssid: str, psk: str) -> None:
        conf = supplicant_conf(Wifi("DE", ssid, psk))
        assert supplicant_value(conf, "ssid") == ssid.encode()
        assert supplicant_value(conf, "psk") == psk.encode()
        assert len(conf.split("\n")) == len(supplicant_conf(HOME).split("\n"))

    @given(psk=KEYS)
    def test_a_key_goes_without_quotes(self, psk: str) -> None:
        assert f"\tpsk={psk}\n" in supplicant_conf(Wifi("DE", "home", psk))

    @pytest.mark.parametrize(
        ("ssid", "form"),
        [("My Home", '"My Home"'), ('a"b', "612262"), ("a\\b", "615c62"), ("ü", "c3bc"), ("a\nb", "610a62")],
    )
    def test_a_name_with_more_than_plain_characters_is_hexadecimal(self, ssid: str, form: str) -> None:
        assert f"\tssid={form}\n" in supplicant_conf(Wifi("DE", ssid, "12345678"))


class TestDhcpcd:
    def test_an_address_at_the_end_for_its_interface_alone(self, pi: Pi) -> None:
        assert text(pi, worker(address=WIRED), "/etc/dhcpcd.conf") == (
            f"hostname\nclientid\n{PODS}"
            "# k3s-bake: begin\n"
            "interface eth0\n"
            "static ip_address=10.0.0.3/24\n"
            "static routers=10.0.0.1\n"
            "static domain_name_servers=10.0.0.1 2001:db8::1\n"
            "# k3s-bake: end\n"
        )

    def test_another_address_takes_its_place_and_none_takes_it_away(self, pi: Pi) -> None:
        pi.bake(worker(address=WIRED))
        pi.bake(worker(address=WIRELESS))
        assert pi.text("/etc/dhcpcd.conf").count("static ip_address") == 1
        assert "interface wlan0\n" in pi.text("/etc/dhcpcd.conf")
        pi.bake(worker())
        assert pi.text("/etc/dhcpcd.conf") == f"hostname\nclientid\n{PODS}"
        assert pi.wants("network", worker()) == []

    @pytest.mark.parametrize("own", ["interface eth0", "  ssid home", "profile static"])
    def test_pods_interfaces_are_denied_before_what_is_for_one_interface(self, own: str) -> None:
        assert with_blocks(f"hostname\n{own}\nmetric 1", None) == f"hostname\n{PODS}{own}\nmetric 1\n"
        assert with_blocks("#interface eth0\n", None) == f"#interface eth0\n{PODS}"

    @given(lines=LINES, address=st.sampled_from([WIRED, WIRELESS, None]))
    def test_twice_is_once_and_the_lines_of_others_stay(
        self, lines: list[str], address: StaticAddress | None
    ) -> None:
        before = "\n".join(lines)
        once = with_blocks(before, address)
        assert with_blocks(once, address) == once
        assert once.count(PODS) == 1
        assert "interface" not in once.partition("denyinterfaces")[0]
        taken = with_blocks(once, None).replace(PODS, "")
        assert taken.rstrip("\n") == before.rstrip("\n")

    def test_wifi(self, pi: Pi) -> None:
        edit = written(pi, worker(wifi=HOME))["/etc/wpa_supplicant/wpa_supplicant.conf"]
        assert (edit.mode, edit.secret) == (0o600, True)
        lines = edit.content.decode().splitlines()
        assert "country=DE" in lines
        assert "ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev" in lines

    def test_the_radio_is_let_on(self, pi: Pi) -> None:
        blocked = "/var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan"
        pi.write(blocked, "1\n")
        pi.write("/var/lib/systemd/rfkill/platform-soc:bluetooth", "1\n")
        pi.write("/var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan", "0\n")
        assert not any("rfkill" in path for path in written(pi, worker()))
        edits = written(pi, worker(wifi=HOME))
        assert edits[blocked].content == b"0\n"
        assert [path for path in edits if "rfkill" in path] == [blocked]

    def test_no_supplicant_is_said(self, pi: Pi) -> None:
        assert "wpasupplicant" in pi.notes("network", worker(wifi=HOME))[0]
        pi.install(wpasupplicant="2:2.7+git20190128")
        assert pi.notes("network", worker(wifi=HOME)) == []


class TestNetworkManager:
    WIFI = "/etc/NetworkManager/system-connections/k3s-bake-wifi.nmconnection"
    WIRED = "/etc/NetworkManager/system-connections/k3s-bake-eth0.nmconnection"

    @pytest.fixture
    def pi(self, pi: Pi) -> Pi:
        pi.install(**{"network-manager": "1.42.4-1", "wpasupplicant": "2:2.10-12"})
        return pi

    @given(ssid=SSIDS, psk=PASSWORDS)
    def test_any_name_and_password_arrive(self, ssid: str, psk: str) -> None:
        profile = wifi_profile(Wifi("DE", ssid, psk), None)
        parsed = keyfile(profile)
        assert keyfile_ssid(parsed["wifi"]["ssid"]) == ssid.encode()
        assert unescaped(parsed["wifi-security"]["psk"]) == psk

    def test_profiles(self, pi: Pi) -> None:
        edits = written(pi, worker(wifi=HOME, address=WIRED))
        assert {(edit.mode, edit.secret) for path, edit in edits.items() if path == self.WIFI} == {
            (0o600, True)
        }
        assert edits[self.WIRED].mode == 0o600
        wired = keyfile(edits[self.WIRED].content.decode())
        assert wired["connection"]["type"] == "ethernet"
        assert wired["connection"]["interface-name"] == "eth0"
        assert dict(wired["ipv4"]) == {
            "method": "manual", "address1": "10.0.0.3/24,10.0.0.1", "dns": "10.0.0.1;",
        }  # fmt: skip
        assert dict(wired["ipv6"]) == {"method": "auto", "dns": "2001:db8::1;"}
        assert keyfile(edits[self.WIFI].content.decode())["ipv4"]["method"] == "auto"

    def test_pods_interfaces_are_left_alone(self, pi: Pi) -> None:
        conf = keyfile(text(pi, worker(), "/etc/NetworkManager/conf.d/90-k3s-bake.conf"))
        assert conf["keyfile"]["unmanaged-devices"].split(";") == [
            "interface-name:veth*", "interface-name:cni*", "interface-name:flannel*",
        ]  # fmt: skip

    def test_each_profile_has_one_uuid_for_ever(self) -> None:
        profiles = (wifi_profile(HOME, None), wired_profile(WIRED), wifi_profile(HOME, WIRELESS))
        ids = [keyfile(profile)["connection"]["uuid"] for profile in profiles]
        assert ids[0] == ids[2] != ids[1]

    def test_the_country_goes_to_the_kernel_s_module(self, pi: Pi) -> None:
        country = text(pi, worker(wifi=HOME), "/etc/modprobe.d/k3s-bake-wifi.conf")
        assert country == "options cfg80211 ieee80211_regdom=DE\n"

    def test_wireless_is_turned_on(self, pi: Pi) -> None:
        state = "/var/lib/NetworkManager/NetworkManager.state"
        pi.write(state, "[main]\nWirelessEnabled=false\n")
        assert text(pi, worker(wifi=HOME), state) == "[main]\nWirelessEnabled=true\n"

    def test_the_address_of_a_wireless_interface_is_in_its_wifi(self, pi: Pi) -> None:
        edits = written(pi, worker(wifi=HOME, address=WIRELESS))
        profile = keyfile(edits[self.WIFI].content.decode())
        assert profile["connection"]["interface-name"] == "wlan0"
        assert profile["ipv4"]["address1"] == "10.0.0.3/24,10.0.0.1"
        assert not any("k3s-bake-wlan0" in path for path in edits)
        with pytest.raises(UserError, match="with its Wi-Fi"):
            pi.wants("network", worker(address=WIRELESS))

    def test_an_address_not_wanted_any_more_goes_and_the_wifi_stays(self, pi: Pi) -> None:
        pi.bake(worker(wifi=HOME, address=WIRED))
        pi.write("/etc/NetworkManager/system-connections/own.nmconnection", "")
        assert [edit for edit in pi.wants("network", worker()) if isinstance(edit, Remove)] == [
            Remove(self.WIRED)
        ]
        assert pi.plan(worker()).secret  # the Wi-Fi's password, still there


class TestNetworkd:
    WANTS = "/etc/systemd/system/multi-user.target.wants"

    @pytest.fixture
    def pi(self, pi: Pi) -> Pi:
        pi.remove_package("dhcpcd5")
        pi.install(wpasupplicant="2:2.7+git20190128")
        pi.link(f"{self.WANTS}/systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service")
        return pi

    def test_an_address(self, pi: Pi) -> None:
        unit = text(pi, worker(address=WIRED), "/etc/systemd/network/10-k3s-bake-eth0.network")
        assert unit.splitlines()[1:] == [
            "[Match]", "Name=eth0", "", "[Network]", "Address=10.0.0.3/24", "Gateway=10.0.0.1",
            "DNS=10.0.0.1", "DNS=2001:db8::1",
        ]  # fmt: skip

    def test_wifi_by_dhcp(self, pi: Pi) -> None:
        edits = pi.wants("network", worker(wifi=HOME, address=WIRED))
        files = {edit.path: edit for edit in edits if isinstance(edit, Write)}
        secret = files["/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"]
        assert (secret.mode, secret.secret) == (0o600, True)
        assert b"DHCP=yes" in files["/etc/systemd/network/10-k3s-bake-wlan0.network"].content
        assert "/etc/systemd/network/10-k3s-bake-eth0.network" in files
        unit = "/lib/systemd/system/wpa_supplicant@.service"
        assert Link(f"{self.WANTS}/wpa_supplicant@wlan0.service", unit) in edits

    def test_a_static_address_on_wifi(self, pi: Pi) -> None:
        address = StaticAddress("10.0.0.3/24", "10.0.0.1", (), "wlp1s0")
        files = written(pi, worker(wifi=HOME, address=address))
        assert files.keys() == {
            "/etc/wpa_supplicant/wpa_supplicant-wlp1s0.conf",
            "/etc/systemd/network/10-k3s-bake-wlp1s0.network",
        }
        assert b"DHCP" not in files["/etc/systemd/network/10-k3s-bake-wlp1s0.network"].content

    def test_an_address_not_wanted_any_more_goes_and_the_wifi_stays(self, pi: Pi) -> None:
        pi.bake(worker(wifi=HOME, address=WIRED))
        assert [
            step for step in pi.plan(worker(wifi=HOME, address=WIRED)).steps if step.concern == "network"
        ] == []
        assert pi.wants("network", worker()) == [Remove("/etc/systemd/network/10-k3s-bake-eth0.network")]


class TestNobodySetsAddresses:
    @pytest.mark.parametrize("spec", [worker(wifi=HOME), worker(address=WIRED)])
    def test_it_is_refused_where_one_is_wanted(self, pi: Pi, spec: NodeSpec) -> None:
        pi.remove_package("dhcpcd5")
        assert pi.wants("network", worker()) == []
        with pytest.raises(UserError, match="no program that sets"):
            pi.wants("network", spec)


class TestValues:
    @pytest.mark.parametrize("country", ["de", "DEU", "D", "", "DE\n", "ÄÖ"])
    def test_country(self, country: str) -> None:
        with pytest.raises(UserError, match="not a Wi-Fi country"):
            Wifi(country, "home", "secret-password")

    @pytest.mark.parametrize("ssid", ["", "a" * 33, "ü" * 17])
    def test_ssid(self, ssid: str) -> None:
        with pytest.raises(UserError, match="1 to 32 bytes"):
            Wifi("DE", ssid, "secret-password")

    @pytest.mark.parametrize("psk", ["hunter2", "hunter2" * 10, "hunter2\nhunter2", "hünter22", "g" * 64])
    def test_a_password_that_cannot_be_is_not_repeated(self, psk: str) -> None:
        with pytest.raises(UserError, match="cannot be a Wi-Fi password") as caught:
            Wifi("DE", "home", psk)
        assert psk not in f"{caught.value.message}{caught.value.hint}"
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (("10.0.0.3", "10.0.0.1"), "with its prefix"),
            (("10.0.0.3/255.255.255.0", "10.0.0.1"), "with its prefix"),
            (("2001:db8::3/64", "2001:db8::1"), "not an IPv4 address"),
            (("10.0.0.3/33", "10.0.0.1"), "33"),
            (("10.0.0.300/24", "10.0.0.1"), "300"),
            (("10.0.0.3/24", "10.0.1.1"), "10.0.1.1 is not in 10.0.0.0/24"),
            (("10.0.0.3/24", "router"), "router"),
            (("10.0.0.3/24", "10.0.0.1", ("dns.example",)), "dns.example"),
            (("10.0.0.3/24", "10.0.0.1", ("fe80::1%eth0\nx",)), "no interface"),
            (("10.0.0.3/24", "10.0.0.1", (), "../eth0"), "not an interface"),
            (("10.0.0.3/24", "10.0.0.1", (), "a" * 16), "not an interface"),
            (("10.0.0.3/24", "10.0.0.1", (), "eth0\n"), "not an interface"),
        ],
    )
    def test_address(self, values: tuple[str, str], message: str) -> None:
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            StaticAddress(*values)
        assert caught.value.hint
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("address", "gateway"),
    [
        ("10.0.0.0/24", "10.0.0.1"),
        ("10.0.0.255/24", "10.0.0.1"),
        ("10.0.0.1/24", "10.0.0.1"),
        ("10.0.0.5/24", "10.0.0.255"),
        ("127.0.0.5/8", "127.0.0.1"),
        ("224.0.0.5/24", "224.0.0.1"),
    ],
)
def test_addresses_that_no_host_can_have(address: str, gateway: str) -> None:
    with pytest.raises(UserError):
        StaticAddress(address, gateway)
    StaticAddress("10.0.0.0/31", "10.0.0.1")
