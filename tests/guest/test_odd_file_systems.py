"""File systems that are damaged, full, or of a kind that e2fs does not keep: told, nothing published."""

from pathlib import Path

import pytest

from bake import disk, e2fs
from firstboot.edits import Edit, Link, Write
from firstboot.errors import UserError
from firstboot.snapshot import Probe
from guest.conftest import Run, refused
from guest.look import Image, tool
from guest.small import small_image

pytestmark = pytest.mark.guest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a root must have to be opened."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/boot").mkdir()
    (tmp_path / "root/etc/fstab").write_text("PARTUUID=12345678-01 /boot vfat defaults 0 2\n")
    return tmp_path / "root"


def apply(image: Path, *edits: Edit) -> None:
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        tree.apply(edits, {})


def test_no_inodes_left(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    small_image(image, folder, inodes=16)
    with pytest.raises(UserError, match="no room left in the image"):
        apply(image, *(Write(f"/etc/{number}", b"x") for number in range(16)))


def test_no_blocks_left(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    small_image(image, folder)
    with pytest.raises(UserError, match="no room left in the image"):
        apply(image, Write("/etc/large", b"x" * (20 << 20)))


@pytest.mark.parametrize(("kind", "kib"), [("12", 1024), ("16", 4096)])
def test_small_fats(folder: Path, tmp_path: Path, kind: str, kib: int) -> None:
    image = tmp_path / "image"
    small_image(image, folder, fat=kind, fat_kib=kib)
    apply(
        image,
        Write("/boot/Long name.text", b"1"),
        Write("/boot/cmdline.txt", b"2"),
        Write("/boot/a/b/c", b"3"),
    )
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        assert tree.read([Probe("/boot/a/b/c")]).content("/boot/a/b/c") == b"3"
    assert Image(image).boot("Long name.text") == "1"
    Image(image).fsck(tmp_path)
    with pytest.raises(UserError, match="no room left in the image"):  # of their top folder, here
        apply(image, *(Write(f"/boot/{'long' * 20}{number}", b"") for number in range(200)))


@pytest.mark.parametrize("name", ["a:b", "a*", "con?", "dot.", "space ", "x" * 256, "ü", "tab\t"])
def test_names_that_no_fat_can_have(folder: Path, tmp_path: Path, name: str) -> None:
    image = tmp_path / "image"
    small_image(image, folder)
    with pytest.raises(UserError, match="cannot be the name of a file on a FAT"):
        apply(image, Write(f"/boot/{name}", b""))


@pytest.mark.parametrize(
    "edit",
    [Link("/etc/link", "two\nlines"), Write(f"/etc/{'n' * 256}", b""), Link("/etc/link", "x" * 9000)],
    ids=["line break", "long name", "long link"],
)
def test_what_debugfs_cannot_take(folder: Path, tmp_path: Path, edit: Edit) -> None:
    image = tmp_path / "image"
    small_image(image, folder)
    before = image.read_bytes()
    with pytest.raises(UserError):
        apply(image, edit)
    assert image.read_bytes() == before


def test_a_hostile_name_in_the_image(folder: Path, tmp_path: Path) -> None:
    (folder / "etc" / "two\nlines").touch()
    image = tmp_path / "image"
    small_image(image, folder)
    with pytest.raises(UserError, match="cannot be worked with"):
        apply(image)


def test_a_file_that_claims_to_be_endless(folder: Path, tmp_path: Path) -> None:
    (folder / "etc" / "large").write_text("x")
    image = tmp_path / "image"
    small_image(image, folder)
    Image(image).debugfs("sif /etc/large size 9999999999999", write=True)
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        with pytest.raises(UserError, match="claims to have 9999999999999 bytes"):
            tree.read([Probe("/etc/large", "digest")])
        with pytest.raises(UserError, match="far too large"):
            tree.read([Probe("/etc/large")])


def test_damage_that_a_check_finds(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    """A bitmap that says free of what is in use: nothing on the way would notice."""
    Image(copy).debugfs("freeb 40000 200", write=True)
    given = ["--role", "worker", "--base", copy, *k3s, "--engine", "e2fs", "--output", place / "w.img"]
    done = cli("image", *given)
    assert done.code == 1
    assert "e2fsck failed" in done.error
    assert "Traceback" not in done.err
    assert list(place.iterdir()) == []


def test_a_file_system_with_errors(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    Image(copy).debugfs("ssv state 2", write=True)
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "has errors")


def test_features_that_no_tool_here_knows(cli: Run, k3s: list[str], copy: Path, place: Path) -> None:
    Image(copy).debugfs("feature FEATURE_I29", write=True)
    done = cli("image", "--role", "worker", "--base", copy, *k3s, "--output", place / "w.img")
    refused(done, place, "FEATURE_I29")


@pytest.mark.libguestfs
def test_features_that_debugfs_does_not_keep(
    cli: Run, k3s: list[str], copy: Path, place: Path, tmp_path: Path
) -> None:
    """Left to libguestfs, with a line that says why; where e2fs is asked for, refused by name."""
    tool("tune2fs", "-O", "quota", Image(copy).root)
    given = ["--role", "worker", "--base", copy, *k3s, "--output", place / "w.img"]
    done = cli("image", *given, "--engine", "e2fs")
    refused(done, place, "quota")
    assert "--engine guestfs" in done.error
    done = cli("image", *given)
    assert "debugfs does not keep the root's quota: using libguestfs" in done.err
    assert done.code == 0, done.err
    Image(place / "w.img").fsck(tmp_path)
    assert Image(place / "w.img").stat("/usr/local/bin/k3s") == ("regular", 0o755, 0, 0)


def test_paths_that_the_tools_would_take_apart(
    cli: Run, base: Path, k3s: list[str], place: Path, tmp_path: Path
) -> None:
    """e2fsprogs would edit the file named before the '?'."""
    for name in ("a?offset=1", "a\nb"):
        odd = tmp_path / name
        odd.mkdir()
        (odd / "base.img").symlink_to(base)
        given = ["--role", "worker", *k3s]
        refused(cli("image", *given, "--base", base, "--output", odd / "w.img"), place, "cannot take")
        refused(
            cli("image", *given, "--base", odd / "base.img", "--output", place / "w.img"),
            place,
            "cannot take",
        )


def test_a_link_of_impossible_length(folder: Path, tmp_path: Path) -> None:
    (folder / "etc" / "link").symlink_to("x" * 100)
    image = tmp_path / "image"
    small_image(image, folder)
    Image(image).debugfs("sif /etc/link size 3000000000", write=True)
    with (
        e2fs.opened(image, disk.read_disk(image)) as tree,
        pytest.raises(UserError, match="impossible length"),
    ):
        tree.read([Probe("/etc/link")])


@pytest.mark.parametrize(
    "name", ["$(touch ran)", "ab@@0", "`touch ran`", "a[b]", "a*", "a\\b", "a|b", "$HOME", "a'b\"c d"]
)
def test_no_part_of_a_path_is_run_or_expanded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """mtools hands what follows its -i to a shell where that holds such characters; 'ab' would be 'a[b]'."""
    monkeypatch.chdir(tmp_path)
    small_image(tmp_path / "ab", folder)
    before = (tmp_path / "ab").read_bytes()
    image = tmp_path / name
    image.write_bytes(before)
    apply(image, Write("/boot/cmdline.txt", b"edited"))
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        assert tree.read([Probe("/boot/cmdline.txt")]).content("/boot/cmdline.txt") == b"edited"
    assert (tmp_path / "ab").read_bytes() == before
    assert image.read_bytes() != before
    assert not (tmp_path / "ran").exists()
