"""Extents: what debugfs tells of them, and a file put together from its image."""

from pathlib import Path

import pytest

from bake.extents import Extent, parsed, pieces

pytestmark = pytest.mark.unit

TOLD = b"""Level Entries       Logical        Physical Length Flags
 0/ 1   1/  2     0 -   500    5000          501
 1/ 1   1/  3     0 -    1      7 -      8      2 \x20
 1/ 1   2/  3     4 -    4     20 -     20      1 Uninit
 1/ 1   3/  3     6 -    6      2 -      2      1 \x20

"""


def test_leaves_in_order_without_what_was_never_written() -> None:
    assert parsed(TOLD, 1024) == [Extent(0, 7 * 1024, 2048), Extent(6 * 1024, 2048, 1024)]


def test_a_file_without_extents() -> None:
    assert parsed(b"", 1024) is None
    assert parsed(b"Level Entries       Logical        Physical Length Flags\n\n", 1024) == []


def test_holes_are_zeros_and_the_size_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(100) + b"".join(bytes([number]) * 10 for number in range(10)))
    found = [Extent(0, 30, 10), Extent(20, 10, 20)]
    assert b"".join(pieces(image, 100, found, 47)) == b"\3" * 10 + bytes(
        10
    ) + b"\1" * 10 + b"\2" * 10 + bytes(7)
    assert b"".join(pieces(image, 100, found, 25)) == b"\3" * 10 + bytes(10) + b"\1" * 5
    assert b"".join(pieces(image, 100, [], 5)) == bytes(5)


def test_an_extent_beyond_the_image_ends_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(50))
    assert len(b"".join(pieces(image, 0, [Extent(0, 40, 100)], 100))) == 10
