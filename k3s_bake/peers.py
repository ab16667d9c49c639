"""How large files get to nodes: from here, from the web, or from other nodes that have them already."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bake.artifacts import Link
from firstboot.edits import Place
from firstboot.errors import UserError, WorkFailed
from k3s_bake.remote import Remote

_SLOTS = 2
"""Nodes that take a file from the same one at once. A Pi 4 sends faster than a card is written. A Pi 3's
network is full with one; two take no longer than one after the other."""

_ENOUGH = 2
"""Times that it did not work, until it is given up: a firewall, say, or no way between the nodes."""

_LEAVES = 120.0
"""Seconds that a node waits with its restart for those who take from it."""

_SMALL = 1 << 20
"""Bytes below which it is sent from here: it takes no longer."""


class Taker(Protocol):
    """A machine, as adopt's."""

    remote: Remote

    @property
    def outcome(self) -> Any: ...

    def tell(self, phase: str, reason: str = "") -> None: ...


@dataclass(eq=False)
class _Holder:
    node: Taker
    sha256: str
    url: str
    takers: int = 0
    is_leaving: bool = False


class Peers:
    """Of one run. ``share``: a file goes from here to one node, and from there to the others."""

    def __init__(self, *, share: bool = False) -> None:
        self._share = share
        self._news = asyncio.Condition()
        self._holders: list[_Holder] = []
        self._begun: set[str] = set()
        """Files on their way from here to a first node."""
        self._failed = 0

    async def bring(self, node: Taker, edit: Place, sources: Mapping[str, Path | Link]) -> None:
        """To where ``apply`` finds it. WorkFailed where that cannot be: the next run goes on with what went
        from here, or came from the web."""
        source = sources.get(edit.sha256)
        if isinstance(source, Path) and self._share and edit.size >= _SMALL:
            await self._shared(node, edit, source)
        else:
            await _put(node, edit, source)

    async def leave(self, node: Taker) -> None:
        """Nobody takes anything from it any more: it is about to restart. Those who do are waited for, a
        while: then they are sent it from here."""
        async with self._news:
            own = [one for one in self._holders if one.node is node]
            for one in own:
                one.is_leaving = True
            if any(one.takers for one in own):
                node.tell("handing on")
            with contextlib.suppress(TimeoutError):
                handed = self._news.wait_for(lambda: not any(one.takers for one in own))
                await asyncio.wait_for(handed, _LEAVES)
            self._holders = [one for one in self._holders if one.node is not node]
            self._news.notify_all()

    async def _shared(self, node: Taker, edit: Place, source: Path) -> None:
        holder = await self._source(node, edit)
        try:
            if holder is None:
                await _put(node, edit, source)
            elif not await _taken(node, edit, holder):
                await _put(node, edit, source)  # fails, too, where the fault is the node's own
                holder.is_leaving = True
                self._failed += 1
            if self._failed < _ENOUGH:
                await self._offer(node, edit)
        finally:
            async with self._news:
                if holder is None:
                    self._begun.discard(edit.sha256)
                else:
                    holder.takers -= 1
                self._news.notify_all()

    async def _source(self, node: Taker, edit: Place) -> _Holder | None:
        """Whoever has a place free; None: it is sent from here."""
        async with self._news:
            if not self._may_begin(edit.sha256):
                node.tell("waiting", _name(edit))
            await self._news.wait_for(lambda: self._may_begin(edit.sha256))
            holder = self._free(edit.sha256)
            if holder is None:
                self._begun.add(edit.sha256)
            else:
                holder.takers += 1
            return holder

    def _may_begin(self, sha256: str) -> bool:
        if self._failed >= _ENOUGH or self._free(sha256):
            return True
        is_held = any(one.sha256 == sha256 and not one.is_leaving for one in self._holders)
        return not is_held and sha256 not in self._begun

    def _free(self, sha256: str) -> _Holder | None:
        """The one with the fewest takers."""
        if self._failed >= _ENOUGH:
            return None
        fit = [one for one in self._holders if one.sha256 == sha256 and not one.is_leaving]
        return min((one for one in fit if one.takers < _SLOTS), key=lambda one: one.takers, default=None)

    async def _offer(self, node: Taker, edit: Place) -> None:
        address = node.outcome.address
        try:
            answer = await node.remote.call("offer", sha256=edit.sha256, address=address) if address else {}
            port = int(answer.get("port", 0))
        except (UserError, TypeError, ValueError):
            port = 0
        if 0 < port < 1 << 16:  # others will ask there, on the word of a node
            self._holders.append(_Holder(node, edit.sha256, f"http://{address}:{port}/{edit.sha256}"))
        else:
            self._failed += 1


async def _taken(node: Taker, edit: Place, holder: _Holder) -> bool:
    """Whether it could be had there."""
    node.tell("fetching", f"{_name(edit)} from {holder.node.outcome.address}")
    link = Link(holder.url, _name(edit), edit.sha256, edit.size)
    try:
        await node.remote.put(link, edit.sha256, edit.size, node.outcome.count, peer=True)
    except WorkFailed:
        return False
    return True


async def _put(node: Taker, edit: Place, source: Path | Link | None) -> None:
    node.tell("fetching" if isinstance(source, Link) else "sending", _name(edit))
    await node.remote.put(source, edit.sha256, edit.size, node.outcome.count)


def _name(edit: Place) -> str:
    return edit.path.rpartition("/")[2]
