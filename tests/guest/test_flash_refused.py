"""What k3s-bake flash must refuse, before a byte is written."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from guest.conftest import Run
from guest.look import tool
from guest.loops import Loop, Make, attached
from guest.terminal import Terminal

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root alone"),
]


def refused(
    cli: Run, image: Path, card: Loop, words: str, *options: object, path: Path | None = None
) -> None:
    before = card.head()
    done = cli("flash", image, path or card.path, *options, "--yes")
    assert done.code == 2, done.err + done.out
    assert words in done.error, done.err
    assert done.error.count("hint:") == 1
    assert "Traceback" not in done.err
    assert card.head() == before


def test_what_is_mounted(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop(64)
    tool("mkfs.ext4", "-q", card.path)
    (tmp_path / "mnt").mkdir()
    tool("mount", card.path, tmp_path / "mnt")
    try:
        refused(
            cli, worker, card, f"is never written: {card.path.name} is mounted on {tmp_path}/mnt", "--force"
        )
    finally:
        tool("umount", tmp_path / "mnt")


def test_what_stands_for_something_that_is_mounted(
    cli: Run, worker: Path, loop: Make, tmp_path: Path
) -> None:
    """The kernel lets a second loop device be opened alone, whatever becomes of the first."""
    card = loop(64)
    tool("mkfs.ext4", "-q", card.path)
    (tmp_path / "mnt").mkdir()
    tool("mount", card.path, tmp_path / "mnt")
    try:
        with attached(card.path, None) as over:
            refused(cli, worker, card, "it stands for a device", "--force", path=over.path)
        with attached(card.file, None) as beside:
            refused(cli, worker, card, "the file behind it is in use", "--force", path=beside.path)
    finally:
        tool("umount", tmp_path / "mnt")


def test_a_card_that_is_swapped_while_the_question_stands(
    worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """For one of the same size, in the same reader."""
    card = loop()
    if not Path(f"/sys/block/{card.path.name}/diskseq").exists():
        pytest.skip("this kernel does not count cards: Linux 5.15 does")
    other = tmp_path / "other"
    other.touch()
    os.truncate(other, card.file.stat().st_size)
    flash = Terminal(environment, "flash", worker, card.path)
    flash.expect("Erase it? [y/N]: ")
    tool("losetup", "--detach", card.path)
    tool("losetup", card.path, other)
    flash.say("y")
    assert flash.end() == 2
    assert "is another card now" in flash.heard
    for file in (card.file, other):
        with file.open("rb") as stream:
            assert not any(stream.read(1 << 20))


def test_a_card_that_is_pulled_out_while_the_question_stands(
    worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """No file comes in its place."""
    node, card = tmp_path / "card", loop()
    os.mknod(node, 0o600 | stat.S_IFBLK, card.path.stat().st_rdev)
    flash = Terminal(environment, "flash", worker, node)
    flash.expect("Erase it? [y/N]: ")
    node.unlink()
    flash.say("y")
    assert flash.end() == 2
    assert "is not there any more" in flash.heard
    assert not node.exists()


def test_what_is_swapped_to(cli: Run, worker: Path, loop: Make) -> None:
    card = loop(64)
    tool("mkswap", card.path)
    done = subprocess.run(["swapon", card.path], capture_output=True)
    if done.returncode:
        pytest.skip("no swap can be turned on here")
    try:
        refused(cli, worker, card, "is swapped to", "--force")
    finally:
        tool("swapoff", card.path)


def test_what_is_claimed_by_another(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    handle = os.open(card.path, os.O_RDWR | os.O_EXCL)
    try:
        refused(cli, worker, card, f"{card.path} is in use")
    finally:
        os.close(handle)


def test_what_is_write_protected(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    tool("blockdev", "--setro", card.path)
    try:
        refused(cli, worker, card, "it is write-protected")
    finally:
        tool("blockdev", "--setrw", card.path)  # it would outlive the device


def test_what_is_too_small(cli: Run, worker: Path, loop: Make) -> None:
    refused(cli, worker, loop(64), "has 0.1 GB, and the image needs 1.6 GB")


def test_a_partition(cli: Run, worker: Path, loop: Make) -> None:
    card = loop(64)
    tool("sfdisk", "-q", card.path, text="label: dos\nstart=2048\n")
    subprocess.run(["partx", "--add", card.path], capture_output=True, check=False)
    part = Path(f"{card.path}p1")
    if not part.exists():
        pytest.skip("partitions of loop devices do not appear here")
    refused(cli, worker, card, f"{part} is a part of {card.path}", path=part)
    subprocess.run(["partx", "--delete", card.path], capture_output=True, check=False)


def test_one_card_by_two_names(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop()
    (tmp_path / "link").symlink_to(card.path)
    refused(cli, worker, card, "is named twice", tmp_path / "link")


def test_the_image_itself(cli: Run, worker: Path, tmp_path: Path) -> None:
    with attached(worker, None) as card:
        refused(cli, worker, card, f"{worker} itself is what {card.path} stands for", "--no-stamp")
    done = cli("flash", worker, worker, "--force", "--no-stamp")
    assert done.code == 2
    assert "is the image itself" in done.error


def test_nobody_to_ask(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    done = cli("flash", worker, card.path)
    assert done.code == 2
    assert "nobody is there to be asked" in done.error
    assert not any(card.head())


def test_images_that_are_none(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card, spoilt = loop(), tmp_path / "spoilt.img"
    with worker.open("rb") as whole:
        spoilt.write_bytes(whole.read(100 << 20))
    refused(cli, spoilt, card, "is truncated")
    spoilt.write_text("no image at all\n" * 100)
    refused(cli, spoilt, card, "has no partition table")
    spoilt.write_bytes(b"")
    refused(cli, spoilt, card, "has no partition table")
    refused(cli, tmp_path / "none.img", card, "does not exist")
    refused(cli, tmp_path, card, "is not a file")


def test_a_block_map_that_is_garbled(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card, copy = loop(), tmp_path / "copy.img"
    copy.symlink_to(worker)
    (tmp_path / "copy.img.bmap").write_text(Path(f"{worker}.bmap").read_text().replace("sha256", "sha1"))
    refused(cli, copy, card, "copy.img.bmap is no block map that k3s-bake knows")
    done = cli("flash", copy, card.path, "--yes", "--no-bmap", "--no-stamp", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["receipt"]["bytes_written"] == worker.stat().st_size


def test_a_file_is_not_replaced_by_mistake(cli: Run, worker: Path, tmp_path: Path) -> None:
    (tmp_path / "card.img").write_text("mine")
    done = cli("flash", worker, tmp_path / "card.img")
    assert done.code == 2
    assert "is there already" in done.error
    assert (tmp_path / "card.img").read_text() == "mine"
    for path, words in (
        (tmp_path, "neither a device nor a file"),
        (tmp_path / "no/card.img", "there is no folder"),
    ):
        done = cli("flash", worker, path)
        assert done.code == 2
        assert words in done.error


def test_a_name_without_its_folder(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop()
    done = cli("flash", worker, card.path.name, cwd=tmp_path)
    assert done.code == 2
    assert f"Do you mean {card.path}?" in done.error
    assert list(tmp_path.glob(card.path.name)) == []
