"""A card whose writing was stopped, at whatever moment: nothing boots from it, and the next flash is good."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.conftest import CLI
from guest.loops import Loop, attached
from guest.small import small_image
from guest.test_interrupted import _heed_signals

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root alone"),
]

_OLD = b"an old system \x55\xaa"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody's node, 160 MiB: long enough to be stopped at."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "root").mkdir()
    path = folder / "other.img"
    small_image(path, folder / "root")
    chance = random.Random(1).randbytes(1 << 20)
    with path.open("ab") as stream:
        for _ in range(140):
            stream.write(chance)
    return path


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with attached(tmp_path_factory.mktemp("card") / "card", 192) as made:
        yield made


def start(environment: dict[str, str], image: Path, *cards: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [str(CLI), "flash", str(image), *map(str, cards), "--yes", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heed_signals,
    )


def is_whole(card: Loop, image: Path) -> bool:
    with card.file.open("rb") as mine, image.open("rb") as other:
        return mine.read(image.stat().st_size) == other.read()


def make_old(card: Loop) -> None:
    """As of a system that was on it before."""
    with card.path.open("r+b") as stream:
        stream.write((_OLD * 4096)[:65536])
        stream.flush()
        os.fsync(stream.fileno())


def check(card: Loop, image: Path) -> str:
    """What became of it: never a first block before all the rest."""
    subprocess.run(["blockdev", "--flushbufs", card.path], check=True)
    head = card.head()
    if not any(head[:4096]):
        return "nothing"
    if head.startswith(_OLD):
        assert head[:65536] == (_OLD * 4096)[:65536]
        return "untouched"
    assert is_whole(card, image)
    return "whole"


@pytest.mark.parametrize("part", range(4))
def test_killed_at_random_moments(environment: dict[str, str], image: Path, card: Loop, part: int) -> None:
    writing = 0.0
    for number in range(26):
        make_old(card)
        process = start(environment, image, card.path)
        while card.head().startswith(_OLD) and process.poll() is None:
            time.sleep(0.001)
        began = time.monotonic()
        if number == 0:
            assert process.wait(120) == 0
            writing = time.monotonic() - began
            assert check(card, image) == "whole"
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0, writing))
        process.kill()
        process.communicate()
        assert check(card, image) in ("nothing", "whole")  # killed between its last step and its end
    assert start(environment, image, card.path).wait(120) == 0
    assert check(card, image) == "whole"


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_interrupted_by_a_person(
    environment: dict[str, str], image: Path, card: Loop, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    make_old(card)
    process = start(environment, image, card.path, tmp_path / "card.img")
    assert process.stderr
    for line in process.stderr:
        if b": writing" in line or b": preparing" in line:
            break
    for _ in range(times):
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    results = json.loads(out)
    what = check(card, image)
    for result in results:
        assert (result["error"] == "") == (result["receipt"] is not None)
        assert result["error"] in ("", "interrupted before it was whole")
    assert process.returncode == (130 if any(result["error"] for result in results) else 0)
    assert (what == "whole") == (results[0]["error"] == "")
    assert (tmp_path / "card.img").exists() == (results[1]["error"] == "")
    assert len(list(tmp_path.iterdir())) == (results[1]["error"] == "")
    assert b"Traceback" not in err


def test_a_disk_that_fills_up_behind_a_card(environment: dict[str, str], image: Path, tmp_path: Path) -> None:
    """A real error of a real device: its file lies on a file system that is too small for it."""
    room = tmp_path / "room"
    room.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", room], check=True)
    try:
        with attached(room / "card", 192) as small:
            process = start(environment, image, small.path)
            out, _ = process.communicate(timeout=120)
            assert process.returncode == 1
            (result,) = json.loads(out)
            assert result["error"].startswith("cannot write")
            assert result["hint"]
            assert not any(small.head()[:512])
    finally:
        subprocess.run(["umount", "--lazy", room], check=True)
