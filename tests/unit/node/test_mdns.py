"""What is announced and heard by mDNS, without a network: the wire format, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from xml.etree import ElementTree

import ifaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import avahi, mdns
from firstboot.contract import PHASES, REASONS, TXT_SIZES, Announcement, seconds_text

pytestmark = pytest.mark.unit

MASTER = Announcement(
    "home", "master", "home-1", "joined", addr="10.9.8.1", serial="10000000a1b2c3", k3s="v1.33.1+k3s1",
    since=1_700_000_000, conf="12.5", inst="80",
)  # fmt: skip


def packed(*entries: bytes) -> bytes:
    return b"".join(bytes([len(entry)]) + entry for entry in entries)


def wire(announcement: Announcement, **other: str) -> bytes:
    txt = {**announcement.to_txt(), **other}
    return packed(*(f"{key}={value}".encode() for key, value in txt.items()))


def heard(data: bytes) -> Announcement | None:
    return Announcement.from_txt(mdns.txt_of(data))


def test_what_is_announced_is_heard() -> None:
    assert heard(wire(MASTER)) == MASTER


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    st.builds(
        Announcement,
        cluster=LABELS,
        role=st.sampled_from(["master", "worker"]),
        name=LABELS,
        phase=st.sampled_from(PHASES),
        reason=st.sampled_from(["", *REASONS]),
        addr=st.ip_addresses().map(str),
        serial=st.from_regex(r"[0-9a-f]{0,16}", fullmatch=True),
        k3s=st.sampled_from(["", "v1.21.2+k3s1", "v1.33.1-rc1+k3s1"]),
        since=st.integers(0, 10**10 - 1),
        conf=st.sampled_from(["", "0", "12.5", "1234.56"]),
        inst=st.sampled_from(["", "80"]),
    )
)
def test_every_announcement_survives_the_wire(announcement: Announcement) -> None:
    assert heard(wire(announcement)) == announcement
    assert len(wire(announcement)) <= mdns._MOST_TXT


@given(st.binary(max_size=2000) | st.lists(st.binary(max_size=255)).map(lambda parts: packed(*parts)))
def test_garbage_is_no_announcement_and_no_error(data: bytes) -> None:
    assert heard(data) is None


@given(st.sampled_from(sorted(TXT_SIZES)), st.text(min_size=1, max_size=60))
def test_what_is_heard_holds_only_what_can_be_shown(key: str, value: str) -> None:
    data = wire(MASTER, **{key: value})
    found = heard(data)
    if found is not None:
        assert all(text.isprintable() and len(text) <= 64 for text in found.to_txt().values())


@pytest.mark.parametrize(
    "other",
    [
        {"v": "2"},
        {"v": ""},
        {"cluster": "Home"},
        {"cluster": "home/../x"},
        {"name": "-x"},
        {"name": "a" * 64},
        {"role": "king"},
        {"phase": "dancing"},
        {"reason": "because"},
        {"addr": "10.9.8"},
        {"addr": "10.9.8.1; reboot"},
        {"serial": "\x1b[31m"},
        {"serial": "f" * 240},
        {"k3s": "v1 --token"},
        {"since": "-5"},
        {"since": "9" * 11},
    ],
    ids=str,
)
def test_what_no_node_of_ours_says_is_not_heard(other: dict[str, str]) -> None:
    assert heard(wire(MASTER, **other)) is None


def test_of_a_key_that_comes_twice_the_first_counts_and_case_does_not() -> None:
    assert mdns.txt_of(packed(b"Addr=10.9.8.1", b"addr=10.9.8.66", b"flag", b"x=a=b")) == {
        "addr": "10.9.8.1",
        "flag": "",
        "x": "a=b",
    }


@pytest.mark.parametrize("data", [b"\x05v=1", packed(b"v=\xff"), packed(b"\xff=1"), packed(b"a" * 200) * 7])
def test_a_record_that_is_cut_off_or_no_text_or_huge_is_empty(data: bytes) -> None:
    assert mdns.txt_of(data) == {}


def test_unknown_keys_are_for_later_versions() -> None:
    assert heard(wire(MASTER, later="x" * 240)) == MASTER


@pytest.mark.parametrize(
    ("found", "lan"),
    [
        (["10.0.0.5/24", "169.254.3.4/16"], ["10.0.0.5/24"]),
        (["169.254.3.4/16"], ["169.254.3.4/16"]),
        (["127.0.0.1/8"], []),
        (["192.168.1.2/24", "10.0.0.5/8"], ["192.168.1.2/24", "10.0.0.5/8"]),
        ([], []),
    ],
)
def test_self_assigned_addresses_count_where_there_are_no_others(found: list[str], lan: list[str]) -> None:
    assert mdns.lan_of([IPv4Interface(one) for one in found]) == [IPv4Interface(one) for one in lan]


@pytest.mark.parametrize(
    ("name", "virtual"),
    [
        *((name, False) for name in ("eth0", "wlan0", "enxb827eb123456", "end0", "br0", "lan", "eth0:1")),
        *((name, True) for name in ("lo", "cni0", "flannel.1", "docker0", "veth12ab", "br-5f2e", "virbr0")),
        *((name, True) for name in ("kube-ipvs0", "tun0", "wg0", "tailscale0", "ztabc123")),
    ],
)
def test_interfaces_of_containers_and_tunnels_are_no_lan(name: str, virtual: bool) -> None:
    assert bool(mdns._VIRTUAL.match(name)) is virtual


class Adapters:
    """Stands in for ifaddr's."""

    def __init__(self, **addresses: str) -> None:
        self._addresses = addresses

    def __call__(self) -> list[object]:
        made = []
        for name, text in self._addresses.items():
            one = IPv4Interface(text)
            ip = type("IP", (), {"ip": str(one.ip), "network_prefix": one.network.prefixlen, "is_IPv4": True})
            made.append(type("Adapter", (), {"name": name, "ips": [ip]}))
        return made


def test_addresses_and_networks_are_those_of_real_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = Adapters(lo="127.0.0.1/8", eth0="10.0.0.5/24", cni0="10.42.0.1/24", docker0="172.17.0.1/16")
    monkeypatch.setattr(ifaddr, "get_adapters", adapters)
    assert mdns.lan_addresses() == ["10.0.0.5"]
    assert [str(network) for network in mdns.lan_networks()] == ["10.0.0.0/24"]


def test_browsing_without_an_address_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", Adapters(lo="127.0.0.1/8"))
    assert mdns.browse(60) == []  # a process would fail this test, as would a minute


def test_avahi_s_file_says_the_same_as_zeroconf() -> None:
    root = ElementTree.fromstring(avahi.service(MASTER))
    name, service = root
    assert (name.text, name.attrib) == ("%h", {"replace-wildcards": "yes"})
    assert service.findtext("type") == "_k3s-bake._tcp"
    assert service.findtext("port") == "6422"
    txt = dict((record.text or "").split("=", 1) for record in service.findall("txt-record"))
    assert txt == MASTER.to_txt()


def test_avahi_s_file_is_xml_whatever_is_said() -> None:
    odd = Announcement("home", "master", 'a<b>&"\x1b', "joined", serial="]]>")
    texts = [record.text for record in ElementTree.fromstring(avahi.service(odd)).iter("txt-record")]
    assert 'name=a<b>&"' in texts
    assert "serial=]]>" in texts


def lines(*announcements: Announcement) -> mdns._Heard:
    heard = mdns._Heard([IPv4Interface("10.9.8.2/24").network], None)
    for announcement in announcements:
        heard.line(json.dumps(announcement.to_txt()).encode())
    return heard


def test_only_masters_in_our_networks_are_heard() -> None:
    far = Announcement("home", "master", "far", "joined", addr="172.17.0.1")
    nowhere = Announcement("home", "master", "nowhere", "joined")
    six = Announcement("home", "master", "six", "joined", addr="fe80::1")
    assert lines(far, MASTER, nowhere, six).announcements() == [MASTER]


def test_what_is_heard_is_bounded() -> None:
    many = [Announcement("home", "worker", f"w{n}", "joined", addr="10.9.8.3") for n in range(mdns.MOST)]
    assert not lines(*many[:-1]).done
    assert lines(*many).done
    short = mdns._Heard([], None)
    short.line(b"x" * mdns.MOST_BYTES)
    assert short.done


@given(st.binary(max_size=300) | st.just(b"[" * 100_000) | st.sampled_from([b"[]", b'{"v":1}', b"null"]))
def test_a_child_that_went_mad_is_not_believed(line: bytes) -> None:
    heard = mdns._Heard([IPv4Interface("0.0.0.0/0").network], None)
    heard.line(line)
    assert heard.announcements() == []


@pytest.mark.parametrize("value", ["1e9", "\u0663", "216000.", "-540.0"])
def test_a_time_that_makes_no_sense_is_left_out_and_the_rest_is_heard(value: str) -> None:
    txt = {**MASTER.to_txt(), "conf": value, "inst": value}
    assert Announcement.from_txt(txt) == replace(MASTER, conf="", inst="")


@given(st.floats(-1e9, 1e12))
def test_times_of_any_length_are_heard(seconds: float) -> None:
    text = seconds_text(seconds)
    said = replace(MASTER, conf=text, inst=text)
    assert Announcement.from_txt(said.to_txt()) == said


def test_avahi_runs_where_its_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setattr(avahi, "_PID", str(pid))
    assert not avahi.runs()
    for text in ("", "x\n", "1\n", "99999999\n"):  # process 1 is no avahi
        pid.write_text(text)
        assert not avahi.runs()
