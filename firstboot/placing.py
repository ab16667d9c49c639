"""How the bytes of a Place get to where they belong.

Runs on the node too: Python 3.7, standard library only.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Mapping, Optional

from firstboot.edits import Place
from firstboot.errors import WorkFailed

_CHUNK = 1 << 17


def source_of(edit: Place, sources: Mapping[str, str]) -> str:
    """The file of this machine that holds a Place's bytes. KeyError: the caller forgot to name it."""
    return sources[edit.sha256]


def copy(source: str, target: BinaryIO, edit: Place) -> None:
    """WorkFailed where the source is not, or no longer, the file that the edit speaks of."""
    digest = hashlib.sha256()
    with Path(source).open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != edit.sha256:
        raise WorkFailed(f"{source} is not the file it was when it was looked at", "Run it again.")


def link(source: str, parts: Optional[str], folder: int, name: str) -> bool:
    """Whether a file of ``parts`` has that name in an open folder now, too: to write it again takes a card
    as long as to write it."""
    if parts is None or Path(source).parent != Path(parts):
        return False
    try:
        if Path(source).stat().st_nlink > 1:  # placed already: another one has a mode of its own
            return False
        os.link(source, name, dst_dir_fd=folder)
    except OSError:  # another file system, or one that knows no links
        return False
    return True
