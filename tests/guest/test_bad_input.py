"""What can be wrong with what a person gives: one line, a hint, exit code 2, nothing left behind.

What is wrong inside an image's files is tested on a folder, in tests/unit/test_concerns.py: here once, to see
that it comes out the same way. All else is refused before an engine opens the image.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from guest.conftest import Run, refused
from guest.look import Image, tool

pytestmark = pytest.mark.guest

MIB = 1 << 20


def partitioned(path: Path, script: str, size: int = 64 * MIB) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    tool("sfdisk", "-q", path, text=script)
    return path


def text(path: Path) -> Path:
    path.write_text("not an image\n" * 9)
    return path


def without_table(path: Path) -> Path:
    with path.open("wb") as stream:
        stream.truncate(8 * MIB)
    return path


def no_ext4(path: Path) -> Path:
    partitioned(path, "label: dos\nstart=8192,type=c\n")
    tool("mkfs.vfat", "-F", "32", "-s", "1", "--offset=8192", path, (64 * MIB - 8192 * 512) // 1024)
    return path


def no_fat(path: Path) -> Path:
    partitioned(path, "label: dos\nstart=8192,type=83\n")
    tool("mke2fs", "-q", "-t", "ext4", "-E", f"offset={8192 * 512}", path, "50m")
    return path


def lvm(path: Path) -> Path:
    """The label that pvcreate writes in a physical volume's second sector, without being root."""
    partitioned(path, "label: dos\nstart=8192,type=8e\n")
    with path.open("r+b") as stream:
        stream.seek(8192 * 512 + 512)
        stream.write(
            b"LABELONE" + (1).to_bytes(8, "little") + bytes(4) + (32).to_bytes(4, "little") + b"LVM2 001"
        )
    return path


def encrypted(path: Path) -> Path:
    """The head of a LUKS 1 partition."""
    partitioned(path, "label: dos\nstart=8192,type=83\n")
    with path.open("r+b") as stream:
        stream.seek(8192 * 512)
        stream.write(b"LUKS\xba\xbe\x00\x01" + b"aes".ljust(32, b"\0"))
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path, "does not exist"),
        (lambda path: (path.mkdir(), path)[1], "is not a file"),
        (lambda path: (path.touch(), path)[1], "is empty"),
        (text, "no partition table"),
        (without_table, "no partition table"),
        (no_ext4, "no ext4 partition"),
        (no_fat, "no FAT partition"),
        (lvm, "LVM"),
        (encrypted, "encrypted root"),
    ],
    ids=["missing", "folder", "empty", "text", "no table", "no ext4", "no FAT", "LVM", "encrypted"],
)
def test_base(
    cli: Run, k3s: list[str], tmp_path: Path, place: Path, make: Callable[[Path], Path], words: str
) -> None:
    base = make(tmp_path / "base.img")
    refused(cli("image", "--role", "worker", "--base", base, *k3s, "--output", place / "w.img"), place, words)


def test_base_truncated(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    os.truncate(copy, copy.stat().st_size // 2)
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "is truncated")


def test_base_not_closed_cleanly(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    Image(copy).debugfs("feature needs_recovery", write=True)
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "not closed cleanly")


def test_fat_not_closed_cleanly(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    """As Linux leaves it when a card is pulled from a running Pi."""
    with copy.open("r+b") as stream:
        stream.seek(Image(copy).parts[0][0] + 0x41)
        stream.write(b"\x01")
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "FAT file system of")


def test_root_that_cannot_grow(cli: Run, k3s: list[str], copy: Path, place: Path, tmp_path: Path) -> None:
    """Another partition comes after it, and what is to be staged does not fit."""
    start, size = Image(copy).parts[-1]
    os.truncate(copy, start + size + 8 * MIB)
    tool("sfdisk", "-q", "--append", copy, text=f"start={(start + size) // 512},type=83\n")
    airgap = tmp_path / "k3s-airgap-images-arm.tar"
    with airgap.open("wb") as stream:
        stream.truncate(size)
    given = ["--base", copy, *k3s, "--airgap", airgap, "--output", place / "w.img"]
    refused(cli("image", "--role", "worker", *given), place, "root cannot grow")


def test_base_not_debian(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    Image(copy).remove("/usr/bin/dpkg")
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "no Debian system")


def test_base_of_another_processor(cli: Run, k3s: list[str], copy: Path, place: Path, tmp_path: Path) -> None:
    Image(copy).write(
        "/usr/bin/dpkg", b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\xf3\0" + bytes(44), tmp_path
    )
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "unknown processor")


def test_what_is_wrong_inside_comes_out_the_same_way(
    cli: Run, k3s: list[str], engine: list[str], copy: Path, place: Path
) -> None:
    tool("mdel", "-i", Image(copy).fat, "::cmdline.txt")
    done = cli("image", "--role", "worker", "--base", copy, *engine, *k3s, "--output", place / "w.img")
    refused(done, place, "no /boot/cmdline.txt")


def test_gpt_works_where_it_is_readable(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    """Partitions stay where they are; room for GPT's second table is at the end."""
    parts = Image(copy).parts
    os.truncate(copy, copy.stat().st_size + 4 * MIB)
    (boot, boot_size), (root, root_size) = parts
    script = (
        f"label: gpt\nstart={boot // 512},size={boot_size // 512},type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n"
    )
    tool(
        "sfdisk", "-q", "--wipe", "never", copy, text=f"{script}start={root // 512},size={root_size // 512}\n"
    )
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    assert done.code == 0, done.err
    assert "cgroup_enable=memory" in Image(place / "w.img").boot("cmdline.txt")


def test_a_full_fat_is_enough(cli: Run, k3s: list[str], copy: Path, place: Path, tmp_path: Path) -> None:
    """The one edit there replaces a file by one of its size."""
    filler = tmp_path / "filler"
    filler.write_bytes(b"x" * (255 * MIB))
    subprocess.run(["mcopy", "-i", Image(copy).fat, filler, "::filler"], capture_output=True, check=False)
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cluster", "../x"], "cannot be a cluster name"),
        (["--cluster", "x" * 64], "cannot be a cluster name"),
        (["--name", "Pi"], "cannot be a node name"),
        (["--name", "a.b"], "cannot be a node name"),
        (["--server", "10.0.0.2"], "not a master's URL"),
        (["--network", "10.0.0.300/8"], "not a network"),
        (["--datastore", "etcd"], "no datastore"),
        (["--address", "10.0.0.3/24"], "needs a gateway"),
        (["--wifi-ssid", "home"], "needs its country"),
        (["--wifi-ssid", "home", "--wifi-country", "DE"], "no terminal"),
        (["--label", "foo"], "foo"),
        (["--file", "/nonexistent/cluster.toml"], "cluster.toml"),
        (["--k3s", "v1"], "v1"),
        (["--airgap", "/nonexistent.tar"], "/nonexistent.tar does not exist"),
        (["--authorized-key", "/nonexistent.pub"], "nonexistent.pub"),
        (["--role", "boss"], "boss"),
        (["--frobnicate"], "frobnicate"),
        (["--all"], "--all found no [[node]]"),
        (["--all", "--name", "a"], "for one node"),
        (["--engine", "magic"], "magic"),
    ],
    ids=lambda value: "=".join(value)[:40] if isinstance(value, list) else "",
)
def test_options(cli: Run, base: Path, k3s: list[str], place: Path, options: list[str], words: str) -> None:
    given = ["--role", "worker", "--base", base, *k3s, *options, "--output", place / "w.img"]
    refused(cli("image", *given), place, words)


def test_bad_values_are_refused_before_anything_is_fetched(cli: Run, place: Path) -> None:
    """The default base and K3s are not in this session's cache, and offline they could not be fetched."""
    for option in (["--cluster", "a b"], ["--network", "10.0.0.1/24"], ["--taint", "foo"]):
        done = cli("image", "--role", "worker", "--offline", *option, "--output", place / "w.img")
        refused(done, place, option[1])


@pytest.mark.parametrize("epoch", ["yesterday", "-1", "1", "4294967296", "1e9"])
def test_source_date_epoch(
    cli: Run,
    base: Path,
    k3s: list[str],
    place: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    epoch: str,
) -> None:
    monkeypatch.setitem(environment, "SOURCE_DATE_EPOCH", epoch)
    done = cli("image", "--role", "worker", "--base", base, *k3s, "--output", place / "w.img")
    refused(done, place, "SOURCE_DATE_EPOCH is")


def test_k3s_files(cli: Run, base: Path, tmp_path: Path, place: Path) -> None:
    amd64 = tmp_path / "k3s"
    amd64.write_bytes(Path("/bin/ls").read_bytes())
    arm = tmp_path / "k3s-armhf"  # an ARM header that promises more than is there
    arm.write_bytes(bytes.fromhex("7f454c46010101000000000000000000020028000100000000000100") + b"\xff" * 200)
    for path, words in (
        (tmp_path, "is not a file"),
        (amd64, "for amd64, but the image is armhf"),
        (arm, "cut off"),
    ):
        done = cli("image", "--role", "worker", "--base", base, "--k3s", path, "--output", place / "w.img")
        refused(done, place, words)


def test_cluster_file_wrong_in_six_ways(
    cli: Run, base: Path, k3s: list[str], place: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(
        '[cluster]\nname = "../x"\nnetwrok = "10.0.0.0/24"\ntoken = "K10secretsecret"\n'
        '[k3s.config]\nserver = "https://x:1"\n'
        '[[node]]\nname = "a"\nrole = "slave"\n[[node]]\nrole = 7\n'
    )
    done = cli("image", "--role", "worker", "--file", file, "--base", base, *k3s, "--output", place / "w.img")
    assert done.code == 2
    for words in (
        "6 mistakes",
        "cluster.name",
        "did you mean network",
        "cluster.token",
        "node[1].role",
        "node[2].role",
    ):
        assert words in done.err
    assert "K10secretsecret" not in done.err
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"text"], ids=["empty", "text"])
def test_inspect_what_is_no_image(cli: Run, tmp_path: Path, place: Path, content: bytes) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(content)
    refused(cli("inspect", path), place, "no partition table")
    refused(cli("inspect", tmp_path / "none.img"), place, "there is no image")
