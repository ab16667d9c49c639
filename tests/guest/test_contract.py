"""The contract on an image, by either engine; with libguestfs in one appliance for all of it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import LARGE, SHA256, Contract

from bake import disk, engine
from bake.engine import Engine, Tree
from firstboot.edits import Link, Write
from firstboot.errors import UserError
from firstboot.snapshot import File, Folder, Probe, Special
from guest.conftest import ENGINES
from guest.look import Image, tool

FAT_LEFT = 12_000_000
"""Bytes that are free on the boot partition."""

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module", params=ENGINES)
def image(base: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    image = tmp_path_factory.mktemp("contract") / f"{request.param}.img"
    subprocess.run(["cp", "--sparse=always", base, image], check=True)
    tool("debugfs", "-w", "-f", "-", Image(image).root, text="cd /srv\nmknod fifo p\n")
    filler = image.with_name("filler")
    with filler.open("wb") as stream:
        stream.truncate(
            int(re.sub(r"\D", "", tool("mdir", "-i", Image(image).fat).splitlines()[-2])) - FAT_LEFT
        )
    tool("mcopy", "-i", Image(image).fat, filler, "::filler")
    return image


@pytest.fixture(scope="module")
def tree(image: Path) -> Iterator[Tree]:
    chosen = Engine(image.stem)
    with engine.opened(chosen, image, disk.read_disk(image), print) as opened:
        yield opened
    Image(image).fsck(image.parent)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("sources") / "large"
    path.write_bytes(LARGE)
    return {SHA256: str(path)}


class TestImage(Contract):
    def test_owners_of_files_and_of_folders_made_for_them(self, tree: Tree) -> None:
        tree.apply([Write("/home/pi/new/file", b"x", 0o600, 1000, 1000)], {})
        found = tree.read([Probe("/home/pi/new"), Probe("/home/pi/new/file")])
        assert found.get("/home/pi/new") == Folder((), 0o700, 1000, 1000)
        inside = found.get("/home/pi/new/file")
        assert isinstance(inside, File)
        assert (inside.mode, inside.owner, inside.group) == (0o600, 1000, 1000)

    def test_large_owners_and_special_modes(self, tree: Tree) -> None:
        tree.apply([Write("/srv/large", b"x", 0o4755, 100_000, 70_000)], {})
        found = tree.read([Probe("/srv/large")]).get("/srv/large")
        assert isinstance(found, File)
        assert (found.mode, found.owner, found.group) == (0o4755, 100_000, 70_000)

    def test_special_files_are_seen_and_left(self, tree: Tree) -> None:
        with pytest.raises(UserError, match="in the way"):
            tree.apply([Write("/srv/fifo", b"x")], {})
        assert tree.read([Probe("/srv/fifo")]).get("/srv/fifo") == Special()

    def test_names_on_the_fat_that_differ_only_in_case_are_one_file(self, tree: Tree) -> None:
        tree.apply([Write("/boot/Settings.TXT", b"1"), Write("/boot/settings.txt", b"2")], {})
        found = tree.read([Probe("/boot/SETTINGS.txt"), Probe("/boot", "names")])
        assert found.content("/boot/SETTINGS.txt") == b"2"
        assert [name for name in found.names("/boot") if name.lower() == "settings.txt"] == ["settings.txt"]

    def test_folders_and_odd_names_on_the_fat(self, tree: Tree) -> None:
        names = ["a b.txt", "brackets [1].txt", "-dash", "q'u$o&te#s", "x" * 200, "tilde~1", ".hidden"]
        edits = [Write(f"/boot/made/deep/{name}", name.encode()) for name in names]
        tree.apply(edits, {})
        found = tree.read([Probe("/boot/made/deep", "names"), Probe("/boot/made/deep/*")])
        assert found.names("/boot/made/deep") == tuple(sorted(names))
        for name in names:
            assert found.content(f"/boot/made/deep/{name}") == name.encode()

    def test_no_link_on_the_fat(self, tree: Tree) -> None:
        with pytest.raises(UserError):
            tree.apply([Link("/boot/link", "config.txt")], {})
        assert tree.read([Probe("/boot/link")]).get("/boot/link") is None

    def test_a_full_fat_is_worded(self, tree: Tree) -> None:
        with pytest.raises(UserError, match="no room left|/boot/filling"):
            for number in range(FAT_LEFT // 3_900_000 + 1):  # as much as one message takes
                tree.apply([Write(f"/boot/filling{number}", bytes(3_900_000))], {})
