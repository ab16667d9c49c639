"""Cards as they come along, for people: a live table in a terminal, a line for each phase elsewhere."""

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bake.card.flash import Flash, Job
from bake.card.write import Phase, State
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
    said: list[set[Phase]] = [{Phase.WAITING} for _ in flash.jobs]
    lasts = True
    while lasts:
        lasts = flash.wait(_EVERY)
        for at, job in enumerate(flash.jobs):
            for phase in [*map(Phase, list(job.state.seconds)), job.state.phase]:
                if phase in said[at]:
                    continue
                said[at].add(phase)
                who = " ".join(filter(None, [str(job.target.path), names[at]]))
                why = f": {job.error.message}" if job.error and phase is Phase.FAILED else ""
                console.print(report.shown(f"{who}: {phase}{why}"))


def _table(jobs: Sequence[Job], names: Sequence[str], total: int | None) -> Group:
    made = Table.grid(padding=(0, 2))
    for job, name in zip(jobs, names, strict=True):
        made.add_row(*_row(job, name, total))
    well = [job for job in jobs if not job.error]
    if total is None or not well:
        return Group(made)
    done = sum(job.state.written + job.state.verified for job in well)
    left = max((seconds_left(job.state, total) or 0.0 for job in well), default=0.0)
    return Group(made, Text(f"all: {100 * done // (2 * total * len(well))} %{_words(left)}"))


def _row(job: Job, name: str, total: int | None) -> Iterator[RenderableType]:
    state, phase = job.state, job.state.phase
    done = state.written + state.verified
    reading = phase not in (Phase.WAITING, Phase.PREPARING, Phase.WRITING)
    rate = state.rate(phase) if phase in (Phase.WRITING, Phase.VERIFYING) else 0.0
    bytes_done = f"{(state.verified if reading else state.written) / 1e6:.0f}"
    yield report.shown(job.target.path)
    yield report.shown(name)
    yield f"[red]{phase}: {report.shown(job.error.message)}[/]" if job.error else phase.value
    yield ProgressBar(
        2 * total if total else None,
        done,
        width=30,
        pulse=not total and phase not in _ENDS,
        complete_style="cyan",
        finished_style="green",
    )
    yield f"{bytes_done} of {total / 1e6:.0f} MB" if total else f"{bytes_done} MB"
    yield f"{rate / 1e6:.0f} MB/s" if rate else ""
    yield _words(seconds_left(state, total) or 0.0).removeprefix(", ")


def _words(left: float) -> str:
    return f", {int(left // 60)}:{int(left % 60):02} left" if left else ""


def seconds_left(state: State, total: int | None) -> float | None:
    """With the time to read all back, at the rate of writing as long as that of reading is not known.

    None where nothing can be said yet, or there is nothing left.
    """
    if total is None or state.phase not in (Phase.WRITING, Phase.VERIFYING):
        return None
    writing = state.rate(Phase.WRITING)
    reading = state.rate(Phase.VERIFYING) or writing
    if not writing:
        return None
    return (total - state.written) / writing + (total - state.verified) / reading
