"""Stopped at any moment: no output, the base untouched, and the next run works."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from guest.conftest import CLI, Run, sha256
from guest.look import Image

pytestmark = pytest.mark.guest

MOMENTS = 20


def start(environment: dict[str, str], base: Path, k3s: list[str], output: Path) -> "subprocess.Popen[bytes]":
    command = [str(CLI), "image", "--role", "worker", "--base", str(base), *k3s, "--output", str(output)]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A test run in a shell's background is started with SIGINT ignored, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_killed_at_random_moments(
    environment: dict[str, str], cli: Run, base: Path, k3s: list[str], tmp_path: Path
) -> None:
    untouched = sha256(base)
    output = tmp_path / "w.img"
    started = time.monotonic()
    assert start(environment, base, k3s, output).wait() == 0
    whole = time.monotonic() - started
    for path in tmp_path.iterdir():
        path.unlink()
    moments = random.Random()  # any moment will do
    for _ in range(MOMENTS):
        after = moments.uniform(0, whole)
        process = start(environment, base, k3s, output)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(
                process.pid, signal.SIGKILL
            )  # this process alone: QEMU and the like must notice by themselves
            process.wait()
            if output.exists():  # killed between its last step and its end: then it is whole
                Image(output).fsck(tmp_path)
                assert Image(output).stat("/usr/local/bin/k3s")
                output.unlink()
        else:  # this machine was quicker now
            assert process.returncode == 0
            output.unlink()
        for companion in (f"{output}.bmap", f"{output}.manifest.json", str(tmp_path / "fat")):
            Path(companion).unlink(missing_ok=True)
    assert sha256(base) == untouched
    done = cli("image", "--role", "worker", "--base", base, *k3s, "--output", output, "--force")
    assert done.code == 0, done.err
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["w.img", "w.img.bmap", "w.img.manifest.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_a_person(
    environment: dict[str, str], base: Path, k3s: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "w.img"
    process = start(environment, base, k3s, output)
    while not (draft := tmp_path / ".w.img.k3s-bake" / "image").exists() and process.poll() is None:
        time.sleep(0.01)
    assert draft.exists()
    os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
    assert process.wait(120) == 130
    assert list(tmp_path.iterdir()) == []


def test_two_at_once(
    environment: dict[str, str], cli: Run, base: Path, k3s: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "w.img"
    first = start(environment, base, k3s, output)
    while not (tmp_path / ".w.img.k3s-bake" / "image").exists() and first.poll() is None:
        time.sleep(0.01)
    second = cli("image", "--role", "worker", "--base", base, *k3s, "--output", output)
    assert second.code == 2
    assert "another k3s-bake is making w.img" in second.error
    assert first.wait() == 0
    assert output.exists()
