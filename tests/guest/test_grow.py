"""A root that grows over what its free blocks still hold: the rest of files deleted long ago."""

from pathlib import Path

import pytest

from bake import disk
from guest.look import SECTOR, Image, tool

pytestmark = pytest.mark.guest

MIB = 1 << 20


@pytest.mark.parametrize(
    "features", ["^metadata_csum,^64bit", "metadata_csum,64bit"], ids=["Raspbian", "Debian"]
)
def test_what_was_deleted_does_not_come_back_as_an_inode_table(tmp_path: Path, features: str) -> None:
    """resize2fs empties new inode tables by punching holes, in free blocks of the old part too."""
    image, root, junk = tmp_path / "image", tmp_path / "root", tmp_path / "junk"
    junk.write_bytes(b"JUNK" * (60 * MIB))
    with root.open("wb") as stream:
        stream.truncate(300 * MIB)
    tool("mke2fs", "-q", "-F", "-t", "ext4", "-O", features, root)
    tool("debugfs", "-w", "-f", "-", root, text=f"write {junk} junk\nrm junk\n")
    with image.open("wb") as stream:
        stream.truncate(364 * MIB)
    table = "label: dos\nstart=2048,size=65536,type=c\nstart=69632,size=614400,type=83\n"
    tool("sfdisk", "-q", image, text=table)
    tool("mkfs.vfat", "-F", "32", "-s", "1", "--offset=2048", image, 32 * 1024)
    tool(
        "dd",
        f"if={root}",
        f"of={image}",
        f"bs={SECTOR * 8}",
        f"seek={69632 // 8}",
        "conv=notrunc,sparse",
        "status=none",
    )
    Image(image).fsck(tmp_path)
    disk.grow(image, disk.read_sound_disk(image), 400 * MIB, tmp_path, disk.EARLIEST)
    assert Image(image).parts[1][1] >= 700 * MIB
    Image(image).fsck(tmp_path)
