"""What can be wrong with the place of the output and with this machine."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from guest.conftest import CLI, Done, Run, refused

pytestmark = pytest.mark.guest


def test_output(cli: Run, base: Path, k3s: list[str], copy: Path, place: Path, tmp_path: Path) -> None:
    def run(output: Path, given: Path = base) -> Done:
        return cli("image", "--role", "worker", "--base", given, *k3s, "--output", output)

    refused(run(copy, copy), place, "the base image itself")
    refused(run(tmp_path / "none" / "w.img"), place, "does not exist")
    refused(run(place), place, "is not a file")
    (tmp_path / "x.bmap").symlink_to(copy)
    refused(run(tmp_path / "x", copy), place, "is the base image itself")
    (tmp_path / "y.bmap").mkdir()
    refused(run(tmp_path / "y"), place, "is not a file")
    there = tmp_path / "there.img"
    there.write_text("precious")
    refused(run(there), place, "is there already")
    assert there.read_text() == "precious"
    own = ["--role", "worker", "--base", base, "--k3s", there, "--output", there, "--force"]
    refused(cli("image", *own), place, "is no image, so it is not replaced")
    assert there.read_text() == "precious"


@pytest.fixture
def mounted(environment: dict[str, str], base: Path, k3s: list[str], place: Path) -> Callable[..., Done]:
    """Bake with a tmpfs mounted somewhere, in a mount namespace of the test's own."""

    def run(options: str, point: Path, meanwhile: str = "", engine: str = "auto") -> Done:
        script = (
            f'mount -t tmpfs -o {options} none "$0" || exit 99\n{meanwhile}\n"$@"; code=$?\n'
            f'[ -z "$!" ] || kill $! 2> /dev/null\n[ -e {place}/w.img ] || echo "no image"; exit $code'
        )
        # An ordinary user mounts as root of a namespace of his own, and runs the rest as himself again:
        # libguestfs keeps an appliance for each user.
        root, again = ["-r"], ["unshare", "--user", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}"]
        if os.geteuid() == 0:
            root, again = [], []
        image = ["image", "--role", "worker", "--base", base, *k3s, "--engine", engine]
        image += ["--output", place / "w.img"]
        command = ["unshare", "--mount", *root, "sh", "-c", script, point, *again, CLI, *image]
        done = subprocess.run(
            [*map(str, command)], env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def test_output_folder_not_writable(mounted: Callable[..., Done], place: Path) -> None:
    refused(mounted("ro", place), place, "cannot write to")


def test_disk_full(mounted: Callable[..., Done], place: Path) -> None:
    refused(mounted("size=64m", place), place, "64 MiB free, and")


def test_disk_that_fills_up_before_anything_is_staged(
    mounted: Callable[..., Done],
    place: Path,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something else takes the rest of the disk while the image is edited from outside."""
    debugfs = tmp_path / "bin" / "debugfs"
    debugfs.parent.mkdir()
    full = f'[ "$1" != -w ] || cat /dev/zero > {place}/filler 2> /dev/null'
    debugfs.write_text(f'#!/bin/sh\n{full}\nexec /usr/sbin/debugfs "$@"\n')
    debugfs.chmod(0o755)
    monkeypatch.setitem(environment, "PATH", f"{debugfs.parent}:{environment['PATH']}")
    done = mounted("size=640m", place, engine="e2fs")
    assert done.code == 1, done.err
    assert done.error.startswith("error: ")
    assert "Traceback" not in done.err
    assert done.out == "no image\n"


@pytest.mark.libguestfs
def test_disk_that_fills_up(
    mounted: Callable[..., Done],
    place: Path,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Something else takes the rest of the disk while the appliance starts: no image, no endless wait."""
    scratch = tmp_path / "scratch"  # libguestfs makes a folder there when it starts its appliance
    scratch.mkdir()
    monkeypatch.setitem(environment, "LIBGUESTFS_TMPDIR", str(scratch))
    fill = f"until ls -d {scratch}/libguestfs*; do sleep 0.1; done; cat /dev/zero > {place}/filler"
    done = mounted("size=640m", place, f"({fill}) > /dev/null 2>&1 &", engine="guestfs")
    assert done.code == 1, done.err
    assert done.error.startswith("error: ")
    assert "Traceback" not in done.err
    assert done.out == "no image\n"


@pytest.mark.libguestfs
def test_no_appliance_kernel(
    mounted: Callable[..., Done],
    place: Path,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/boot is empty, and there is no appliance in the cache."""
    monkeypatch.setitem(environment, "LIBGUESTFS_CACHEDIR", str(tmp_path))
    refused(mounted("ro", Path("/boot"), engine="guestfs"), place, "no kernel for its appliance")


def test_no_guestfs_binding(environment: dict[str, str], base: Path, k3s: list[str], place: Path) -> None:
    """The same program in a Python that cannot import guestfs."""
    program = "import sys; sys.modules['guestfs'] = None; from k3s_bake.cli import main; main()"
    command = [
        str(CLI.with_name("python")),
        "-c",
        program,
        "image",
        "--role",
        "worker",
        "--base",
        str(base),
        *k3s,
        "--engine",
        "guestfs",
    ]
    done = subprocess.run(
        [*command, "--output", str(place / "w.img")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = Done(done.returncode, done.stdout, done.stderr)
    refused(shown, place, "libguestfs binding for Python is missing")
    assert "apt install python3-guestfs" in shown.error
