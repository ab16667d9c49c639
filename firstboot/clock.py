"""The clock of a board that has none: never before the bake, right as soon as a master has told the time.

Runs on the node too: Python 3.7, standard library only.
"""

import calendar
import time
from typing import Optional

from firstboot.programs import run

KEPT = "/etc/fake-hwclock.data"
"""fake-hwclock's, as ``YYYY-MM-DD HH:MM:SS`` in UTC."""

_KEPT_AS = "%Y-%m-%d %H:%M:%S"

NEAR = 60
"""Seconds: a clock that is wrong by no more is left to NTP."""


def floor(saved: str, not_before: Optional[str]) -> int:
    """Seconds since 1970 before which this moment cannot be; 0 where nothing tells."""
    return max(_seconds(saved.strip(), _KEPT_AS), _seconds(not_before or "", "%Y-%m-%d"))


def kept(moment: int) -> bytes:
    """What fake-hwclock keeps of seconds since 1970."""
    return time.strftime(f"{_KEPT_AS}\n", time.gmtime(moment)).encode()


def _seconds(text: str, form: str) -> int:
    try:
        return calendar.timegm(time.strptime(text, form))
    except (ValueError, OverflowError):
        return 0


def corrected(now: float, told: int, joined: bool) -> Optional[int]:
    """The time to set after a master has told its own; None: leave the clock alone.

    Back only before the first join: K3s's certificates would lie in the future of a clock that goes back.
    """
    if abs(told - now) <= NEAR or (joined and told < now):
        return None
    return told


def is_synchronised() -> bool:
    """NTP keeps it, by whichever program."""
    _, said, _ = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"], limit=20)
    return said.strip() == b"yes"


def set_clock(moment: int) -> None:
    """OSError where this process may not."""
    time.clock_settime(time.CLOCK_REALTIME, moment)
