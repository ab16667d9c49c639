"""Any edits give the same tree by debugfs and mtools as on a folder; and a sound file system."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bake import disk, e2fs
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.errors import UserError
from firstboot.tree import FolderTree
from guest.look import Image
from guest.small import dumped, listed, small_image

pytestmark = pytest.mark.guest

NAMES = [
    "a",
    "b",
    "etc",
    "big",
    "with space",
    "ü'\"$\\",
    "-dash",
    "n" * 240,
    "[x]*?",
    "#",
    ".hidden",
    "tab\t",
    "<12>",
    "<2>",
]
FAT_NAMES = ["config.txt", "a", "Long name of a file.text", "deep"]
TARGETS = [
    "a",
    "b",
    "/a",
    "../a",
    "../../b/etc",
    "/",
    "with space",
    "x" * 59,
    "y" * 60,
    ("z" * 99 + "/") * 3,
    "ü\"'$",
    "big",
]
SIZES = [0, 1, 59, 60, 1024, 1025, 5000, 70_000]

names = st.sampled_from(NAMES)
paths = st.one_of(
    st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    st.lists(st.sampled_from(FAT_NAMES), min_size=1, max_size=2).map(
        lambda parts: "/boot/" + "/".join(parts)
    ),
    st.integers(0, 239).map(lambda number: f"/big/{number:03}-{'long' * 8}"),
)
users = st.sampled_from([0, 1000, 70_000] if os.geteuid() == 0 else [0])
access = {"mode": st.sampled_from([0o644, 0o600, 0o755, 0o711]), "owner": users, "group": users}
contents = st.tuples(st.sampled_from(SIZES), st.binary(min_size=1, max_size=3)).map(
    lambda made: (made[1] * made[0])[: made[0]]
)
SPARSE = b"head" + bytes(200_000) + b"tail"
SHA256 = hashlib.sha256(SPARSE).hexdigest()
edits = st.one_of(
    st.builds(Write, path=paths, content=contents, **access),  # type: ignore[arg-type]
    st.builds(Place, path=paths, sha256=st.just(SHA256), size=st.just(len(SPARSE)), **access),  # type: ignore[arg-type]
    st.builds(
        Link, path=paths.filter(lambda path: not path.startswith("/boot/")), target=st.sampled_from(TARGETS)
    ),
    st.builds(Remove, path=paths),
)


@pytest.fixture(
    scope="module", params=[(1024, ""), (4096, ",metadata_csum,64bit")], ids=["as Raspbian", "as Debian"]
)
def template(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder, and an image of it: with hard links, an indexed folder, links short and long."""
    top = tmp_path_factory.mktemp("template")
    folder = top / "folder"
    for made in ("etc", "boot", "a/etc", "big"):
        (folder / made).mkdir(parents=True)
    (folder / "etc/fstab").write_text("PARTUUID=12345678-01 /boot vfat defaults 0 2\n")
    (folder / "a/b").write_text("two names")
    (folder / "a/etc/a").hardlink_to(folder / "a/b")
    (folder / "b").symlink_to("a/etc")
    (folder / "a/with space").symlink_to("/" + "etc/../" * 20 + "a")
    for number in range(0, 240, 2):
        (folder / f"big/{number:03}-{'long' * 8}").write_text(str(number))
    block, options = request.param
    small_image(top / "image", folder, block=block, options=options)
    (top / "large").write_bytes(b"")
    with (top / "large").open("r+b") as large:  # with a hole
        large.write(b"head")
        large.seek(len(SPARSE) - 4)
        large.write(b"tail")
    return top


@settings(
    max_examples=100,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.lists(edits, min_size=1, max_size=12), min_size=1, max_size=3))
def test_as_on_a_folder(template: Path, batches: list[list[Edit]]) -> None:
    work = template / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copytree(template / "folder", work / "folder", symlinks=True)
    image = work / "image"
    shutil.copyfile(template / "image", image)
    folder = FolderTree(str(work / "folder"), ["/boot"])
    sources = {SHA256: str(template / "large")}
    for batch in batches:
        pending: list[Edit] = []
        for edit in batch:
            try:
                folder.apply([edit], sources)
                pending.append(edit)
            except UserError:
                apply(image, pending, sources)
                pending = []
                with pytest.raises(UserError):
                    apply(image, [edit], sources)
        apply(image, pending, sources)
    Image(image).fsck(work)
    assert listed(dumped(image, work / "dumped")) == listed(work / "folder")


def apply(image: Path, edits: list[Edit], sources: dict[str, str]) -> None:
    with e2fs.opened(image, disk.read_disk(image)) as tree:
        tree.apply(edits, sources)
