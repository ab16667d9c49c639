"""How long each part of the work took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Seconds by part, in the order of the work. Parts that run at once each count in full."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def span(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - started

    def rounded(self) -> dict[str, float]:
        """To the millisecond."""
        return {part: round(seconds, 3) for part, seconds in self.seconds.items()}
