import re
from pathlib import Path

import pytest

from bake import cache, catalogue
from bake.base import resolve
from bake.cache import Home
from bake.download import Web
from firstboot.errors import UserError, WorkFailed

HOME = Home(Path("/nowhere/cache"), Path("/nowhere/data"))


def test_every_base_is_complete_and_named_once() -> None:
    bases = catalogue.load()
    assert len({base.name for base in bases}) == len({base.sha256 for base in bases}) == len(bases) == 3
    for base in bases:
        assert re.fullmatch(r"[0-9a-f]{64}", base.sha256)
        assert base.url.startswith("https://downloads.raspberrypi.org/")
        assert (base.arch, base.codename) == ("armhf", "buster")
        assert not base.name.endswith(".img") and "/" not in base.name  # else it would be taken for a path


def test_default_base_is_the_newest() -> None:
    assert catalogue.load()[0] == catalogue.find(catalogue.DEFAULT_BASE)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("raspios-buster-2023-06", "did you mean raspios-buster-2023-05?"),
        ("plan9", "raspios-buster-2023-05, raspios-buster-2021-05, raspbian-buster-2020-02"),
    ],
)
def test_unknown_base_names_the_nearest_or_all(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        catalogue.find(name)
    assert name in caught.value.message and hint in caught.value.hint


def test_a_base_is_cached_once_its_image_lies_there(tmp_path: Path) -> None:
    base, home = catalogue.load()[0], Home(tmp_path / "cache", tmp_path / "data")
    assert not catalogue.cached(base, home)
    image = catalogue.image_path(base.sha256, home)
    image.parent.mkdir(parents=True)
    image.write_bytes(b"raw")
    assert catalogue.cached(base, home)
    assert resolve(base.name, home, Web(offline=True)).path == image


def test_a_raw_image_is_used_where_it_lies(tmp_path: Path) -> None:
    image = tmp_path / "my.img"
    image.write_bytes(b"raw")
    home = Home(tmp_path / "cache", tmp_path / "data")
    found = resolve(str(image), home, Web(offline=True))
    assert (found.path, found.name, found.sha256, found.source) == (image, "my.img", None, str(image))
    assert not home.cache.exists()


def test_bad_local_bases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.img").touch()
    for name, reason in [("missing.img", "does not exist"), ("", "is not a file"), ("empty.img", "is empty")]:
        with pytest.raises(UserError, match=reason) as caught:
            resolve(f"{tmp_path}/{name}", HOME, Web())
        assert caught.value.hint and caught.value.exit_code == 2


def test_home_is_moved_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path))
    assert cache.home() == Home(tmp_path / "cache", tmp_path / "data")
    monkeypatch.delenv("K3S_BAKE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    assert cache.home() == Home(tmp_path / "c" / "k3s-bake", tmp_path / "d" / "k3s-bake")


def test_a_full_disk_is_worded(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="no space left") as caught, cache.writing(tmp_path / "file"):
        Path("/dev/full").write_bytes(b"x")
    assert "K3S_BAKE_HOME" in caught.value.hint


def test_a_folder_that_is_a_file_is_worded(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cannot write"), cache.writing(tmp_path / "cache" / "bases" / "file"):
        raise AssertionError("not reached")
