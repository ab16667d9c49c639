"""What a machine's console tells: its first-boot agent's phases, and how far it is before there is one."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from firstboot.contract import PHASES

KERNEL, RESTARTING, LOGIN, PANIC, OFF = "kernel", "restarting", "login", "panic", "off"

_PHASE = re.compile(
    r"(?:^|[\s:])k3s-bake: (?P<node>[a-z0-9-]{1,63}): (?P<phase>[a-z]+)(?: \((?P<reason>[a-z0-9-]+)\))?\s*$"
)
_MILESTONES = {
    "k3s-bake emulator: the kernel is up": KERNEL,  # as the init beside this file says it
    "Kernel panic - not syncing": PANIC,
}
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cM])")
_LONGEST = 65_536  # characters of a line: what comes without an end is let go of


@dataclass(frozen=True)
class Word:
    """One thing that a console told."""

    what: str
    """A phase of the first-boot agent, or one of the constants above."""
    reason: str = ""
    """A reason code of that phase."""
    node: str = ""
    """The name that the node gives itself."""


class Scanner:
    """Console output, in pieces as they come, to the words in it."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._asked = False

    def feed(self, piece: bytes) -> Iterator[Word]:
        *lines, self._line = (self._line + self._decoder.decode(piece)).split("\n")
        for line in lines:
            self._asked = False
            yield from _words(line)
        self._line = self._line[-_LONGEST:]
        if self._line.endswith("login: ") and not self._asked:  # a prompt has no line end
            self._asked = True
            yield Word(LOGIN)

    def end(self) -> Iterator[Word]:
        """What the last line told, which nothing ended."""
        line, self._line = self._line, ""
        yield from _words(line)


def _words(line: str) -> Iterator[Word]:
    plain = _ESCAPES.sub("", line).rstrip("\r")
    for text, what in _MILESTONES.items():
        if text in plain:
            yield Word(what)
    found = _PHASE.search(plain)
    if found and found["phase"] in PHASES:
        yield Word(found["phase"], found["reason"] or "", found["node"])
