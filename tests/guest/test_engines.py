"""What the two engines owe each other, and what only e2fs promises."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guest.baked import Baked, bake, sparse_airgap
from guest.conftest import CLI, Done, Run, refused, sha256
from guest.look import Image, tool
from guest.small import dumped, listed

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def worker(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Baked:
    return bake(
        cli, base, tmp_path_factory.mktemp("e2fs") / "w.img", "--role", "worker", "--engine", "e2fs", *k3s
    )


@pytest.mark.libguestfs
def test_both_leave_the_same_tree(
    worker: Baked, cli: Run, base: Path, k3s: list[str], tmp_path: Path
) -> None:
    """Path, kind, mode, owner, content and link target of all, the base's own files included."""
    other = bake(cli, base, tmp_path / "w.img", "--role", "worker", "--engine", "guestfs", *k3s)
    assert worker.manifest["edits"] == other.manifest["edits"]
    ours, theirs = (
        listed(dumped(baked.path, tmp_path / name)) for name, baked in (("e2fs", worker), ("guestfs", other))
    )
    assert "/usr/local/bin/k3s" in ours
    assert ours == theirs


def test_baked_again_elsewhere_it_is_the_same_to_the_byte(
    worker: Baked, cli: Run, base: Path, k3s: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    """Another name, another time zone, another moment, a copy of the base with another date."""
    copy = tmp_path / "copy.img"
    subprocess.run(["cp", "--sparse=always", base, copy], check=True)
    (tmp_path / "more").mkdir()
    command = [CLI, "image", "--base", copy, "--role", "worker", "--engine", "e2fs", *k3s]
    subprocess.run(
        [*map(str, command), "--output", str(tmp_path / "more" / "x.img")],
        env={**environment, "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert sha256(tmp_path / "more" / "x.img") == sha256(worker.path)


def test_source_date_epoch_is_the_time_of_all_that_is_written(
    base: Path, k3s: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    """Also where root has to grow: made twice, the images are the same."""
    epoch = 1_750_000_000
    command = [CLI, "image", "--base", base, "--role", "worker", "--engine", "e2fs", *k3s]
    command += ["--airgap", sparse_airgap(tmp_path)]
    for name in ("1.img", "2.img"):
        subprocess.run(
            [*map(str, command), "--output", str(tmp_path / name)],
            env={**environment, "SOURCE_DATE_EPOCH": str(epoch)},
            capture_output=True,
            check=True,
        )
    assert (tmp_path / "1.img").stat().st_size > base.stat().st_size
    assert sha256(tmp_path / "1.img") == sha256(tmp_path / "2.img")
    image = Image(tmp_path / "1.img")
    assert f"mtime: 0x{epoch:08x}" in image.debugfs("stat /etc/rancher/k3s/config.yaml")
    assert image.text("/etc/fake-hwclock.data") == "2025-06-15 00:00:00\n"
    assert "2025-06-15" in tool("mdir", "-i", image.fat, "::cmdline.txt")


def test_all_nodes_of_a_file_each_as_if_made_alone(
    cli: Run, base: Path, k3s: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    nodes = [("m1", "master"), ("w1", "worker"), ("w2", "worker")]
    file.write_text(
        '[cluster]\nname = "home"\n' + "".join(f'[[node]]\nname = "{n}"\nrole = "{r}"\n' for n, r in nodes)
    )
    for folder in ("together", "alone"):
        (tmp_path / folder).mkdir()
    given = ["--file", file, "--base", base, "--engine", "e2fs", *k3s]
    done = cli("image", "--all", *given, "--output", tmp_path / "together", "--json")
    assert done.code == 0, done.err
    made = [Path(one["image"]).name for one in json.loads(done.out)]
    assert made == ["home-m1.img", "home-w1.img", "home-w2.img"]
    for name, _ in nodes:
        bake(cli, base, tmp_path / "alone" / f"home-{name}.img", "--name", name, *given[:2], *given[4:])
        image = f"home-{name}.img"
        assert sha256(tmp_path / "together" / image) == sha256(tmp_path / "alone" / image)
        assert Image(tmp_path / "together" / image).text("/etc/hostname") == f"{name}\n"
    left = {path.name for path in (tmp_path / "together").iterdir()}
    assert left == {name + end for name in made for end in ("", ".bmap", ".manifest.json")}


def test_timings_are_told_and_kept(
    worker: Baked, cli: Run, base: Path, k3s: list[str], tmp_path: Path
) -> None:
    parts = {"copy", "stage", "read", "plan", "apply", "check", "hash"}
    assert parts <= worker.manifest["seconds"].keys()
    given = ["--role", "worker", "--base", base, *k3s, "--output", tmp_path / "w.img", "--timings"]
    done = cli("image", *given)
    assert parts <= set(re.findall(r"^([a-z -]+?) +\d+\.\d{3}", done.out, re.MULTILINE))


def without_guestfs(environment: dict[str, str], *arguments: object) -> Done:
    """The same program in a Python where an import of guestfs ends the test."""
    program = "import sys; sys.modules['guestfs'] = None; from k3s_bake.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_guestfs_is_never_imported_where_it_is_not_installed(
    environment: dict[str, str], base: Path, k3s: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "w.img"
    done = without_guestfs(environment, "image", "--role", "worker", "--base", base, *k3s, "--output", output)
    assert done.code == 0, done.err
    assert without_guestfs(environment, "inspect", output).code == 0


@pytest.mark.parametrize(
    ("tool_name", "version", "words"),
    [
        ("debugfs", None, "debugfs is not installed"),
        ("debugfs", "debugfs 1.44.5 (15-Dec-2018)", "debugfs 1.44.5 is too old: 1.45 is needed"),
        ("mcopy", "mcopy (GNU mtools) 4.0.18", "mcopy 4.0.18 is too old: 4.0.24 is needed"),
    ],
)
def test_tools_missing_or_too_old(
    environment: dict[str, str],
    base: Path,
    k3s: list[str],
    place: Path,
    tmp_path: Path,
    tool_name: str,
    version: str | None,
    words: str,
) -> None:
    """A PATH of this test's own: all tools, one of them replaced or left out."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sfdisk", "blkid", "dumpe2fs", "debugfs", "mcopy", "mdir", "mtype", "mdel", "e2fsck"):
        found = next(path for path in map(Path, ("/usr/sbin", "/usr/bin", "/sbin")) if (path / name).exists())
        if name != tool_name:
            shutil.copy(found / name, folder)
        elif version:
            says = f"case $1 in -V | --version) echo '{version}' >&2;; *) exec {found / name} \"$@\";; esac"
            (folder / name).write_text(f"#!/bin/sh\n{says}\n")
            (folder / name).chmod(0o755)
    given = ["--role", "worker", "--base", base, *k3s, "--engine", "e2fs", "--output", place / "w.img"]
    if version is None:  # /usr/sbin is looked into as well: hide it
        script = f'mount --bind {folder} /usr/sbin && exec "$@"'
        command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["-r"]), "sh", "-c", script, "sh"]
    else:
        command = []
    done = subprocess.run(
        [*command, str(CLI), "image", *map(str, given)],
        env={**environment, "PATH": str(folder) if version else os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = Done(done.returncode, done.stdout, done.stderr)
    refused(shown, place, words)
    assert "apt install" in shown.error
