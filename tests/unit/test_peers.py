"""Who gets a large file from whom: nodes are stood in for, and take as long as they are told."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.artifacts import Link
from firstboot.edits import Place
from firstboot.errors import WorkFailed
from k3s_bake import peers
from k3s_bake.peers import Peers

pytestmark = pytest.mark.unit

K3S = Place("/usr/local/bin/k3s", "aa", 50_000_000, 0o755)
HERE: Mapping[str, Path | Link] = {"aa": Path("/k3s")}


class Node:
    """A machine, and its remote end. ``is_well`` says whether it takes a file from there."""

    def __init__(self, number: int, is_well: Callable[[str], bool] = lambda source: True) -> None:
        self.outcome = SimpleNamespace(address=f"10.0.0.{number}", count=lambda _: None)
        self.remote: Any = self
        self.is_well = is_well
        self.sources: list[str] = []
        """From where it got, or tried to get, the file."""
        self.told: list[tuple[str, str]] = []
        self.steps = 3
        self.port: Any = 4000

    def tell(self, phase: str, reason: str = "") -> None:
        self.told.append((phase, reason))

    async def put(self, source: Path | Link, *_: Any, peer: bool = False) -> None:
        where = source.url.split("/")[2].split(":")[0] if isinstance(source, Link) else "here"
        assert peer == (where != "here")
        self.sources.append(where)
        for _ in range(self.steps):
            await asyncio.sleep(0)
        if not self.is_well(where):
            raise WorkFailed("it does not get it")

    async def call(self, verb: str, **values: Any) -> dict[str, Any]:
        assert (verb, values) == ("offer", {"sha256": "aa", "address": self.outcome.address})
        return {"port": self.port}


async def bring(made: Peers, nodes: list[Node]) -> list[BaseException | None]:
    return await asyncio.gather(*(made.bring(node, K3S, HERE) for node in nodes), return_exceptions=True)


def sources(nodes: list[Node]) -> list[list[str]]:
    return [node.sources for node in nodes]


def test_it_goes_from_here_once() -> None:
    nodes = [Node(number) for number in range(20)]
    assert not any(asyncio.run(bring(Peers(share=True), nodes)))
    assert nodes[0].sources == ["here"]
    assert nodes[0].told == [("sending", "k3s")]
    assert nodes[1].told == [("waiting", "k3s"), ("fetching", "k3s from 10.0.0.0")]
    assert all(len(node.sources) == 1 and node.sources != ["here"] for node in nodes[1:])
    assert max(Counter(one for node in nodes for one in node.sources).values()) <= 8, "they hand it on"


def test_not_more_than_two_take_it_from_the_same_at_once() -> None:
    busy, most = Counter[str](), Counter[str]()

    class Counting(Node):
        async def put(self, source: Path | Link, *rest: Any, peer: bool = False) -> None:
            where = source.url if isinstance(source, Link) else "here"
            busy[where] += 1
            most[where] = max(most[where], busy[where])
            await super().put(source, *rest, peer=peer)
            busy[where] -= 1

    nodes: list[Node] = [Counting(number) for number in range(20)]
    for node in nodes:
        node.steps = random.Random(node.outcome.address).randrange(50)
    asyncio.run(bring(Peers(share=True), nodes))
    assert max(most.values()) == 2


@pytest.mark.parametrize(
    ("peers", "edit", "given"),
    [
        (Peers(), K3S, HERE),
        (Peers(share=True), Place("/agent", "aa", 90_000, 0o644), HERE),
        (Peers(share=True), K3S, {"aa": Link("https://here/k3s", "k3s", "aa", K3S.size)}),
        (Peers(share=True), K3S, {}),
    ],
    ids=["not wanted", "small", "from the web", "kept there"],
)
def test_what_is_not_shared(peers: Peers, edit: Place, given: Mapping[str, Path | Link]) -> None:
    async def put(*_: Any) -> None:
        pass

    nodes = [Node(number) for number in range(3)]
    for node in nodes:
        node.put = put  # type: ignore[method-assign, assignment]
        asyncio.run(peers.bring(node, edit, given))
        assert node.told == [
            ("fetching" if isinstance(given.get("aa"), Link) else "sending", node.told[0][1])
        ]


def test_the_next_is_sent_it_where_the_first_is_lost() -> None:
    nodes = [Node(0, lambda _: False), *(Node(number) for number in range(1, 5))]
    failed = asyncio.run(bring(Peers(share=True), nodes))
    assert [type(one) for one in failed] == [WorkFailed, *[type(None)] * 4]
    assert sources(nodes[:2]) == [["here"], ["here"]]
    assert all(node.sources == ["10.0.0.1"] or "here" not in node.sources for node in nodes[2:])


def test_where_nodes_do_not_reach_each_other_all_are_sent_it() -> None:
    nodes = [Node(number, lambda source: source == "here") for number in range(30)]
    assert not any(asyncio.run(bring(Peers(share=True), nodes)))
    assert all(node.sources[-1] == "here" for node in nodes)
    assert sum(len(node.sources) - 1 for node in nodes) <= 3, "soon it is not tried any more"


@pytest.mark.parametrize("port", [0, 70_000, -1, "", "80@10.9.9.9/", None])
def test_a_node_does_not_say_where_others_ask(port: Any) -> None:
    nodes = [Node(number) for number in range(10)]
    for node in nodes:
        node.port = port
    assert not any(asyncio.run(bring(Peers(share=True), nodes)))
    assert all(node.sources == ["here"] for node in nodes)


def test_where_no_address_is_known_nobody_waits_for_the_others() -> None:
    nodes = [Node(number) for number in range(10)]
    for node in nodes:
        node.outcome.address = ""

    async def work() -> None:
        made = Peers(share=True)
        for node in nodes[:2]:
            await made.bring(node, K3S, HERE)
        await bring(made, nodes)

    asyncio.run(work())
    assert not any(("waiting", "k3s") in node.told for node in nodes)


def test_a_restart_is_not_held_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_LEAVES", 0.01)

    async def work() -> None:
        made = Peers(share=True)
        first, second = Node(1), Node(2)
        await bring(made, [first])
        second.steps = 1 << 60
        taking = asyncio.create_task(made.bring(second, K3S, HERE))
        while not second.sources:
            await asyncio.sleep(0)
        await made.leave(first)
        assert not taking.done()
        assert first.told[-1] == ("handing on", "")
        taking.cancel()

    asyncio.run(work())


def test_one_that_restarts_is_waited_for_and_then_not_asked() -> None:
    async def work() -> None:
        peers = Peers(share=True)
        first, second, third = nodes = [Node(number) for number in range(3)]
        second.steps = 30
        await bring(peers, nodes[:1])
        taking = asyncio.create_task(peers.bring(second, K3S, HERE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await peers.leave(first)
        assert second.sources == ["10.0.0.0"]
        assert taking.done()
        await peers.leave(second)
        await peers.bring(third, K3S, HERE)
        assert third.sources == ["here"], "both have left"

    asyncio.run(work())


@given(
    st.lists(
        st.tuples(st.sampled_from(["well", "dead", "walled", "restarts"]), st.integers(0, 20)), max_size=12
    )
)
def test_whoever_can_has_it_in_the_end(kinds: list[tuple[str, int]]) -> None:
    """And nobody waits for ever: that would not end."""
    fit: dict[str, Callable[[str], bool]] = {
        "dead": lambda _: False,
        "walled": lambda source: source == "here",
    }
    nodes = [Node(number, fit.get(kind, lambda _: True)) for number, (kind, _) in enumerate(kinds)]

    async def one(peers: Peers, node: Node, kind: str) -> None:
        await peers.bring(node, K3S, HERE)
        if kind == "restarts":
            await peers.leave(node)

    async def work() -> list[BaseException | None]:
        peers = Peers(share=True)
        for node, (_, steps) in zip(nodes, kinds, strict=True):
            node.steps = steps
        steps = (one(peers, node, kind) for node, (kind, _) in zip(nodes, kinds, strict=True))
        return await asyncio.gather(*steps, return_exceptions=True)

    failed = asyncio.run(work())
    assert [one is not None for one in failed] == [kind == "dead" for kind, _ in kinds]
