"""Names that are being given to cards right now: two flashes at once never give the same one.

A claim is a locked file; the kernel drops the lock when the process ends, however that comes.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bake import cache
from bake.card import receipt
from bake.card.stamp import Stampable
from firstboot.errors import UserError


@contextmanager
def names(
    found: Stampable, wanted: Sequence[str], cards: int, home: cache.Home, *, again: bool
) -> Iterator[Sequence[str]]:
    """One a card, nobody else's until the context ends: those that are ``wanted``, or the next numbers.

    UserError for one that a card has, unless it is given ``again``, or that somebody else is giving.
    """
    if not wanted:
        with _numbered(found, cards, home) as made:
            yield made
        return
    with ExitStack() as stack:
        for name in wanted:
            if not stack.enter_context(_claimed(found.cluster, name, home)):
                raise UserError(f"another k3s-bake is writing a card for {name}", "Wait for it.")
        had = _had(found, home)
        for name in wanted:
            if name in had and not again:
                raise UserError(
                    f"{name} is the name of a card that was written on {had[name].written[:10]}",
                    "--again, if that one is gone or is this one; else another name.",
                )
        yield wanted


@contextmanager
def _numbered(found: Stampable, cards: int, home: cache.Home) -> Iterator[list[str]]:
    """The first names that no card has and nobody else is giving: ``home-worker-3``."""
    with ExitStack() as stack:
        names: list[str] = []
        number = 0
        while len(names) < cards:
            number += 1
            name = f"{found.cluster[:40]}-{found.role}-{number}"
            if stack.enter_context(_claimed(found.cluster, name, home)) and name not in _had(found, home):
                names.append(name)
        yield names


def _had(found: Stampable, home: cache.Home) -> dict[str, receipt.Receipt]:
    """Read under the claim: who had it before has left its receipt."""
    return receipt.named(receipt.history(home), found.cluster)


@contextmanager
def _claimed(cluster: str, name: str, home: cache.Home) -> Iterator[bool]:
    path: Path = home.data / "cards" / "claims" / f"{cluster}-{name}"
    with cache.writing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)
