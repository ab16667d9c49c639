"""What many ask for at once, made once.

Runs on the node: Python 3.7, standard library only.
"""

import threading
import time
from typing import Callable, Generic, Optional, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What is asked for once and good for ``seconds``; whoever comes meanwhile waits for the one who asks."""

    def __init__(self, make: Callable[[], Optional[T]], seconds: float, failed: float) -> None:
        self._make, self._seconds, self._failed = make, seconds, failed
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._value: Optional[T] = None

    def get(self) -> Optional[T]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._value = self._make()
                seconds = self._failed if self._value is None else self._seconds
                self._until = time.monotonic() + seconds
            return self._value

    def drop(self, also: Callable[[], None] = lambda: None) -> None:
        """``also`` is done while nobody makes a new one."""
        with self._lock:
            self._until = float("-inf")
            also()
