"""Firewalls' own files as pure text: the same file with some ports open.

Each function, applied twice, gives what it gave once, and keeps the lines of others in their order.
``network`` is where packets may come from; None for anywhere. Rules that can be marked as ours (all but
firewalld's) go again when they are not wanted any more. ValueError, with the reason, for a file that its
owner would not take.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MARK = "k3s-bake"
"""The comment that our rules carry."""


@dataclass(frozen=True)
class Port:
    """A port, or those from ``first`` to ``last``, both included."""

    protocol: str
    first: int
    last: int | None = None

    def span(self, dash: str) -> str:
        return f"{self.first}" if self.last is None else f"{self.first}{dash}{self.last}"


# ufw

_UFW_MARK = f" comment={MARK.encode().hex()}"  # ufw keeps comments in hexadecimal
_UFW_OURS = re.compile(rf"^(### tuple ### .*){_UFW_MARK}\n-A .*\n\n?", re.MULTILINE)
# A file that ufw has never written itself lacks the first of the two.
_UFW_END = re.compile(r"\n(?:### END RULES ###|COMMIT)$", re.MULTILINE)


def with_ufw(text: str, ports: Sequence[Port], network: Network | None, version: int) -> str:
    """ufw's user.rules (``version`` 4) or user6.rules (6).

    The line with the tuple is what ufw itself reads, the line below it what iptables-restore reads. A rule
    that somebody else made is not made again.
    """
    wanted = dict(_ufw_rule(port, network, version) for port in ports) if _may(network, version) else {}
    kept = _UFW_OURS.sub(lambda ours: ours[0] if ours[1] in wanted else "", text)
    there = {line.partition(" comment=")[0] for line in kept.split("\n")}
    new = [f"\n{row}{_UFW_MARK}\n{rule}\n" for row, rule in wanted.items() if row not in there]
    end = _UFW_END.search(kept)
    if end is None:
        raise ValueError("it has no COMMIT")
    return kept[: end.start()] + "".join(new) + kept[end.start() :]


def _ufw_rule(port: Port, network: Network | None, version: int) -> tuple[str, str]:
    chain, anywhere = ("ufw-user-input", "0.0.0.0/0") if version == 4 else ("ufw6-user-input", "::/0")
    source = anywhere if network is None else re.sub(r"/(32|128)$", "", str(network))
    several = port.last is not None
    ports = f"-m multiport --dports {port.span(':')}" if several else f"--dport {port.span(':')}"
    origin = "" if source == anywhere else f" -s {source}"
    return (
        f"### tuple ### allow {port.protocol} {port.span(':')} {anywhere} any {source} in",
        f"-A {chain} -p {port.protocol} {ports}{origin} -j ACCEPT",
    )


def _may(network: Network | None, version: int) -> bool:
    return network is None or network.version == version


# iptables-persistent

_COUNTERS = re.compile(r"^\[\d+:\d+\] ")  # iptables-save -c
_IPTABLES_OURS = re.compile(rf"-A INPUT .*--comment {MARK} -j ACCEPT\s*")


def with_iptables(text: str, ports: Sequence[Port], network: Network | None, version: int) -> str:
    """What iptables-save (``version`` 4) or ip6tables-save (6) prints; ours before the first rule of filter.

    Without a table filter nothing is filtered, so nothing is opened.
    """
    wanted = [_iptables_rule(port, network) for port in ports] if _may(network, version) else []
    lines = text.splitlines(keepends=True)
    ours = [rule for line in lines if _IPTABLES_OURS.fullmatch(rule := _COUNTERS.sub("", line))]
    if sorted(ours) == sorted(wanted):
        return text  # wherever they are: their owner may have moved them
    others = [line for line in lines if not _IPTABLES_OURS.fullmatch(_COUNTERS.sub("", line))]
    at = _first_rule(others)
    return text if at is None else "".join([*others[:at], *wanted, *others[at:]])


def _iptables_rule(port: Port, network: Network | None) -> str:
    origin = "" if network is None else f"-s {network} "
    ports = f"-p {port.protocol} -m {port.protocol} --dport {port.span(':')}"
    return f"-A INPUT {origin}{ports} -m comment --comment {MARK} -j ACCEPT\n"


def _first_rule(lines: Sequence[str]) -> int | None:
    """Index of the first rule, or else of the COMMIT, of table filter; None where there is no such table."""
    table = ""
    for index, line in enumerate(lines):
        word = _COUNTERS.sub("", line).strip()
        if word.startswith("*"):
            table = word
        elif table == "*filter" and (word.startswith("-A ") or word == "COMMIT"):
            return index
    if table == "*filter":
        raise ValueError("its table filter has no COMMIT")
    return None


# nftables

_NFT_OURS = re.compile(
    rf'^[ \t]*(?:ip6? saddr \S+ )?(?:tcp|udp) dport [\d-]+ accept comment "{MARK}"\n', re.MULTILINE
)
_NFT_NO_CODE = re.compile(r'"[^"\n]*"|#[^\n]*')
_NFT_TABLE = re.compile(r"\btable\s+(?:(ip|ip6|inet|arp|bridge|netdev)\s+)?[\w.-]+\s*\{")
_NFT_INPUT = re.compile(
    r"\btype\s+filter\s+hook\s+input\b[^;\n}]*;?(?:[ \t]*policy[ \t]+\w+[ \t]*;?)?(?=(?P<rest>[^\n]*)\n)"
)


def with_nftables(text: str, ports: Sequence[Port], network: Network | None) -> str:
    """nftables.conf, with ours first in every chain of a table's block that filters input.

    A packet is let in only if each of these chains accepts it.
    """
    text = _NFT_OURS.sub("", text)
    # As long as the text, so that what is found in the one is at the same place in the other.
    code = _NFT_NO_CODE.sub(lambda found: " " * len(found[0]), text)
    for hook, family in reversed(list(_input_chains(code))):
        rules = [_nft_rule(port, network) for port in ports if _nft_takes(family, network)]
        if not rules:
            continue
        start = text.rfind("\n", 0, hook.start()) + 1
        indent = text[start : len(text) - len(text[start:].lstrip(" \t"))]
        lines = "".join(f"{indent}{rule}\n" for rule in rules)
        if hook["rest"].strip():  # more of the chain on this line: it goes on below ours
            text = f"{text[: hook.end()]}\n{lines}{indent}{text[hook.end() :].lstrip()}"
        else:
            below = hook.end("rest") + 1
            text = text[:below] + lines + text[below:]
    return text


def _input_chains(code: str) -> Iterator[tuple[re.Match[str], str]]:
    """The lines that hook input, each with the family of the table it is in."""
    for hook in _NFT_INPUT.finditer(code):
        for table in _NFT_TABLE.finditer(code, 0, hook.start()):
            between = code[table.end() : hook.start()]
            if between.count("{") - between.count("}") == 1:  # in this table, in one of its chains
                yield hook, table[1] or "ip"


def _nft_takes(family: str, network: Network | None) -> bool:
    """Whether a table of this family takes such a rule: nft refuses a file that mixes them."""
    if network is None:
        return family in ("inet", "ip", "ip6")
    return family == "inet" or family == ("ip" if network.version == 4 else "ip6")


def _nft_rule(port: Port, network: Network | None) -> str:
    origin = "" if network is None else f"{'ip' if network.version == 4 else 'ip6'} saddr {network} "
    return f'{origin}{port.protocol} dport {port.span("-")} accept comment "{MARK}"'


# firewalld

_ZONE_END = re.compile(r"</zone\s*>(?=(?:\s|<!--.*?-->)*\Z)", re.DOTALL)


def with_firewalld(text: str, ports: Sequence[Port], network: Network | None) -> str:
    """A zone's XML. Only added to: firewalld drops comments, so nothing would tell ours from others'."""
    zone = _zone(text)
    new = "".join(_zone_rule(port, network) for port in ports if not _is_open(zone, port, network))
    if not new:
        return text
    if not _ZONE_END.search(text):
        text = re.sub(r"<zone\b([^<>]*)/>", r"<zone\1>\n</zone>", text)
    return _ZONE_END.sub(lambda end: new + end[0], text, count=1)


def _zone(text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text:
        raise ValueError("a zone has no document type")
    try:
        zone = ElementTree.fromstring(text)  # noqa: S314 (without a document type there are no entities)
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"it is not XML ({error})") from error
    if zone.tag != "zone":
        raise ValueError(f"it holds a {zone.tag}, not a zone")
    return zone


def _is_open(zone: ElementTree.Element, port: Port, network: Network | None) -> bool:
    wanted = ElementTree.fromstring(_zone_rule(port, network))  # noqa: S314 (written below)
    return any(_shape(element) == _shape(wanted) for element in zone.findall(wanted.tag))


def _shape(element: ElementTree.Element) -> tuple[object, ...]:
    return element.tag, dict(element.attrib), [_shape(child) for child in element]


def _zone_rule(port: Port, network: Network | None) -> str:
    element = f'<port port="{port.span("-")}" protocol="{port.protocol}"/>'
    if network is None:
        return f"  {element}\n"
    return (
        f'  <rule family="ipv{network.version}">\n    <source address="{network}"/>\n    {element}\n'
        "    <accept/>\n  </rule>\n"
    )
