"""The SHA-256 of files, remembered: hashing a base image takes as long as all the rest of a bake."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from bake.cache import Home, publish

_SETTLED = 2.0
"""Seconds: a file that changed less than this ago might change again without its times telling."""

_CHUNK = 4 << 20


class Stopped(Exception):
    """Nobody waits for the digest any more."""


@contextmanager
def set_at_end() -> Iterator[Event]:
    """An event for what works beside a block, set when the block ends, however it does."""
    event = Event()
    try:
        yield event
    finally:
        event.set()


def sha256_of(path: Path, stop: Event | None = None) -> str:
    """Of a file's content, read now. Stopped soon after ``stop`` is set: a large base takes a minute."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            if stop and stop.is_set():
                raise Stopped
            digest.update(piece)
    return digest.hexdigest()


def remembered(path: Path, home: Home, stop: Event | None = None) -> str:
    """The same, without reading a file that has not changed since it was last hashed, by its inode, size and
    times (of which nobody can set the last, ctime). OSError as from reading it."""
    note = home.cache / "digests" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    identity = _identity(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text())
        if known["identity"] == identity:
            return str(known["sha256"])
    sha256 = sha256_of(path, stop)
    if _identity(path) == identity and time.time() - path.stat().st_ctime > _SETTLED:
        with suppress(OSError):  # a cache that cannot be written to costs time only
            note.parent.mkdir(parents=True, exist_ok=True)
            part = note.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps({"identity": identity, "sha256": sha256}))
            publish(part, note)
    return sha256


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
