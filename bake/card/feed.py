"""One reading of an image for many cards.

A card that falls behind by more than the buffers hold reads on by itself: it must not hold up the others.
"""

import threading
from collections import deque
from collections.abc import Generator
from functools import partial

from bake.card.source import PIECE, Source
from bake.card.target import buffer

_FEW, _MANY = 3, 8
"""Buffers of PIECE bytes: for one card, where they stay in the processor's cache, and for all of several."""


class Stopped(Exception):
    """Nobody wants it any more."""


class Feed:
    """``run`` reads, in a thread of its own, as long as a card is fed by it; each card takes ``pieces``."""

    def __init__(self, source: Source, cards: int, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._changed = threading.Condition()
        self._free = [buffer(PIECE) for _ in range(_FEW if cards == 1 else _MANY)]
        self._held: deque[tuple[int, memoryview, memoryview]] = deque()
        """Where it goes, the piece, and the buffer that it lies in; ascending."""
        self._oldest = 0
        """The number of the first of them."""
        self._fed = dict.fromkeys(range(cards), 0)
        """The number of the piece that each card works at, or waits for."""
        self._ended = False
        self.ended = threading.Event()
        """Nothing is read any more."""
        self._failure: Exception | None = None
        self._room = self._free[0]

    def run(self) -> None:
        try:
            for at, piece in self._source.pieces(self._take):
                with self._changed:
                    self._held.append((at, piece, self._room))
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 (each card is told)
            self._failure = error
        with self._changed:
            self._ended = True
            self._release()
        self.ended.set()

    def pieces(self, card: int) -> Generator[tuple[int, memoryview], None, None]:
        """For one card: good until the next is asked for. Stopped, or what reading failed of."""
        number = 0
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(partial(self._is_settled, card, number))
                    if card not in self._fed:
                        break
                    at = number - self._oldest
                    if at == len(self._held):
                        self._raise()
                        return
                    found = self._held[at]
                yield found[0], found[1]
                number += 1
                with self._changed:
                    if card in self._fed:
                        self._fed[card] = number
                        self._release()
        finally:
            self.leave(card)
        own = buffer(PIECE)
        for one in self._source.pieces(lambda: own, number):
            if self._stop.is_set():
                raise Stopped
            yield one

    def leave(self, card: int) -> None:
        """It takes nothing any more, if ever it has."""
        with self._changed:
            self._fed.pop(card, None)
            self._release()

    def _is_settled(self, card: int, number: int) -> bool:
        return (
            card not in self._fed
            or self._ended
            or self._stop.is_set()
            or number < self._oldest + len(self._held)
        )

    def _raise(self) -> None:
        if self._stop.is_set():
            raise Stopped
        if self._failure:
            raise self._failure

    def _release(self) -> None:
        """The buffers of pieces that every card has done with."""
        needed = min(self._fed.values(), default=self._oldest + len(self._held))
        while self._held and self._oldest < needed:
            self._free.append(self._held.popleft()[2])
            self._oldest += 1
        if self._ended:
            self._free.clear()  # reading back takes room, too
        self._changed.notify_all()

    def _take(self) -> memoryview:
        """A buffer to read to; where the slowest hold all and the fastest waits, they are left behind."""
        with self._changed:
            if self._stop.is_set():
                raise Stopped
            while not self._free:
                if self._stop.is_set() or not self._fed:
                    raise Stopped
                slowest = min(self._fed.values())
                if max(self._fed.values()) == self._oldest + len(self._held) > slowest:
                    self._leave_behind(slowest)
                else:
                    self._changed.wait(0.5)
            self._room = self._free.pop()
            return self._room

    def _leave_behind(self, slowest: int) -> None:
        """They may be writing from the oldest buffer right now: it is theirs from now on."""
        for card in [one for one, number in self._fed.items() if number == slowest]:
            del self._fed[card]
        self._held.popleft()
        self._oldest += 1
        self._free.append(buffer(PIECE))
        self._release()
