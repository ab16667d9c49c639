"""The nodes of a cluster.toml, one card after the other, as a person puts them in."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bake.cache import Home
from bake.card import choice, claim, found, order, receipt
from bake.card.devices import Judged
from bake.card.flash import Interrupted
from bake.card.insert import Slots
from bake.card.source import Source
from bake.card.stamp import Stampable
from bake.cluster_file import ClusterFile, NodeEntry
from firstboot.errors import UserError
from k3s_bake import flashing, report
from k3s_bake.flashing import Order, Result

_EVERY = 0.5
Ask = Callable[[str], bool]


@dataclass(frozen=True)
class Planned:
    """A node, and the image that its card is written from."""

    entry: NodeEntry
    name: str
    source: Source
    what: Stampable


def plan(file: ClusterFile, images: Sequence[Path], *, use_map: bool) -> list[Planned]:
    """An image for each node: its own, or its role's. UserError where there is none.

    ``images``: where none are named, those that ``k3s-bake image`` makes in this folder.
    """
    if not file.nodes:
        raise UserError(
            "the file has no [[node]]", "Each [[node]] is a card; 'k3s-bake flash IMAGE CARD' needs none."
        )
    names = [node.name for node in file.nodes]
    if None in names:
        raise UserError("a [[node]] has no name", "Each card is a node of its own, and needs one.")
    if len([node for node in file.nodes if node.role.value == "master" and not node.join]) > 1:
        raise UserError(
            "two [[node]] are masters that start a cluster",
            "All but one: join = true, and baked with --join.",
        )
    cluster = file.name or "k3s"
    known = list(_known(images or list(_usual(file, cluster)), cluster, use_map=use_map))
    return [_planned(node, known, cluster) for node in file.nodes]


def _usual(file: ClusterFile, cluster: str) -> Iterator[Path]:
    for what in dict.fromkeys(word for node in file.nodes for word in (node.name, node.role.value)):
        path = Path(f"{cluster}-{what}.img")
        if path.exists():
            yield path


def _known(images: Sequence[Path], cluster: str, *, use_map: bool) -> Iterator[tuple[Source, Stampable]]:
    for path in images:
        source = Source(path, use_map=use_map)
        what = order.stampable(source)
        order.require(what, source, None)
        if what and what.cluster != cluster:
            raise UserError(f"{path} is of the cluster '{what.cluster}'", f"The file is of '{cluster}'.")
        if what:
            yield source, what


def _planned(node: NodeEntry, known: Sequence[tuple[Source, Stampable]], cluster: str) -> Planned:
    name = node.name or ""
    own = [one for one in known if one[1].name == name]
    joins = node.role.value == "worker" or bool(node.join)
    alike = [
        one
        for one in known
        if (one[1].role, one[1].joins) == (node.role.value, joins) and one[1].name is None
    ]
    for source, what in own or alike:
        if what.role != node.role.value:
            raise UserError(
                f"{source.path} is of a {what.role}, and {name} is a {node.role}", "Bake it again."
            )
        if not what.name:  # the image of one node has its address
            order.require(what, source, node.address)
        return Planned(node, name, source, what)
    further = " --join" if node.join else ""
    raise UserError(
        f"no image for {name}, a {node.role}",
        f"k3s-bake image --role {node.role}{further} --cluster {cluster}, here; or name its image.",
    )


def go(planned: Sequence[Planned], home: Home, ask: Ask | None, *, again: bool) -> Iterator[Result]:
    """Each card as it is done, or has failed; then the next is for the same node. Nodes that have a card are
    left out, unless ``again``. Without ``ask`` each card that is put in from now on is taken."""
    console = report.console(stderr=True)
    had: Mapping[str, object] = {}
    if planned:
        had = receipt.named(receipt.history(home), planned[0].what.cluster)
    left = [one for one in planned if again or one.name not in had]
    for one in planned:
        if one not in left:
            console.print(f"{report.shown(one.name)} has a card already; --again writes another one.")
    slots = Slots(found.devices)
    for at, one in enumerate(left, 1):
        what = f"{one.name}, a {one.entry.role}, from {one.source.path.name}"
        console.print(f"[bold]{at} of {len(left)}:[/] put in the card for {report.shown(what)}")
        while True:
            card = _wait(slots, one.name, ask)
            result = _write(one, card, home, again=again)
            slots.take(card)
            yield result
            if isinstance(result.error, Interrupted):
                return
            console.print("Take it out." + (" Another one, please." if result.error else ""))
            if result.error is None:
                break


def _wait(slots: Slots, name: str, ask: Ask | None) -> Judged:
    """For a card that was put in and that the person wants to be that node."""
    while True:
        for card in slots.ready(only_new=ask is None):
            words = choice.words(card.device)
            what = f"{words['device']} ({words['size']} {words['what']}"
            what += f"; on it: {words['on it']})" if words["on it"] else ")"
            if ask is None or ask(f"Erase {report.plain(what)} and make it {name}?"):
                return card
            slots.take(card)
        for other in slots.refused():
            path, why = other.device.path, "; ".join(other.reasons)
            report.console(stderr=True).print(report.shown(f"{path} is not taken: {why}"))
        time.sleep(_EVERY)


def _write(one: Planned, card: Judged, home: Home, *, again: bool) -> Result:
    say = report.console(stderr=True).print
    more = asdict(one.entry.address) if one.entry.address and not one.what.name else {}
    path = Path(card.device.path)
    made = Order(one.source, one.what, [path], [one.name], home, lambda line: say(report.shown(line)), more)
    try:
        choice.check_size(card.device, one.source.size)
        with claim.names(one.what, [one.name], 1, home, again=again):
            return flashing.write(made, [card])[0]  # what was asked about, and nothing that is there now
    except UserError as error:  # the next card may be better
        return Result(path, one.name, error, None)
