"""Unit tests neither spawn nor dial: an audit hook fails the one that tries."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from raspbian import Pi

_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "os.forkpty",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "socket.sendmsg",
)
_watching = False


def _hook(event: str, args: tuple[object, ...]) -> None:
    if _watching and event in _FORBIDDEN:
        raise AssertionError(f"a unit test does {event} {args[:1]}: it belongs in another folder")


sys.addaudithook(_hook)  # there is no removing one, hence the switch


@pytest.fixture(autouse=True)
def _neither_spawns_nor_dials() -> Iterator[None]:
    global _watching
    _watching = True
    yield
    _watching = False


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    """A folder in the shape of a Raspbian Buster root."""
    return Pi(tmp_path / "root")
