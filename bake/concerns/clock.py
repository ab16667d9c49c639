"""The clock: a Pi has none of its own, and starts from the time that fake-hwclock has kept.

A stock image starts years back, and a master would make its certificates in that time, before NTP answers.
"""

import datetime
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit
from firstboot.snapshot import Probe

_KEPT = "/etc/fake-hwclock.data"
_FORMAT = "%Y-%m-%d %H:%M:%S"  # in UTC

PROBES = (Probe(_KEPT),)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    day = spec.not_before
    if day is None or not facts.has("fake-hwclock"):
        return
    kept = _date(facts.text(_KEPT) or "")
    if kept is None or kept < day:
        yield facts.rewritten(_KEPT, f"{day.isoformat()} 00:00:00\n")


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(text.strip(), _FORMAT).date()
    except ValueError:
        return None
