"""What the tools must not do with the machine they run on, or for an image that means ill."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from bake import disk, e2fs
from bake.process import run
from firstboot.edits import Edit, Write
from firstboot.errors import WorkFailed
from firstboot.snapshot import Probe
from guest.look import Image, tool
from guest.small import small_image

pytestmark = pytest.mark.guest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / "etc/fstab").write_text("PARTUUID=12345678-01 /boot vfat defaults 0 2\n")
    small_image(tmp_path / "image", folder)
    return tmp_path / "image"


def test_they_speak_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """glibc looks at LANGUAGE wherever the locale is not plain C; what tools say is read."""
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run("printenv", "LANGUAGE").strip() == ""
    assert run("printenv", "LC_ALL").strip() == "C.UTF-8"


ASKS = """
import sys
from pathlib import Path
from bake import disk, e2fs
from firstboot.edits import Write
from firstboot.errors import UserError
image = Path(sys.argv[1])
open("/dev/tty").close()  # there is one to ask on
try:
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        tree.apply([Write("/boot/ALONGN~1.TEX", b"x")], {})
except UserError as error:
    print("refused")
"""


def test_they_ask_nothing_on_a_terminal(image: Path, tmp_path: Path) -> None:
    """mcopy would: the name is the short form of another file's, and its question would not be seen."""
    (tmp_path / "other").write_text("other")
    tool("mcopy", "-i", Image(image).fat, tmp_path / "other", "::a long name.text")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ASKS, str(image)],
        cwd=ROOT,
        stdin=follower,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        said, _ = process.communicate(timeout=100)
    finally:
        process.kill()
        os.close(leader)
        os.close(follower)
    assert process.returncode == 0
    assert said.strip() in (b"", b"refused")


def test_a_fat_whose_folders_go_round_in_a_circle(image: Path) -> None:
    """Listed as a whole it has no end."""
    for made in ("::loop", "::loop/again"):
        tool("mmd", "-i", Image(image).fat, made)
    tool("mcopy", "-i", Image(image).fat, image.with_name("root") / "etc/fstab", "::cmdline.txt")
    content = bytearray(image.read_bytes())
    loop, again = (content.index(name.ljust(11) + b"\x10") for name in (b"LOOP", b"AGAIN"))
    content[again + 26 : again + 28] = content[loop + 26 : loop + 28]  # its first cluster
    image.write_bytes(content)
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        found = tree.read([Probe("/boot/cmdline.txt"), Probe("/boot/loop/again/again/again", "names")])
    assert found.content("/boot/cmdline.txt")
    assert found.names("/boot/loop/again/again/again") == ("again",)


def test_an_image_without_a_date_gets_the_first_that_both_file_systems_know(image: Path) -> None:
    """0 would be now to debugfs, and 1970 is 2098 on a FAT."""
    with image.open("r+b") as stream:
        stream.seek(Image(image).parts[1][0] + 1024 + 0x30)
        stream.write(bytes(4))
    edits: list[Edit] = [Write("/etc/new", b"x"), Write("/boot/new", b"x")]
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        tree.apply(edits, {})
    assert f"mtime: 0x{disk.EARLIEST:08x}" in Image(image).debugfs("stat /etc/new")
    assert "1980-01-01" in tool("mdir", "-i", Image(image).fat, "::new")


def test_a_tool_that_finds_a_disk_full_is_told_with_what_helps() -> None:
    for words, hint in (("No space left on device", "Make room on that disk."), ("no idea", "")):
        with pytest.raises(WorkFailed, match=f"sh failed: {words}") as failed:
            run("sh", "-c", f"echo {words} >&2; exit 1")
        assert failed.value.hint == hint
