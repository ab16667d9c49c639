"""Watching machines boot: what each said last, and whether all are where they should be."""

from collections.abc import Iterable
from dataclasses import dataclass

from bake.emulator import console
from bake.emulator.console import Word
from firstboot.contract import PHASES, REASONS

_SHOWN = {
    console.KERNEL: "the kernel starts",
    console.RESTARTING: "restarts",
    console.LOGIN: "login prompt",
    console.PANIC: "kernel panic",
    console.OFF: "is off",
}


@dataclass(frozen=True)
class Event:
    seconds: float
    """Since the machines were switched on."""
    machine: str
    what: str
    reason: str = ""
    node: str = ""

    @property
    def text(self) -> str:
        return told(Word(self.what, self.reason))


def told(word: Word) -> str:
    return _SHOWN.get(word.what, word.what) + (f" ({word.reason})" if word.reason else "")


class Watch:
    """``until`` is what all machines should say: ``joined`` or ``login``; None: there is no such thing."""

    def __init__(self, machines: Iterable[str], until: str | None) -> None:
        self.last = {name: Word("") for name in machines}
        self._until = until
        self._there: set[str] = set()

    def take(self, event: Event) -> None:
        self.last[event.machine] = Word(event.what, event.reason, event.node)
        if event.what == self._until:
            self._there.add(event.machine)
        elif event.what in (console.RESTARTING, console.PANIC, console.OFF, *PHASES):
            self._there.discard(event.machine)

    @property
    def done(self) -> bool:
        return self._until is not None and self._there == self.last.keys()

    @property
    def dead(self) -> list[str]:
        """Machines that say nothing more."""
        return [name for name, word in self.last.items() if word.what in (console.OFF, console.PANIC)]

    def report(self) -> str:
        """How far each machine is that is not where it should be."""
        late = {name: word for name, word in self.last.items() if name not in self._there}
        return ", ".join(
            f"{name}: {told(word) if word.what else 'said nothing'}" for name, word in late.items()
        )

    def remedy(self) -> str:
        """A sentence for the first reason that a machine gave; empty where there is none to give."""
        given = (REASONS[word.reason] for word in self.last.values() if word.reason in REASONS)
        return next(given, "") if self._until == "joined" else ""
