"""Digests: read once while a file is the same, and never believed of another."""

import hashlib
import os
from pathlib import Path
from threading import Event

import pytest

from bake import digests
from bake.cache import Home
from bake.digests import remembered

pytestmark = pytest.mark.unit


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "cache", tmp_path / "data")


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this test count as settled."""
    monkeypatch.setattr(digests, "_SETTLED", -1.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are really read."""
    paths: list[Path] = []
    genuine = digests.sha256_of

    def counting(path: Path, stop: Event | None = None) -> str:
        paths.append(path)
        return genuine(path, stop)

    monkeypatch.setattr(digests, "sha256_of", counting)
    return paths


def test_it_stops_when_nobody_waits(tmp_path: Path, home: Home) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with digests.set_at_end() as stop:
        pass
    with pytest.raises(digests.Stopped):
        remembered(path, home, stop)


def test_a_file_is_read_once(tmp_path: Path, home: Home, read: list[Path]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for _ in range(2):
        assert remembered(path, home) == hashlib.sha256(b"x").hexdigest()
    assert read == [path]


def test_a_file_with_the_same_size_and_times_put_in_its_place(tmp_path: Path, home: Home) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    remembered(path, home)
    status = path.stat()
    (tmp_path / "other").write_bytes(b"y")
    os.utime(tmp_path / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tmp_path / "other").replace(path)
    assert remembered(path, home) == hashlib.sha256(b"y").hexdigest()


def test_a_file_just_written_is_not_remembered(
    tmp_path: Path, home: Home, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SETTLED", 3600.0)
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for _ in range(2):
        remembered(path, home)
    assert len(read) == 2


@pytest.mark.parametrize("garbled", ["", "[]", "{", '{"identity": 7}'])
def test_a_garbled_note_counts_as_none(tmp_path: Path, home: Home, garbled: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    remembered(path, home)
    (note,) = (home.cache / "digests").iterdir()
    note.write_text(garbled)
    assert remembered(path, home) == hashlib.sha256(b"x").hexdigest()


def test_a_cache_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert remembered(path, Home(tmp_path / "cache", tmp_path)) == hashlib.sha256(b"x").hexdigest()
