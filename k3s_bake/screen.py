"""A picture on the terminal, drawn anew as things go on, that steps aside for questions and other lines."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.live import Live

from k3s_bake import report


class Screen:
    """Standard error, where it is a terminal; elsewhere nothing is drawn."""

    def __init__(self) -> None:
        self._console = report.console(stderr=True)
        self.is_live = self._console.is_terminal
        self._turn = threading.RLock()
        self._picture: Callable[[], RenderableType] | None = None
        self._aside = 0
        self._live: Live | None = None

    @contextmanager
    def showing(self, picture: Callable[[], RenderableType]) -> Iterator[None]:
        """``picture`` is called four times a second, from another thread. It goes when the context ends."""
        with self._turn:
            self._picture = picture if self.is_live else None
            self._draw()
        try:
            yield
        finally:
            with self._turn:
                self._picture = None
                self._draw()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The terminal is somebody else's until the context ends. Any thread may ask for it."""
        with self._turn:
            self._aside += 1
            self._draw()
        try:
            yield
        finally:
            with self._turn:
                self._aside -= 1
                self._draw()

    def _draw(self) -> None:
        picture = self._picture if not self._aside else None
        if picture and self._live is None:
            self._live = Live(
                console=self._console, get_renderable=picture, refresh_per_second=4, transient=True
            )
            self._live.start()
        elif not picture and self._live is not None:
            live, self._live = self._live, None
            live.stop()
