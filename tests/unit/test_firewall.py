"""Each firewall's own file with ports open in it."""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.concerns.ports import API, ETCD, FLANNEL, KUBELET
from bake.firewall import Network, Port, with_firewalld, with_iptables, with_nftables, with_ufw

pytestmark = pytest.mark.unit

V4 = ipaddress.ip_network("10.0.0.0/24")
V6 = ipaddress.ip_network("2001:db8::/64")
ETCD_MASTER = (API, KUBELET, FLANNEL, ETCD)

UFW = """*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### END RULES ###

### LOGGING ###
### END LOGGING ###
COMMIT
"""
UFW_PRISTINE = "*filter\n:ufw6-user-input - [0:0]\n### RULES ###\nCOMMIT\n"
ZONE = """<?xml version="1.0" encoding="utf-8"?>
<zone>
  <short>Public</short>
  <service name="ssh"/>
</zone>
"""
NFTABLES = """#!/usr/sbin/nft -f

flush ruleset

table inet filter {
\tchain input {
\t\ttype filter hook input priority 0; policy drop;  # type filter hook input
\t\tct state established,related accept
\t}
\tchain output {
\t\ttype filter hook output priority 0;
\t}
}
"""
SAVED = """*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -j ACCEPT
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT
COMMIT
"""

CHANGES: dict[str, tuple[Callable[..., str], str]] = {
    "ufw 4": (partial(with_ufw, version=4), UFW),
    "ufw 6": (partial(with_ufw, version=6), UFW_PRISTINE),
    "iptables 4": (partial(with_iptables, version=4), SAVED),
    "iptables 6": (partial(with_iptables, version=6), SAVED),
    "nftables": (with_nftables, NFTABLES),
    "firewalld": (with_firewalld, ZONE),
}

PORTS = st.lists(st.sampled_from(ETCD_MASTER), unique=True).map(tuple)
NETWORKS = st.sampled_from([None, V4, V6, ipaddress.ip_network("10.0.0.7/32")])


@st.composite
def strewn(draw: st.DrawFn, name: str) -> str:
    """A firewall's file with foreign lines between its own."""
    comment = "<!-- {} -->" if name == "firewalld" else "# {}"
    _, text = CHANGES[name]
    foreign = st.from_regex(r"[a-z \t]{0,9}", fullmatch=True).map(comment.format)
    lines = text.splitlines()
    for _ in range(draw(st.integers(0, 4))):
        lines.insert(draw(st.integers(1, len(lines))), draw(foreign))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CHANGES)
@given(data=st.data(), ports=PORTS, network=NETWORKS)
def test_twice_is_once_and_the_lines_of_others_stay(
    name: str, data: st.DataObject, ports: tuple[Port, ...], network: Network | None
) -> None:
    change = CHANGES[name][0]
    before = data.draw(strewn(name))
    once = change(before, ports=ports, network=network)
    assert change(once, ports=ports, network=network) == once
    after = iter(once.split("\n"))
    assert all(line in after for line in before.split("\n"))  # each one, in their order


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "firewalld"])
@given(data=st.data(), ports=PORTS, network=NETWORKS)
def test_what_was_opened_before_and_is_not_wanted_any_more_goes(
    name: str, data: st.DataObject, ports: tuple[Port, ...], network: Network | None
) -> None:
    change = CHANGES[name][0]
    before = data.draw(strewn(name))
    opened = change(before, ports=ports, network=network)
    assert change(opened, ports=(), network=None) == before


class TestUfw:
    def test_as_ufw_writes_it(self) -> None:
        text = with_ufw(UFW, (KUBELET, ETCD), V4, version=4)
        comment = "comment=6b33732d62616b65"
        assert text == UFW.replace(
            "\n### END RULES",
            f"\n### tuple ### allow tcp 10250 0.0.0.0/0 any 10.0.0.0/24 in {comment}\n"
            "-A ufw-user-input -p tcp --dport 10250 -s 10.0.0.0/24 -j ACCEPT\n"
            f"\n### tuple ### allow tcp 2379:2380 0.0.0.0/0 any 10.0.0.0/24 in {comment}\n"
            "-A ufw-user-input -p tcp -m multiport --dports 2379:2380 -s 10.0.0.0/24 -j ACCEPT\n"
            "\n### END RULES",
        )

    def test_a_file_that_ufw_never_wrote(self) -> None:
        text = with_ufw(UFW_PRISTINE, (FLANNEL,), None, version=6)
        assert text.split("\n")[-5:] == [
            "### tuple ### allow udp 8472 ::/0 any ::/0 in comment=6b33732d62616b65",
            "-A ufw6-user-input -p udp --dport 8472 -j ACCEPT",
            "",
            "COMMIT",
            "",
        ]

    def test_a_single_host_has_no_prefix_there(self) -> None:
        assert " -s 10.0.0.7 -j" in with_ufw(UFW, (API,), ipaddress.ip_network("10.0.0.7"), version=4)

    def test_a_rule_of_somebody_else_is_not_made_again(self) -> None:
        assert with_ufw(UFW, (Port("tcp", 22),), None, version=4) == UFW

    def test_our_rule_stays_where_its_owner_moved_it(self) -> None:
        opened = with_ufw(UFW, (API,), None, version=4)
        deny = "\n### tuple ### deny tcp any 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -p tcp -j DROP\n"
        later = opened.replace("\n### END RULES", f"{deny}\n### END RULES")
        assert with_ufw(later, (API,), None, version=4) == later

    def test_cut_short(self) -> None:
        with pytest.raises(ValueError, match="COMMIT"):
            with_ufw("*filter\n### RULES ###\n", (API,), None, version=4)


class TestIptables:
    def test_before_the_first_rule_of_filter_as_iptables_saves_it(self) -> None:
        text = with_iptables(SAVED, (API, ETCD), V4, version=4)
        lines = "".join(
            f"-A INPUT -s 10.0.0.0/24 -p tcp -m tcp --dport {port} -m comment --comment k3s-bake -j ACCEPT\n"
            for port in ("6443", "2379:2380")
        )
        assert text == SAVED.replace(
            "-A INPUT -p tcp -m tcp --dport 22", f"{lines}-A INPUT -p tcp -m tcp --dport 22"
        )

    def test_a_filter_without_rules(self) -> None:
        text = with_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", (FLANNEL,), None, version=6)
        assert text.splitlines()[2:] == [
            "-A INPUT -p udp -m udp --dport 8472 -m comment --comment k3s-bake -j ACCEPT",
            "COMMIT",
        ]

    def test_saved_with_counters(self) -> None:
        counted = re.sub(
            "^-A", "[3:180] -A", with_iptables(SAVED, (API,), None, version=4), flags=re.MULTILINE
        )
        assert with_iptables(counted, (API,), None, version=4) == counted

    def test_no_filter_no_change(self) -> None:
        nat = SAVED[: SAVED.index("*filter")]
        assert with_iptables(nat, (API,), None, version=4) == nat

    def test_cut_short(self) -> None:
        with pytest.raises(ValueError, match="COMMIT"):
            with_iptables("*filter\n:INPUT DROP [0:0]\n", (API,), None, version=4)


class TestNftables:
    def test_first_in_the_chain_that_hooks_input(self) -> None:
        text = with_nftables(NFTABLES, (API, ETCD), V6)
        hook = "\t\ttype filter hook input priority 0; policy drop;  # type filter hook input\n"
        assert text == NFTABLES.replace(
            hook,
            f'{hook}\t\tip6 saddr 2001:db8::/64 tcp dport 6443 accept comment "k3s-bake"\n'
            '\t\tip6 saddr 2001:db8::/64 tcp dport 2379-2380 accept comment "k3s-bake"\n',
        )

    def test_a_chain_on_one_line(self) -> None:
        line = "table ip t { chain a { type filter hook input priority 0; policy drop; ip ttl 1 drop; }; }\n"
        text = with_nftables(line, (API,), None)
        assert text == (
            "table ip t { chain a { type filter hook input priority 0; policy drop;\n"
            'tcp dport 6443 accept comment "k3s-bake"\n'
            "ip ttl 1 drop; }; }\n"
        )
        assert with_nftables(text, (API,), None) == text

    def test_two_chains_on_one_line(self) -> None:
        chain = "{ type filter hook input priority 0; }"
        line = f"table t {{ chain a {chain}; chain b {chain}; }}\n"
        text = with_nftables(line, (API,), None)
        assert text.count("tcp dport 6443") == 2
        assert with_nftables(text, (API,), None) == text

    @pytest.mark.parametrize(
        ("family", "network", "opened"),
        [("ip6", V4, False), ("ip", V6, False), ("", V6, False), ("", V4, True), ("inet", V4, True),
         ("ip6", None, True), ("bridge", None, False)],
    )  # fmt: skip
    def test_only_what_the_table_s_family_takes(self, family: str, network: Network, opened: bool) -> None:
        text = f"table {family} t {{\n chain c {{\n  type filter hook input priority 0;\n }}\n}}\n"
        assert ("dport 6443" in with_nftables(text, (API,), network)) == opened

    def test_what_only_looks_like_a_chain(self) -> None:
        text = '# type filter hook input priority 0;\ndefine a = "type filter hook input priority 0;"\n'
        assert with_nftables(f"table t {{\n chain a {{\n{text} }}\n}}\n", (API,), None).count("dport") == 0

    def test_another_role_takes_its_rules_away(self) -> None:
        assert with_nftables(with_nftables(NFTABLES, ETCD_MASTER, V4), (KUBELET,), None) == with_nftables(
            NFTABLES, (KUBELET,), None
        )


class TestFirewalld:
    def test_ports(self) -> None:
        text = with_firewalld(ZONE, (API, ETCD), None)
        assert text.splitlines()[4:] == [
            '  <port port="6443" protocol="tcp"/>',
            '  <port port="2379-2380" protocol="tcp"/>',
            "</zone>",
        ]

    def test_a_rule_for_a_network(self) -> None:
        rule = ElementTree.fromstring(with_firewalld(ZONE, (API,), V6)).find("rule")
        assert rule is not None
        assert rule.get("family") == "ipv6"
        assert [(part.tag, dict(part.attrib)) for part in rule] == [
            ("source", {"address": "2001:db8::/64"}),
            ("port", {"port": "6443", "protocol": "tcp"}),
            ("accept", {}),
        ]

    def test_a_port_in_somebody_s_rule_is_not_an_open_port(self) -> None:
        text = with_firewalld(with_firewalld(ZONE, (API,), V4), (API,), None)
        assert ElementTree.fromstring(text).find("port") is not None

    def test_an_empty_zone_and_a_tag_in_a_comment(self) -> None:
        text = with_firewalld('<zone target="DROP"/><!-- </zone> -->\n', (API,), None)
        assert ElementTree.fromstring(text).find("port") is not None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<zone>",
            "<policy></policy>",
            "<!DOCTYPE z [<!ENTITY a 'b'>]><zone>&a;</zone>",
            "<zone>\udcff</zone>",
        ],
    )
    def test_garbled(self, text: str) -> None:
        with pytest.raises(ValueError):
            with_firewalld(text, (API,), None)
