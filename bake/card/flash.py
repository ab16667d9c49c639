"""Many cards from one reading of an image. Each has a result of its own, whatever becomes of the others."""

import threading
import time
from collections.abc import Callable, Sequence
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
    ended: threading.Event = field(default_factory=threading.Event)
    """Nobody works at it any more. Not a thread's end: in Python 3.11 a join that Ctrl-C cuts short takes a
    thread that runs for one that has ended."""

    @property
    def done(self) -> bool:
        return self.state.phase is Phase.DONE


def _nothing(job: Job) -> None:
    pass


class Flash:
    """Threads of its own write; whoever made it looks at the jobs meanwhile.

    As a context: when it ends nothing is being written any more, and what was not done is no valid card. A
    thread that hangs in the kernel then is left to it, with its open file.
    """

    def __init__(self, source: Source, jobs: Sequence[Job], done: Callable[[Job], None] = _nothing) -> None:
        """``done`` is called for each card that is whole, as soon as it is, by its own thread. What it raises
        becomes the card's error."""
        self._source = source
        self.jobs = jobs
        self._done = done
        self._stop = threading.Event()
        self._feed = Feed(source, len(jobs), self._stop)

    def __enter__(self) -> "Flash":
        try:
            for at, job in enumerate(self.jobs):
                job.target.in_use = True
                threading.Thread(target=self._card, args=(at, job), daemon=True).start()
            threading.Thread(target=self._feed.run, daemon=True).start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        with suppress(KeyboardInterrupt):  # a second one: it is not waited for any longer
            self.wait(_PATIENCE)
            self._feed.ended.wait(_PATIENCE)
        for job in self.jobs:
            if not job.ended.is_set():
                job.error = job.error or Interrupted(*_NOT_WHOLE)

    def wait(self, seconds: float) -> bool:
        """Whether it still lasts after that time, or less."""
        end = time.monotonic() + seconds
        return not all(job.ended.wait(max(0.0, end - time.monotonic())) for job in self.jobs)

    def _card(self, at: int, job: Job) -> None:
        pieces = self._feed.pieces(at)
        try:
            Card(job.target, job.state, self._stop, job.stamp).make(self._source, pieces)
            self._done(job)
            job.target.reread_table()
        except Stopped:
            job.error = Interrupted(*_NOT_WHOLE)
        except UserError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 (a mistake of ours with one card stops no other)
            job.error = WorkFailed(f"k3s-bake failed: {type(error).__name__}: {error}", "Please report this.")
        finally:
            pieces.close()
            self._feed.leave(at)  # also where it has never begun to take
            if job.error:
                job.state.enter(Phase.FAILED)
            job.target.in_use = False
            job.ended.set()
