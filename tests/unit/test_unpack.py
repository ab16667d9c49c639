import errno
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from bake.base import resolve
from bake.cache import Home
from bake.digests import sha256_of
from bake.download import Web
from bake.progress import Silent
from bake.unpack import unpack
from firstboot.errors import UserError, WorkFailed

# Data that does not shrink, a hole in the middle that is no multiple of a block, and zeros at the end.
IMAGE = random.Random(7).randbytes(300_001) + bytes(5_000_000) + b"end of data" + bytes(1_000_000)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, IMAGE)
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=False, write_content_size=False).compress(data)


PACKED = {
    "zip": zipped("readme.txt", "folder/raspbian.img"),
    "xz": lzma.compress(IMAGE),
    "gz": gzip.compress(IMAGE),
    "zst": zstd(IMAGE),
    "zst in frames": zstd(IMAGE[:400_000]) + zstd(IMAGE[400_000:]),
    "raw": IMAGE,
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "raspbian.img"


def test_what_is_private_stays_private(archive: Path, image: Path) -> None:
    archive.write_bytes(PACKED["gz"])
    for mode in (0o600, 0o644):
        archive.chmod(mode)
        assert unpack(archive, image, Silent()).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("kind", PACKED)
def test_every_kind_is_known_by_its_content(kind: str, archive: Path, image: Path) -> None:
    archive.write_bytes(PACKED[kind])
    unpack(archive, image, Silent())
    assert image.read_bytes() == IMAGE
    assert image.stat().st_blocks * 512 < 1_000_000  # of 6.3 MB: zeros are holes
    assert [path.name for path in image.parent.iterdir()] == [image.name]


@pytest.mark.parametrize("kind", sorted(PACKED.keys() - {"raw"}))
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_cut_off_archive_is_refused(kind: str, share: float, archive: Path, image: Path) -> None:
    archive.write_bytes(PACKED[kind][: int(len(PACKED[kind]) * share)])
    with pytest.raises(UserError, match="cut off or damaged") as caught:
        unpack(archive, image, Silent())
    assert caught.value.hint and not list(image.parent.iterdir())


@pytest.mark.parametrize("kind", ["zip", "xz", "gz"])
def test_a_damaged_archive_is_refused(kind: str, archive: Path, image: Path) -> None:
    data = bytearray(PACKED[kind])
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(UserError, match="cut off or damaged"):
        unpack(archive, image, Silent())
    assert not image.exists()


@pytest.mark.parametrize(
    ("names", "found"),
    [(("a.img", "b.img"), "holds: a.img, b.img"), (("a.txt",), "holds: none"), ((), "holds: none")],
)
def test_a_zip_holds_one_image(names: tuple[str, ...], found: str, archive: Path, image: Path) -> None:
    archive.write_bytes(zipped(*names))
    with pytest.raises(UserError, match=found):
        unpack(archive, image, Silent())


def test_an_empty_image_is_refused(archive: Path, image: Path) -> None:
    archive.write_bytes(lzma.compress(b""))
    with pytest.raises(UserError, match="empty image"):
        unpack(archive, image, Silent())


class Stopping(Silent):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        def advance(done: int) -> None:
            raise self._error

        yield advance


@pytest.mark.parametrize(
    ("stopped", "seen"),
    [(OSError(errno.ENOSPC, "full"), WorkFailed), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_what_stops_it_leaves_nothing(
    stopped: BaseException, seen: type[BaseException], archive: Path, image: Path
) -> None:
    archive.write_bytes(PACKED["xz"])
    with pytest.raises(seen):
        unpack(archive, image, Stopping(stopped))
    assert archive.exists() and not list(image.parent.iterdir())


def test_a_local_archive_is_unpacked_once_and_by_content(tmp_path: Path) -> None:
    home, web = Home(tmp_path / "cache", tmp_path / "data"), Web(offline=True)
    archive = tmp_path / "my.img.xz"
    archive.write_bytes(PACKED["xz"])
    first = resolve(str(archive), home, web)
    assert first.path.read_bytes() == IMAGE and first.sha256 == sha256_of(archive)
    unpacked = first.path.stat()
    assert resolve(str(archive), home, web) == first
    assert first.path.stat().st_ino == unpacked.st_ino  # unpacking again would make another file
    archive.write_bytes(lzma.compress(b"another image"))
    assert resolve(str(archive), home, web).path.read_bytes() == b"another image"
