"""One card, from its first byte to its last, so that it never looks valid before all of it is good.

Its first MiB is emptied before anything else, and its first block, which has the partition table, is written
after all the rest was read back. Whatever ends the work in between leaves a card that nothing boots from.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from bake.card import stamp
from bake.card.ahead import ahead
from bake.card.feed import Stopped
from bake.card.source import PIECE, Source, Span
from bake.card.target import BLOCK, CardFailed, Target, buffer
from bake.fat_layout import Place
from firstboot.contract import Credential

_EDGE = 1 << 20
"""Bytes at both ends: partition tables are there, and the copy that GPT keeps."""

_AHEAD = 1
"""Pieces."""

_FALSE = "It is smaller than it says, a false one: give it back."
_WORN = "Try it in another reader. If it happens again the card is worn out: use another one."


class Phase(StrEnum):
    WAITING = "waiting"
    PREPARING = "preparing"
    WRITING = "writing"
    VERIFYING = "verifying"
    STAMPING = "stamping"
    SEALING = "sealing"
    DONE = "done"
    FAILED = "failed"


@dataclass
class State:
    """How a card is coming along; written by its thread alone."""

    phase: Phase = Phase.WAITING
    written: int = 0
    """Bytes."""
    verified: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase, for each that has begun."""
    _entered: float = field(default_factory=time.monotonic, repr=False)

    def enter(self, phase: Phase) -> None:
        now = time.monotonic()
        if self.phase is not Phase.WAITING:
            self.seconds[self.phase.value] = self.seconds.get(self.phase.value, 0) + now - self._entered
        self.phase, self._entered = phase, now

    def rate(self, phase: Phase) -> float:
        """Bytes a second; 0 where nothing is known yet."""
        done = self.written if phase is Phase.WRITING else self.verified
        took = self.seconds.get(phase.value) or (
            time.monotonic() - self._entered if phase is self.phase else 0
        )
        return done / took if took > 0 else 0.0


@dataclass(frozen=True)
class Stamp:
    where: tuple[Place, ...]
    credential: Credential


class Card:
    def __init__(self, target: Target, state: State, stop: threading.Event, stamp: Stamp | None) -> None:
        self._target = target
        self._state = state
        self._stop = stop
        self._stamp = stamp
        self._first = buffer(BLOCK)
        self._first_size = 0

    def make(self, source: Source, pieces: Iterator[tuple[int, memoryview]]) -> None:
        """Write what ``pieces`` gives, verify it and stamp it. CardFailed for what the card does not take,
        WorkFailed for what the image is not, Stopped."""
        enter = self._enter
        enter(Phase.PREPARING)
        self._clear()
        if self._target.is_block:
            self._probe(source.size or 0)
        enter(Phase.WRITING)
        self._write(pieces)
        enter(Phase.VERIFYING)
        self._verify(source)
        if self._stamp:
            enter(Phase.STAMPING)
            stamp.put(self._target, self._stamp.where, self._stamp.credential)
        enter(Phase.SEALING)
        self._seal()
        self._state.enter(Phase.DONE)

    def _enter(self, phase: Phase) -> None:
        if self._stop.is_set():
            raise Stopped
        self._state.enter(phase)

    def _clear(self) -> None:
        zeros = buffer(min(_EDGE, self._target.size))
        self._target.write(0, zeros)
        self._target.flush()

    def _probe(self, image: int) -> None:
        """A false card takes what is written beyond its real size to some other place, or to nowhere. Only
        what the image does not reach is tried here: the rest is read back when it has been written."""
        size = self._target.size // BLOCK * BLOCK
        last = max(0, size - _EDGE) // BLOCK * BLOCK
        places = {at // BLOCK * BLOCK for at in (size // 2, size // 4 * 3, size // 8 * 7, size - BLOCK)}
        marks = {at: os.urandom(BLOCK) for at in sorted(places) if at >= max(image, _EDGE)}
        mark = buffer(BLOCK)
        for at, content in marks.items():
            mark[:] = content
            self._target.write(at, mark)
        self._target.flush()
        if any(self._target.read(0, _EDGE)) or any(
            self._target.read(at, BLOCK) != content for at, content in marks.items()
        ):
            raise CardFailed("it does not keep what is written near its end", _FALSE)
        for at in marks:
            self._target.write(at, buffer(BLOCK))
        if last >= max(image, _EDGE):
            self._target.write(last, buffer(size - last))
        self._target.flush()

    def _write(self, pieces: Iterator[tuple[int, memoryview]]) -> None:
        for at, piece in pieces:
            if self._stop.is_set():
                raise Stopped
            if at + len(piece) > self._target.size:
                raise CardFailed(
                    f"the image has more than the {self._target.size} bytes of the card", "Use a larger card."
                )
            if at == 0:
                self._first_size = min(BLOCK, len(piece))
                self._first[: self._first_size] = piece[: self._first_size]
                self._target.write(BLOCK, piece[BLOCK:])
            else:
                self._target.write(at, piece)
            self._state.written += len(piece)
        self._target.flush()

    def _verify(self, source: Source) -> None:
        """All of it but the first block, which is not there yet."""
        begin = 0
        with source.check() as is_right:
            for span, piece in self._read_back(source.spans()):
                if span.at == 0:
                    piece[: self._first_size] = self._first[: self._first_size]
                if not is_right(span, piece):
                    source.check_unchanged()
                    what = f"bytes {begin} to {span.at + span.size} do not read back as they were written"
                    raise CardFailed(what, _WORN)
                self._state.verified += len(piece)
                begin = span.at + span.size if span.last else begin

    def _read_back(self, spans: Iterator[Span]) -> Iterator[tuple[Span, memoryview]]:
        """Each piece is looked at while the next is read."""
        sector = self._target.sector
        rooms = [buffer(PIECE) for _ in range(_AHEAD + 2)]  # one is read, one looked at

        def read() -> Iterator[tuple[Span, memoryview]]:
            for span in spans:
                room = rooms[span.number % len(rooms)]
                self._target.read_into(span.at, room[: -(-span.size // sector) * sector])
                yield span, room[: span.size]

        for piece in ahead(read(), _AHEAD):
            if self._stop.is_set():
                raise Stopped
            yield piece

    def _seal(self) -> None:
        self._target.write(0, self._first[: self._first_size])
        self._target.flush()
        if self._target.read(0, self._first_size) != bytes(self._first[: self._first_size]):
            self._target.write(0, buffer(BLOCK))
            raise CardFailed("its first block does not read back as it was written", _WORN)
