"""Cards as they are put into a reader, one after the other."""

from collections.abc import Callable, Sequence

from bake.card.devices import Judged, Verdict

Look = Callable[[], Sequence[Judged]]


class Slots:
    """Which card is a new one. A reader's device stays when its card goes, and has no size then."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._last = {one.device.number: one for one in look()}
        self._there = set(self._last)
        self._done: set[str] = set()
        self._told: set[str] = set()

    def ready(self, *, only_new: bool) -> list[Judged]:
        """Those that no node has been written to since they were put in; ``only_new``: put in since this
        was made, and no loop devices, which any program may make.

        A card is taken when two looks agree on it: udev takes a moment to find out what is on a disk.
        """
        now = {one.device.number: one for one in self._look()}
        settled = [one for number, one in now.items() if self._last.get(number) == one]
        self._last = now
        out = {number for number, one in now.items() if not one.device.size}
        for known in (self._done, self._there, self._told):
            known -= out
            known &= now.keys()
        spent = self._done | (self._there if only_new else set())
        return [
            one
            for one in settled
            if one.verdict is Verdict.CARD
            and one.device.number not in spent
            and not (only_new and one.device.kind == "loop")
        ]

    def refused(self) -> list[Judged]:
        """What was put in and is not taken, each once: as ``ready`` has seen it last."""
        new = [
            one
            for number, one in self._last.items()
            if one.verdict is not Verdict.CARD and one.device.size and number not in self._there | self._told
        ]
        self._told |= {one.device.number for one in new}
        return new

    def take(self, card: Judged) -> None:
        """It has become a node, or is not to be one: not offered again before it was out."""
        self._done.add(card.device.number)
