"""What every executor of edits must do: the same tests run on a folder and on an image.

A module that runs them gives a fixture ``tree`` (with the FAT at /boot) and a fixture ``sources``.
"""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import pytest

from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import File, Folder, Node, Probe, Snapshot, Symlink

LARGE = b"\x7fELF" + bytes(range(256)) * 20_000  # over any one message's size
SHA256 = hashlib.sha256(LARGE).hexdigest()


class Tree(Protocol):
    def read(self, probes: list[Probe]) -> Snapshot: ...
    def apply(self, edits: list[Edit], sources: Mapping[str, str]) -> None: ...


def node(tree: Tree, path: str, read: str = "content") -> Node | None:
    return tree.read([Probe(path, read)]).get(path)


def file(tree: Tree, path: str) -> File:
    found = node(tree, path)
    assert isinstance(found, File)
    return found


EDITS: list[Edit] = [
    Write("/etc/plain", b"text\n"),
    Write("/etc/empty", b""),
    Write("/etc/private", b"x", mode=0o600, owner=0, group=0),
    Write("/new/deep/folder/file", b"x"),
    Write("/etc/with space and ü '\"$", b"x"),
    Write("/etc/-dash", b"x"),
    Write("/boot/Long File Name.text", b"on the FAT"),
    Link("/etc/link", "plain"),
    Link("/etc/away", "/nowhere/../at all"),
    Link("/etc/long", "x" * 200),  # too long for the inode itself
    Place("/opt/large", SHA256, len(LARGE), mode=0o755),
    Remove("/etc/never-there"),
    Remove("/no/such/folder/file"),
]


class Contract:
    @pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{type(edit).__name__} {edit.path[:30]}")
    def test_an_edit_is_met_once_applied_and_stays_so(
        self, tree: Tree, sources: dict[str, str], edit: Edit
    ) -> None:
        for _ in range(2):
            tree.apply([edit], sources)
            assert edit.met_by(node(tree, edit.path, "digest"))

    def test_each_kind_replaces_each_other(self, tree: Tree, sources: dict[str, str]) -> None:
        path = "/etc/changing"
        kinds: list[Edit] = [
            Write(path, b"1"),
            Link(path, "plain"),
            Place(path, SHA256, len(LARGE)),
            Link(path, "/etc/other"),
            Write(path, b"2", mode=0o640),
            Remove(path),
            Write(path, b"3"),
        ]
        for edit in kinds:
            assert not edit.met_by(node(tree, path, "digest"))
            tree.apply([edit], sources)
            assert edit.met_by(node(tree, path, "digest"))

    def test_a_write_over_a_link_replaces_the_link(self, tree: Tree) -> None:
        tree.apply(
            [Write("/etc/target", b"old"), Link("/etc/pointer", "target"), Write("/etc/pointer", b"new")], {}
        )
        assert file(tree, "/etc/target").content == b"old"
        assert file(tree, "/etc/pointer").content == b"new"

    def test_links_on_the_way_stay_inside_the_tree(self, tree: Tree) -> None:
        tree.apply(
            [
                Write("/real/there", b"x"),
                Link("/absolute", "/real"),
                Link("/upward", "../../../../real"),
                Link("/etc/round", "../etc/../real"),
                Write("/absolute/a", b"a"),
                Write("/upward/b", b"b"),
                Write("/etc/round/c", b"c"),
            ],
            {},
        )
        for name, content in (("a", b"a"), ("b", b"b"), ("c", b"c")):
            assert file(tree, f"/real/{name}").content == content
            assert file(tree, f"/absolute/{name}").content == content

    def test_missing_folders_are_made_through_a_dangling_link(self, tree: Tree) -> None:
        tree.apply([Link("/later", "/made/then"), Write("/later/file", b"x")], {})
        assert file(tree, "/made/then/file").content == b"x"

    def test_a_circle_of_links_is_absent_and_in_the_way(self, tree: Tree) -> None:
        tree.apply([Link("/circle1", "/circle2"), Link("/circle2", "/circle1")], {})
        assert node(tree, "/circle1/x") is None
        with pytest.raises(UserError):
            tree.apply([Write("/circle1/x", b"")], {})

    @pytest.mark.parametrize(
        "edit", [Write("/etc/folder", b""), Link("/etc/folder", "x"), Remove("/etc/folder")]
    )
    def test_a_folder_in_the_way_is_an_error(self, tree: Tree, edit: Edit) -> None:
        tree.apply([Write("/etc/folder/kept", b"x")], {})
        with pytest.raises(UserError, match="in the way"):
            tree.apply([edit], {})
        assert file(tree, "/etc/folder/kept").content == b"x"

    def test_a_file_on_the_way_is_an_error(self, tree: Tree) -> None:
        tree.apply([Write("/etc/flat", b"x")], {})
        assert node(tree, "/etc/flat/x") is None
        with pytest.raises(UserError, match="in the way"):
            tree.apply([Write("/etc/flat/x", b"")], {})

    @pytest.mark.parametrize("path", ["relative", "/", "", "/a/../b", "/a//b", "/a/.", "/a\n", "/a\0"])
    def test_a_path_that_is_not_plain_is_refused(self, tree: Tree, path: str) -> None:
        with pytest.raises(UserError):
            tree.apply([Write(path, b"")], {})

    def test_modes_of_files_and_of_folders_made_for_them(self, tree: Tree) -> None:
        tree.apply([Write("/srv/made/deep/file", b"x", mode=0o640)], {})
        assert file(tree, "/srv/made/deep/file").mode == 0o640
        for path in ("/srv/made", "/srv/made/deep"):
            found = node(tree, path)
            assert isinstance(found, Folder)
            assert found.mode == 0o755

    def test_a_fat_keeps_no_modes(self, tree: Tree) -> None:
        tree.apply([Write("/boot/config", b"x", mode=0o600)], {})
        found = file(tree, "/boot/config")
        assert (found.mode, found.owner, found.group) == (None, None, None)

    def test_what_probes_read(self, tree: Tree) -> None:
        tree.apply([Write("/srv/z/1", b"one"), Write("/srv/z/2", LARGE[:9999]), Link("/srv/z/3", "1")], {})
        found = tree.read(
            [Probe("/srv/z/*"), Probe("/srv/*/2", "head"), Probe("/srv/z", "names"), Probe("/srv/none/*")]
        )
        assert list(found) == ["/srv/z", "/srv/z/1", "/srv/z/2", "/srv/z/3"]
        assert found.names("/srv/z") == ("1", "2", "3")
        assert found.content("/srv/z/3") == b"one"
        assert found.get("/srv/z/3") == Symlink("1")
        assert found.content("/srv/z/2") == LARGE[:64]
        assert isinstance(one := found.get("/srv/z/1"), File)
        assert one.sha256 == hashlib.sha256(b"one").hexdigest()

    def test_content_that_is_not_utf8(self, tree: Tree) -> None:
        raw = bytes(range(256))
        tree.apply([Write("/srv/raw", raw)], {})
        assert file(tree, "/srv/raw").content == raw
