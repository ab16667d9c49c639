"""Cards as they come along, for people: a live table in a terminal, a line for each phase elsewhere."""

import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bake.card.flash import Flash, Job
from bake.card.write import Phase
from k3s_bake import report

_EVERY = 0.25
_ENDS = (Phase.DONE, Phase.FAILED)


def follow(flash: Flash, names: Sequence[str], total: int | None) -> None:
    """Until all cards are done, or have failed. ``names`` are theirs, ``total`` the bytes of each."""
    console = report.console(stderr=True)
    if not console.is_terminal:
        _say(flash, names, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            lasts = flash.wait(_EVERY)
            live.update(_table(flash.jobs, names, total), refresh=True)
            if not lasts:
                return


def _say(flash: Flash, names: Sequence[str], console: Console) -> None:
    said: dict[int, Phase] = {}
    lasts = True
    while lasts:
        lasts = flash.wait(_EVERY)
        for at, job in enumerate(flash.jobs):
            phase = job.state.phase
            if said.get(at) is not phase:
                said[at] = phase
                why = f": {job.error.message}" if job.error else ""
                console.print(report.shown(f"{job.target.path} {names[at]}: {phase}{why}".replace(" :", ":")))


def _table(jobs: Sequence[Job], names: Sequence[str], total: int | None) -> Group:
    made = Table.grid(padding=(0, 2))
    for job, name in zip(jobs, names, strict=True):
        state = job.state
        done = state.written + state.verified
        bar = ProgressBar(
            2 * total if total else None, done, width=30, pulse=total is None and state.phase not in _ENDS
        )
        phase = state.phase
        rate = state.rate(phase) if phase in (Phase.WRITING, Phase.VERIFYING) else 0.0
        made.add_row(
            report.shown(job.target.path),
            report.shown(name),
            phase.value if not job.error else f"[red]{phase}: {report.shown(job.error.message)}[/]",
            bar,
            f"{rate / 1e6:.0f} MB/s" if rate else "",
            _left(job, total),
        )
    parts = 2 * total * len(jobs) if total else 0
    done = sum(job.state.written + job.state.verified for job in jobs)
    overall = Text(f"all: {100 * done // parts} %" if parts else "")
    return Group(made, overall)


def _left(job: Job, total: int | None) -> str:
    left = seconds_left(job, total)
    return "" if left is None else f"{int(left // 60)}:{int(left % 60):02} left"


def seconds_left(job: Job, total: int | None) -> float | None:
    """With the time to read all back, at the rate of writing as long as that of reading is not known."""
    state = job.state
    if total is None or state.phase not in (Phase.WRITING, Phase.VERIFYING):
        return None
    writing = state.rate(Phase.WRITING)
    reading = state.rate(Phase.VERIFYING) or writing
    with suppress(ZeroDivisionError):
        return (total - state.written) / writing + (total - state.verified) / reading
    return None


def stamp_of_now() -> str:
    """ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
