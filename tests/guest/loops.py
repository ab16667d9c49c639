"""Loop devices over files: they count as cards."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from guest.look import tool


@dataclass(frozen=True)
class Loop:
    path: Path
    """Of the device."""
    file: Path

    def head(self) -> bytes:
        """The first MiB."""
        with self.file.open("rb") as stream:
            return stream.read(1 << 20)


@contextmanager
def attached(file: Path, mib: int | None, fill: bytes = b"") -> Iterator[Loop]:
    """Over a file of that size that begins with ``fill``, again and again; None: over one that is there."""
    if mib is not None:
        with file.open("wb") as stream:
            stream.write((fill * (8 << 20))[: 8 << 20])
            stream.truncate(mib << 20)
    done = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device is to be had here: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield Loop(device, file)
    finally:
        tool("losetup", "--detach", device)


Make = Callable[..., Loop]
"""Of so many MiB, with what they are filled with."""
