"""Drafts: whole or not at all, and nobody else's."""

import errno
import os
from pathlib import Path

import pytest

from bake.draft import drafting
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.unit


def test_a_draft_is_published_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "w.img"
    with drafting(output) as draft:
        draft.image.write_text("image")
        draft.publish({tmp_path / "w.img.bmap": "map"}, private=True, force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.img", "w.img.bmap"]
    assert output.stat().st_mode & 0o777 == 0o600


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), drafting(tmp_path / "w.img") as draft:
        draft.image.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    left = tmp_path / ".w.img.k3s-bake"
    left.mkdir(mode=0o700)
    (left / "image").write_text("half")
    with drafting(tmp_path / "w.img") as draft:
        assert not draft.image.exists()
    assert list(tmp_path.iterdir()) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    with drafting(tmp_path / "w.img") as first:
        first.image.write_text("mine")
        with (
            pytest.raises(UserError, match=r"another k3s-bake is making w\.img"),
            drafting(tmp_path / "w.img"),
        ):
            pass
        assert first.image.read_text() == "mine"


@pytest.mark.parametrize("mode", [None, 0o777], ids=["link", "open to others"])
def test_a_folder_of_somebody_else_is_not_worked_in(tmp_path: Path, mode: int | None) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    place = tmp_path / ".w.img.k3s-bake"
    if mode is None:
        place.symlink_to(victim)
    else:
        place.mkdir()
        place.chmod(mode)
    with pytest.raises(UserError, match="in the way"), drafting(tmp_path / "w.img"):
        pass
    assert (victim / "precious").exists()


def test_what_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "w.img"
    with pytest.raises(UserError, match="is there already"), drafting(output) as draft:
        draft.image.write_text("image")
        output.write_text("precious")
        draft.publish({}, private=False, force=False)
    assert output.read_text() == "precious"


def test_a_full_disk_is_worded(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="is full"), drafting(tmp_path / "w.img"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
