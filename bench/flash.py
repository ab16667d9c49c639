"""Cards beside dd and bmaptool, on loop devices over files, all in turn so that each meets the same machine.

Loop devices are faster than any card. Where a figure is about cards, targets are slowed down to the rate of a
good reader by a stand-in within this process: it sleeps, and says nothing of a reader's other habits.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bake.card.flash import Flash, Job
from bake.card.source import Source
from bake.card.target import Target

ROOT = Path(__file__).parent.parent
CLI = str(Path(sys.executable).with_name("k3s-bake"))
_CARD = 2 << 30
_RATE = 90e6
"""Bytes a second: what UHS-I cards and their readers reach at most."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    if os.geteuid():
        sys.exit("loop devices are made by root alone")
    base = subprocess.run(
        [sys.executable, ROOT / "images/sample/build.py"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="k3s-bake-", dir="/var/tmp") as folder, ExitStack() as stack:
        os.environ["K3S_BAKE_HOME"] = f"{folder}/home"
        image = bake(base, Path(folder))
        loops = [stack.enter_context(loop(Path(folder, f"card{at}"))) for at in range(4)]
        missed = [*rates(image, loops[0], runs), *many(image, Path(folder), runs), *costs(image, loops)]
        sys.exit(any(missed))


def goal(what: str, figure: float, limit: float, *, least: bool = False) -> bool:
    """Whether it is missed."""
    missed = figure < limit if least else figure > limit
    words = "at least" if least else "at most"
    print(f"{what}: {figure:.3g} (goal: {words} {limit:g}){': MISSED' if missed else ''}", flush=True)
    return missed


def rates(image: Path, card: str, runs: int) -> Iterator[bool]:
    seconds: dict[str, list[float]] = {"dd": [], "all": [], "bmaptool": [], "mapped": [], "verify": []}
    for _ in range(runs):
        began = time.monotonic()
        dd = ("dd", f"if={image}", f"of={card}", "bs=4M", "oflag=direct", "conv=fsync", "status=none")
        subprocess.run(dd, check=True)
        seconds["dd"].append(time.monotonic() - began)
        whole = flash(image, card, "--no-bmap")[0]["seconds"]
        seconds["all"].append(whole["preparing"] + whole["writing"])
        said = subprocess.run(
            ["bmaptool", "--debug", "copy", image, card], capture_output=True, text=True, check=True
        )
        seconds["bmaptool"].append(copying_time(said.stderr))
        mapped = flash(image, card)[0]["seconds"]
        seconds["mapped"].append(mapped["preparing"] + mapped["writing"])
        seconds["verify"].append(mapped["verifying"])
    median = {what: statistics.median(times) for what, times in seconds.items()}
    size, part = image.stat().st_size / 1e6, Source(image).to_write or 0
    print(f"image {size:.0f} MB, of which {part / 1e6:.0f} MB are mapped; medians of {runs} runs in turn")
    print("; ".join(f"{what} {took:.2f} s" for what, took in median.items()))
    yield goal("rate of all, compared with dd", median["dd"] / median["all"], 0.95, least=True)
    yield goal("time of what is mapped, compared with bmaptool", median["mapped"] / median["bmaptool"], 1.0)


def copying_time(said: str) -> float:
    """bmaptool's own figure is rounded to a tenth, and so is the least that it can be compared with."""
    return float(said.partition("copying time: ")[2].partition("s")[0])


def many(image: Path, folder: Path, runs: int) -> Iterator[bool]:
    one, four, reading = [], [], []
    for _ in range(min(runs, 3)):
        took, _ = slowed(image, folder, 1)
        one.append(took)
        took, rate = slowed(image, folder, 4)
        four.append(took)
        reading.append(rate)
    alone, together = statistics.median(one), statistics.median(four)
    print(f"at {_RATE / 1e6:.0f} MB/s a card: one {alone:.2f} s, four {together:.2f} s")
    yield goal("four cards, compared with one", together / alone, 1.3)
    yield goal(
        "rate of reading back, compared with the card's", statistics.median(reading) / _RATE, 0.95, least=True
    )


class Slow(Target):
    """A stand-in for a card in a reader: over a file, each piece takes as long as it would there."""

    def write(self, at: int, data: memoryview) -> None:
        with self._lasting(len(data)):
            super().write(at, data)

    def read_into(self, at: int, data: memoryview) -> None:
        with self._lasting(len(data)):
            super().read_into(at, data)

    @contextmanager
    def _lasting(self, size: int) -> Iterator[None]:
        end = time.monotonic() + size / _RATE
        yield
        time.sleep(max(0.0, end - time.monotonic()))


def slowed(image: Path, folder: Path, count: int) -> tuple[float, float]:
    """Seconds for so many cards at once, written and read back, and the lowest rate of reading."""
    paths = [folder / f"slow{at}" for at in range(count)]
    handles = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in paths]
    for handle in handles:
        os.ftruncate(handle, _CARD)
    jobs = [Job(Slow(handle, path)) for handle, path in zip(handles, paths, strict=True)]
    began = time.monotonic()
    with Flash(Source(image), jobs) as running:
        while running.wait(1):
            pass
    took = time.monotonic() - began
    if failed := [job.error for job in jobs if job.error]:
        raise failed[0]
    rate = min(job.state.verified / job.state.seconds["verifying"] for job in jobs)
    for job in jobs:
        job.target.close()
    return took, rate


def costs(image: Path, loops: list[str]) -> Iterator[bool]:
    made = flash(image, *loops)
    yield goal("stamping, milliseconds", 1000 * max(one["seconds"]["stamping"] for one in made), 50)
    yield goal("memory with one card, MB", memory(image, loops[0]), 64)
    yield goal("memory with four cards, MB a card", memory(image, *loops) / 4, 64)


def memory(image: Path, *arguments: str) -> float:
    """MB at most. The kernel's count for a process that has ended (ru_maxrss) would begin with this one's."""
    command = [CLI, "flash", str(image), *arguments, "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        most = max(most, int(found[1]) if found else 0)
        time.sleep(0.01)
    if process.returncode:
        sys.exit("flash failed")
    return most / 1024


def flash(image: Path, *arguments: str) -> list[dict[str, Any]]:
    """Its receipts."""
    command = [CLI, "flash", str(image), *arguments, "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return [one["receipt"] for one in json.loads(done.stdout)]


def bake(base: str, folder: Path) -> Path:
    k3s = ("--k3s", ROOT / "tests/fakes/k3s", "--k3s-version", "v1.34.9+k3s1", "--airgap", "none")
    image = folder / "worker.img"
    command = [CLI, "image", "--role", "worker", "--base", base, *map(str, k3s), "--output", str(image)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return image


@contextmanager
def loop(file: Path) -> Iterator[str]:
    """Over a file that has all its blocks: what they cost is no part of this."""
    with file.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, _CARD)
    made = subprocess.run(
        ["losetup", "--find", "--show", file], stdout=subprocess.PIPE, text=True, check=True
    )
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


if __name__ == "__main__":
    main()
