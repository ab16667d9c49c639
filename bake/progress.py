"""How long work tells a person that it is alive. The command line brings its own implementation."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    def task(self, title: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """One bar for as long as the context lasts; call what it gives with each number of bytes done.

        ``total`` is in bytes, None where it is not known.
        """

    def say(self, line: str) -> None:
        """Something a person should know now: one line, no secret in it."""


class Silent:
    """Progress for programs and tests that want none."""

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    def say(self, line: str) -> None:
        pass
