"""The nodes that are heard, for people: who they are, how far, and what to do about those that wait."""

from collections.abc import Iterable, Sequence

from rich.table import Column, Table

from firstboot.contract import REASONS, Announcement
from k3s_bake.report import shown

FORGOTTEN = 30.0
"""Seconds without a word after which a node is gone: over Wi-Fi, a round or two unheard says nothing."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_COLOURS = {"joined": "green", "blocked": "red"}

Identity = tuple[str, str, str]


def identity(node: Announcement) -> Identity:
    """Two boards under one name, from a copied card, are two."""
    return node.cluster, node.name, node.serial


def in_order(nodes: Iterable[Announcement]) -> list[Announcement]:
    """By cluster, masters first."""
    return sorted(nodes, key=lambda node: (node.cluster, node.role != "master", node.name, node.serial))


def table(nodes: Sequence[Announcement], now: float) -> Table:
    """A row a node; the cluster's name is a column where there are several. ``now`` in seconds since 1970."""
    several = len({node.cluster for node in nodes}) > 1
    names = ["cluster"] if several else []
    names += [
        "name",
        "role",
        "phase",
        "reason",
        "address",
        "serial",
        "K3s",
        "since",
        "configured",
        "installed",
    ]
    made = Table(*(Column(name, overflow="fold") for name in names), box=None, pad_edge=False)
    for node in in_order(nodes):
        colour = _COLOURS.get(node.phase, "yellow")
        row = [shown(node.cluster)] if several else []
        row += [shown(node.name), node.role, f"[{colour}]{shown(node.phase)}[/]", shown(node.reason)]
        row += [shown(node.addr), shown(node.serial), shown(node.k3s), age(node.since, now)]
        made.add_row(*row, _seconds(node.conf), _seconds(node.inst))
    return made


def remedies(nodes: Sequence[Announcement]) -> list[str]:
    """A line for each reason that a node gives: what to do, and which nodes it is about."""
    told: dict[str, list[str]] = {}
    for node in in_order(nodes):
        if node.reason:
            told.setdefault(node.reason, []).append(node.name)
    return [
        f"{reason} ({', '.join(dict.fromkeys(names))}): {REASONS[reason]}" for reason, names in told.items()
    ]


def age(since: int, now: float) -> str:
    """``5 min`` since a moment; empty where unknown, or yet to come: boards start with a wrong clock."""
    passed = int(now) - since
    if not since or passed < -60:
        return ""
    size, unit = next(((size, unit) for size, unit in _UNITS if passed >= size), (1, "s"))
    return f"{max(0, passed) // size} {unit}"


def _seconds(text: str) -> str:
    return f"{text} s" if text else ""


class Seen:
    """What was heard over several rounds, and what each round changed."""

    def __init__(self) -> None:
        self._nodes: dict[Identity, tuple[Announcement, float]] = {}

    def nodes(self) -> list[Announcement]:
        return in_order(node for node, _ in self._nodes.values())

    def update(self, heard: Iterable[Announcement], now: float) -> list[tuple[str, Announcement]]:
        """``new``, ``changed`` or ``gone``, with the node as it is, or was; ``now`` never goes back."""
        changes = []
        for node in in_order(heard):
            before = self._nodes.get(identity(node))
            if before is None or before[0] != node:
                changes.append(("new" if before is None else "changed", node))
            self._nodes[identity(node)] = node, now
        for key, (node, at) in list(self._nodes.items()):
            if now - at > FORGOTTEN:
                changes.append(("gone", node))
                del self._nodes[key]
        return changes
