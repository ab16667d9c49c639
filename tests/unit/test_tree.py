"""The contract on a folder, and what only a folder can show."""

import json
import os
from pathlib import Path

import pytest
from contract import LARGE, SHA256, Contract
from hypothesis import given
from hypothesis import strategies as st

from firstboot import tree as module
from firstboot.edits import Edit, Link, Place, Remove, Write, from_json, to_json
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import Folder, Probe, Special
from firstboot.tree import FolderTree

pytestmark = pytest.mark.unit


@pytest.fixture
def tree(tmp_path: Path) -> FolderTree:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "boot").mkdir()
    return FolderTree(str(root), modeless=("/boot",))


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return {SHA256: str(path)}


class TestFolder(Contract):
    pass


def test_nothing_outside_is_ever_touched(tmp_path: Path, tree: FolderTree) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree.apply(
        [Link("/absolute", str(outside)), Link("/upward", "../outside"), Link("/etc/file", f"{outside}/f")],
        {},
    )
    tree.apply([Write("/absolute/a", b"x"), Write("/upward/b", b"x"), Write("/etc/file", b"x")], {})
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("moment", ["fsync", "rename", "fchmod"])
def test_interrupted_is_old_or_new_and_leaves_no_litter(
    tmp_path: Path, tree: FolderTree, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    tree.apply([Write("/etc/file", b"old")], {})
    real = getattr(os, moment)

    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.apply([Write("/etc/file", b"new")], {})
    monkeypatch.setattr(module.os, moment, real)
    assert (tmp_path / "root/etc/file").read_bytes() == b"old"
    assert os.listdir(tmp_path / "root/etc") == ["file"]


def test_what_a_power_cut_left_is_no_obstacle(tmp_path: Path, tree: FolderTree) -> None:
    (tmp_path / "root/etc/.file.k3s-bake").write_bytes(b"half")
    tree.apply([Write("/etc/file", b"new")], {})
    assert os.listdir(tmp_path / "root/etc") == ["file"]


def test_a_secret_is_private_before_its_first_byte(
    tmp_path: Path, tree: FolderTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        modes.append(os.fstat(handle).st_mode & 0o777)
        real(handle)

    monkeypatch.setattr(os, "umask", lambda mask: mask)
    monkeypatch.setattr(module.os, "fsync", fsync)
    tree.apply([Write("/etc/secret", b"x", mode=0o600, secret=True)], {})
    assert modes[0] == 0o600


def test_each_folder_is_on_the_disk_before_the_next_is_touched(
    tree: FolderTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(handle: int) -> None:
        done.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def noted_rename(old: str, new: str, **folders: int) -> None:
        done.append(f"rename {new}")
        rename(old, new, **folders)

    monkeypatch.setattr(module.os, "fsync", noted_fsync)
    monkeypatch.setattr(module.os, "rename", noted_rename)
    tree.apply([Write("/etc/a", b"x"), Link("/etc/b", "a"), Remove("/etc/c"), Write("/srv/d", b"x")], {})
    written = ["fsync .a.k3s-bake", "rename a", "rename b", "fsync etc"]
    removed = ["fsync etc"]
    made = ["rename srv", "fsync root", "fsync .d.k3s-bake", "rename d", "fsync srv"]
    assert done == [*written, *removed, *made]


def test_a_full_disk_is_worded(tree: FolderTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(WorkFailed, match="/etc/file: No space left on device"):
        tree.apply([Write("/etc/file", b"x")], {})


def test_special_files_are_seen_and_left(tmp_path: Path, tree: FolderTree) -> None:
    os.mkfifo(tmp_path / "root/etc/fifo")
    assert tree.read([Probe("/etc/fifo")]).get("/etc/fifo") == Special()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owners_of_files_and_of_folders_made_for_them(tree: FolderTree) -> None:
    tree.apply([Write("/home/pi/new/file", b"x", 0o600, 1000, 1000)], {})
    assert tree.read([Probe("/home/pi/new")]).get("/home/pi/new") == Folder((), 0o700, 1000, 1000)


def test_a_source_that_changed_is_not_placed(
    tmp_path: Path, tree: FolderTree, sources: dict[str, str]
) -> None:
    Path(sources[SHA256]).write_bytes(b"another")
    with pytest.raises(WorkFailed, match="is not the file it was"):
        tree.apply([Place("/opt/large", SHA256, len(LARGE))], sources)
    assert os.listdir(tmp_path / "root/opt") == []


@given(
    st.builds(
        Write, st.just("/a"), st.binary(), st.integers(0, 0o7777), st.integers(0, 99), st.integers(0, 99)
    )
    | st.builds(Link, st.just("/a/b"), st.text())
    | st.builds(Place, st.just("/c"), st.just(SHA256), st.integers(0))
    | st.builds(Remove, st.just("/d"))
)
def test_an_edit_survives_its_json(edit: Edit) -> None:
    assert from_json(json.loads(json.dumps(to_json(edit)))) == edit


@pytest.mark.parametrize(
    "data",
    [{}, {"edit": "chmod", "path": "/a"}, {"edit": "remove", "path": "../a"}, {"edit": "link", "path": "/a"},
     {"edit": "write", "path": "/a", "content": "not base64!"}, {"edit": "remove", "path": "/a", "more": 1}],
)  # fmt: skip
def test_what_is_no_edit_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(UserError):
        from_json(data)


def test_secret_content_never_shows() -> None:
    edit = Write("/a", b"hunter2", secret=True)
    assert "hunter2" not in repr(edit) + str(edit)
