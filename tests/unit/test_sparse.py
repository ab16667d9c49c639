"""Copies keep content and holes, whole or in part, and wherever they are made."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bake import sparse
from bake.sparse import copy_in, copy_out, copy_sparsely, data

pytestmark = pytest.mark.unit

MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    with path.open("wb") as stream:
        for at in (0, 40 * MIB, 61 * MIB):
            stream.seek(at)
            stream.write(os.urandom(MIB))
        stream.truncate(80 * MIB)
    return path


def _refuse(code: int) -> Callable[..., int]:
    def refuse(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [None, errno.EXDEV, errno.EOPNOTSUPP], ids=str)
def test_a_copy_keeps_content_and_holes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """Also where the kernel cannot copy by itself, as from one file system to another."""
    if code is not None:
        monkeypatch.setattr(sparse.os, "copy_file_range", _refuse(code))
    target = tmp_path / "b"
    told: list[int] = []
    copy_sparsely(source, target, told.append)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    assert sum(told) == 80 << 20


def test_a_part_is_taken_out_and_put_back(source: Path, tmp_path: Path) -> None:
    """As it is: where it has got a hole meanwhile, the image reads as zeros, whatever was there."""
    before = source.read_bytes()
    part = tmp_path / "part"
    copy_out(source, 40 * MIB, 30 * MIB, part)
    assert part.read_bytes() == before[40 * MIB : 70 * MIB]
    assert part.stat().st_blocks * 512 <= 3 * MIB
    with part.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"new")
    data = part.read_bytes()
    with part.open("wb") as stream:  # the same, but for its first data, which become a hole
        stream.truncate(len(data))
        stream.seek(5 * MIB)
        stream.write(data[5 * MIB :])
    copy_in(part, source, 40 * MIB)
    after = bytearray(before)
    after[40 * MIB : 41 * MIB] = bytes(MIB)
    after[45 * MIB : 45 * MIB + 3] = b"new"
    assert source.read_bytes() == after


def test_data_in_a_part(source: Path) -> None:
    assert data(source, 0, 80 * MIB) == 3 * MIB
    assert data(source, 41 * MIB, 20 * MIB) == 0
    assert data(source, 61 * MIB, MIB // 2) == MIB // 2


def test_a_part_beyond_the_end(source: Path, tmp_path: Path) -> None:
    copy_out(source, 79 * MIB, 5 * MIB, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == bytes(5 * MIB)
