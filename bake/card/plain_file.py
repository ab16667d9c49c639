"""A plain file in the place of a card, to look at what a card would hold."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bake.card.source import Source
from bake.card.target import Target
from bake.draft import Draft, drafting
from firstboot.errors import UserError

_UNKNOWN = 1 << 40
"""Bytes: of a file with nothing but a hole, until it is known how large a packed image is."""


class PlainFile:
    def __init__(self, draft: Draft, target: Target, *, force: bool) -> None:
        self._draft = draft
        self._force = force
        self.target = target

    def publish(self, size: int) -> None:
        """Under its name, for this user alone: it holds a credential. UserError where something has come
        there meanwhile."""
        os.ftruncate(self.target.handle, size)
        self._draft.publish({}, private=True, force=self._force)


def check(path: Path, image: Path, *, force: bool) -> None:
    """UserError where it cannot be put there."""
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}", "'k3s-bake cards' lists the cards there are.")
    if not path.exists():
        if path.is_relative_to("/dev"):
            raise UserError(f"{path} is not there", "'k3s-bake cards' lists the cards there are.")
        return
    if not path.is_file():
        raise UserError(
            f"{path} is neither a device nor a file", "'k3s-bake cards' lists what can be written."
        )
    if path.samefile(image):
        raise UserError(f"{path} is the image itself", "Name another file.")
    if not force:
        raise UserError(f"{path} is there already", "--force replaces it.")


@contextmanager
def opened(path: Path, source: Source, *, force: bool) -> Iterator[PlainFile]:
    """Beside its place; gone when the context ends, unless it was published."""
    with drafting(path) as draft:
        handle = os.open(draft.image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.ftruncate(handle, source.size if source.size is not None else _UNKNOWN)
            except OSError as error:
                raise UserError(
                    f"{path.parent} takes no file of that size: {error.strerror}",
                    "Name a file on another file system, or unpack the image first.",
                ) from error
            yield PlainFile(draft, Target(handle, path), force=force)
        finally:
            os.close(handle)
