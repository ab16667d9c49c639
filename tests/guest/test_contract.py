"""The contract on an image, through libguestfs, in one appliance for all of it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import LARGE, SHA256, Contract

from bake import disk, guest
from bake.guest import GuestTree
from firstboot.edits import Write
from firstboot.errors import UserError
from firstboot.snapshot import File, Folder, Probe, Special
from guest.look import Image

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def tree(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestTree]:
    folder = tmp_path_factory.mktemp("contract")
    image = folder / "image.img"
    subprocess.run(["cp", "--sparse=always", base, image], check=True)
    with guest.opened(image, disk.read_disk(image), print) as opened:
        yield opened
    Image(image).fsck(folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("sources") / "large"
    path.write_bytes(LARGE)
    return {SHA256: str(path)}


class TestGuest(Contract):
    def test_owners_of_files_and_of_folders_made_for_them(self, tree: GuestTree) -> None:
        tree.apply([Write("/home/pi/new/file", b"x", 0o600, 1000, 1000)], {})
        found = tree.read([Probe("/home/pi/new"), Probe("/home/pi/new/file")])
        assert found.get("/home/pi/new") == Folder((), 0o700, 1000, 1000)
        inside = found.get("/home/pi/new/file")
        assert isinstance(inside, File)
        assert (inside.mode, inside.owner, inside.group) == (0o600, 1000, 1000)

    def test_special_files_are_seen_and_left(self, tree: GuestTree) -> None:
        tree._guest.mkfifo(0o644, "/srv/fifo")
        with pytest.raises(UserError, match="in the way"):
            tree.apply([Write("/srv/fifo", b"x")], {})
        assert tree.read([Probe("/srv/fifo")]).get("/srv/fifo") == Special()

    def test_a_full_fat_is_worded(self, tree: GuestTree) -> None:
        with pytest.raises(UserError, match="/boot/filling"):  # 256 MiB, in pieces that one message takes
            for number in range(70):
                tree.apply([Write(f"/boot/filling{number}", bytes(3_900_000))], {})
