"""Stopped at any moment: no output, the base untouched, and the next run works."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guest.conftest import CLI, Run, sha256
from guest.look import Image

pytestmark = pytest.mark.guest

Start = Callable[[Path], "subprocess.Popen[bytes]"]


def _heed_signals() -> None:
    """A test run in a shell's background is started with some ignored, and would pass that on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def started(
    environment: dict[str, str], base: Path, options: list[str], output: Path
) -> "subprocess.Popen[bytes]":
    command = [CLI, "image", "--role", "worker", "--base", base, *options, "--output", output]
    return subprocess.Popen(
        [*map(str, command)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_heed_signals,
    )


@pytest.fixture(scope="module")
def start(environment: dict[str, str], base: Path, k3s: list[str], engine: list[str]) -> Start:
    """Start a bake in the background."""
    return lambda output: started(environment, base, [*k3s, *engine], output)


@pytest.fixture(scope="module")
def killing(
    start: Start, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, float]]:
    """A folder for bakes to be killed in, one after the other, and the seconds that a whole one takes.

    After all of them the base is what it was, and the next run works and leaves nothing of theirs.
    """
    untouched = sha256(base)
    folder = tmp_path_factory.mktemp("killing")
    started = time.monotonic()
    assert start(folder / "first.img").wait() == 0
    whole = time.monotonic() - started
    for path in folder.iterdir():
        path.unlink()
    yield folder, whole
    assert sha256(base) == untouched
    assert start(folder / "w.img").wait() == 0
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["w.img", "w.img.bmap", "w.img.manifest.json"]


MOMENTS = {"e2fs": 5, "guestfs": 2}
"""In each of the tests that follow: one that lasts is shared out better among the workers as many."""


@pytest.mark.parametrize("part", range(10))
def test_killed_at_random_moments(
    start: Start, engine: list[str], killing: tuple[Path, float], part: int
) -> None:
    """This process alone is killed: QEMU and the like must notice by themselves."""
    folder, whole = killing
    output = folder / "w.img"
    for _ in range(MOMENTS[engine[1]]):
        process = start(output)
        try:
            process.wait(random.uniform(0, whole))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:  # this machine was quicker now
            assert process.returncode == 0
        if output.exists():  # killed between its last step and its end: then it is whole
            Image(output).fsck(folder)
            assert Image(output).stat("/usr/local/bin/k3s")
        for left in ("w.img", "w.img.bmap", "w.img.manifest.json", "fat"):
            (folder / left).unlink(missing_ok=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_by_a_person(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    output = tmp_path / "w.img"
    process = start(output)
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
    first = started(environment, base, k3s, output)
    while not (tmp_path / ".w.img.k3s-bake" / "image").exists() and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # an engine may be quick
    second = cli("image", "--role", "worker", "--base", base, *k3s, "--output", output)
    first.send_signal(signal.SIGCONT)
    assert second.code == 2
    assert "another k3s-bake is making w.img" in second.error
    assert first.wait() == 0
    assert output.exists()
