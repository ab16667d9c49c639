"""Many cards from one reading of an image. Each has a result of its own, whatever becomes of the others."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from bake.card.feed import Feed, Stopped
from bake.card.source import Source
from bake.card.target import Target
from bake.card.write import Card, Phase, Stamp, State
from firstboot.errors import UserError, WorkFailed

_PATIENCE = 20.0
"""Seconds that a card may take to end what it is at when all are to stop: a slow one needs one."""

_NOT_WHOLE = ("interrupted before it was whole", "Nothing boots from it: run it again.")


class Interrupted(WorkFailed):
    """By a person, before the card was whole."""

    exit_code = 130  # 128 + SIGINT, as shells say it


@dataclass
class Job:
    """A card to be, and how it came along."""

    target: Target
    stamp: Stamp | None = None
    state: State = field(default_factory=State)
    error: UserError | None = None
    table_read: bool = False
    """Whether the kernel knows the new partitions."""

    @property
    def done(self) -> bool:
        return self.state.phase is Phase.DONE


class Flash:
    """Threads of its own write; whoever made it looks at the jobs meanwhile.

    As a context: when it ends nothing is being written any more, and what was not done is no valid card.
    """

    def __init__(self, source: Source, jobs: Sequence[Job]) -> None:
        self._source = source
        self.jobs = jobs
        self._stop = threading.Event()
        self._feed = Feed(source, len(jobs), self._stop)
        reader = threading.Thread(target=self._feed.run, daemon=True)
        cards = [
            threading.Thread(target=self._card, args=(at, job), daemon=True) for at, job in enumerate(jobs)
        ]
        self._threads = [reader, *cards]

    def __enter__(self) -> "Flash":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        end = time.monotonic() + _PATIENCE
        with suppress(KeyboardInterrupt):  # a second one: it is not waited for any longer
            for thread in self._threads:
                thread.join(max(0.0, end - time.monotonic()))
        for job in self.jobs:
            if not job.done and job.error is None:  # its thread hangs in the kernel
                job.error = Interrupted(*_NOT_WHOLE)

    @property
    def lasts(self) -> bool:
        return any(thread.is_alive() for thread in self._threads[1:])

    def wait(self, seconds: float) -> bool:
        """Whether it still lasts after that time, or less."""
        end = time.monotonic() + seconds
        for thread in self._threads[1:]:
            thread.join(max(0.0, end - time.monotonic()))
        return self.lasts

    def _card(self, at: int, job: Job) -> None:
        pieces = self._feed.pieces(at)
        try:
            Card(job.target, job.state, self._stop, job.stamp).make(self._source, pieces)
            if job.target.is_block:
                job.table_read = job.target.reread_table()
        except Stopped:
            job.error = Interrupted(*_NOT_WHOLE)
        except UserError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 (a mistake of ours with one card stops no other)
            job.error = WorkFailed(f"k3s-bake failed: {type(error).__name__}: {error}", "Please report this.")
        finally:
            pieces.close()
            if job.error:
                job.state.enter(Phase.FAILED)
