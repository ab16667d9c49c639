"""Progress for people: bars on standard error, in a terminal; plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from k3s_bake import report


class Bars:
    """bake.progress.Progress in rich."""

    def __init__(self, aside: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """``aside`` keeps the terminal free for as long as something is shown there."""
        self._aside = aside
        self._console = report.console(stderr=True)

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        if not self._console.is_terminal:
            started = time.monotonic()
            yield lambda done: None
            self._console.print(f"{report.shown(title)}: {time.monotonic() - started:.1f} s")
            return
        sizes = (DownloadColumn(), TransferSpeedColumn()) if total else ()
        columns = (TextColumn("{task.description}"), BarColumn(), *sizes, TimeElapsedColumn())
        with self._aside(), Progress(*columns, console=self._console) as bars:
            bar = bars.add_task(report.shown(title), total=total)
            yield lambda done: bars.advance(bar, done)
            bars.update(bar, total=total or 1, completed=total or 1)

    def say(self, line: str) -> None:
        with self._aside():
            self._console.print(report.shown(line))
