"""An iterator that is worked at in a thread of its own, ahead of who takes what it gives."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

_EVERY = 0.2


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def ahead(items: Iterator[T], most: int) -> Iterator[T]:
    """What ``items`` gives, up to ``most`` of it before it is asked for; and what it raises.

    The thread has ended when this iterator has, also where it is closed early. What hangs in the kernel makes
    it hang, too; but it keeps no program from ending, as the threads of a pool would.
    """
    given: queue.Queue[Any] = queue.Queue(most)
    closed = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, given, closed), daemon=True)
    thread.start()
    try:
        while not isinstance(item := given.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        closed.set()
        thread.join()


def _fill(items: Iterator[T], given: queue.Queue[Any], closed: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            _put(item, given, closed)
            if closed.is_set():
                return
    except BaseException as error:  # noqa: BLE001 (it is raised where it is awaited)
        end = _End(error)
    _put(end, given, closed)


def _put(item: object, given: queue.Queue[Any], closed: threading.Event) -> None:
    while not closed.is_set():
        try:
            given.put(item, timeout=_EVERY)
        except queue.Full:
            continue
        return
