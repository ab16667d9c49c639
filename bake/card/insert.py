"""Cards as they are put into a reader, one after the other."""

from collections.abc import Callable, Iterator, Sequence

from bake.card.devices import Judged, Verdict

Look = Callable[[], Sequence[Judged]]


class Slots:
    """Which card is a new one. A reader's device stays when its card goes, and has no size then."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._there = {one.device.number for one in self._cards()}
        self._done: set[str] = set()

    def ready(self, *, only_new: bool) -> list[Judged]:
        """Those that no node has been written to since they were put in; ``only_new``: put in since this
        was made, and no loop devices, which any program may make."""
        cards = {one.device.number: one for one in self._cards() if not only_new or one.device.kind != "loop"}
        self._done &= cards.keys()
        self._there &= cards.keys()
        spent = self._done | (self._there if only_new else set())
        return [one for number, one in cards.items() if number not in spent]

    def take(self, card: Judged) -> None:
        """It has become a node, or is not to be one: not offered again before it was out."""
        self._done.add(card.device.number)

    def _cards(self) -> Iterator[Judged]:
        return (one for one in self._look() if one.verdict is Verdict.CARD)
