"""A bake by each engine, beside virt-customize with the same edits and beside copying the same bytes.

All in turn, at least three times, so that each meets the same states of this machine; medians and ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bake import kvm
from bench.virt_customize import customize

ROOT = Path(__file__).parent.parent
CLI = str(Path(sys.executable).with_name("k3s-bake"))
_SIZES = {"k3s": 43, "airgap": 150}  # MB: an armhf K3s, and its container images
_NODES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="leave out libguestfs and virt-customize")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k3s-bake-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder))
        bench.run(bench.quick if given.quick else {**bench.quick, **bench.slow}, given.runs)
        print(
            "KVM" if kvm.works() else "emulated",
            f"{len(bench.edits)} edits, {sum(_SIZES.values())} MB staged",
        )
        for name, times in bench.times.items():
            print(f"{name}: median {bench.median(name):.2f} s of {len(times)}")
        print(f"peak memory of a bake by e2fs: {bench.memory} MB; seconds by part: {bench.parts()}")
        missed = [goal for goal in bench.goals() if not goal.met]
        sys.exit(bool(missed))


class Goal:
    """A figure that must not be larger than this."""

    def __init__(self, what: str, figure: float, most: float) -> None:
        self.met = figure <= most
        print(f"{what}: {figure:.3g} (goal: at most {most:g}){'' if self.met else ': MISSED'}")


class Bench:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.base = Path(output(sys.executable, str(ROOT / "images/sample/build.py")).strip())
        self.k3s, self.airgap = work / "k3s", work / "k3s-airgap-images-arm.tar"
        # Files that do not compress, of the sizes that the real ones have.
        self.k3s.write_bytes(b"#!/bin/sh\n")
        for path, megabytes in zip((self.k3s, self.airgap), _SIZES.values(), strict=True):
            with path.open("ab") as stream:
                for _ in range(megabytes):  # in pieces: a process starts with the peak memory of its parent
                    stream.write(os.urandom(1_000_000))
        self.parts_given = ["--base", str(self.base), "--k3s", str(self.k3s), "--airgap", str(self.airgap)]
        self.worker = ["--role", "worker", *self.parts_given]
        planned = json.loads(output(CLI, "image", *self.worker, "--dry-run", "--json"))
        self.edits = [step["edit"] for step in planned["edits"]]
        self.times: dict[str, list[float]] = {}
        self.memory = 0
        """MB, of the whole process tree's largest process."""
        self.quick: dict[str, Callable[[], None]] = {
            "copy": self.copy,
            "e2fs": lambda: self.bake("e2fs"),
            "inspect": lambda: drop(output(CLI, "inspect", str(work / "e2fs.img"), "--engine", "e2fs")),
            "dry run": lambda: drop(output(CLI, "image", *self.worker, "--dry-run", "--engine", "e2fs")),
            f"{_NODES} nodes": self.bake_all,
        }
        self.slow: dict[str, Callable[[], None]] = {
            "guestfs": lambda: self.bake("guestfs"),
            "virt-customize": self.customize,
        }

    def run(self, tools: dict[str, Callable[[], None]], runs: int) -> None:
        for number in range(runs):
            for name, tool in tools.items():
                os.sync()  # nobody pays for what another has written
                started = time.monotonic()
                tool()
                self.times.setdefault(name, []).append(time.monotonic() - started)
                print(f"run {number + 1}: {name}: {self.times[name][-1]:.2f} s", flush=True)

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])

    def goals(self) -> Iterator[Goal]:
        yield Goal("e2fs, seconds", self.median("e2fs"), 1.5)
        yield Goal("e2fs / copy", self.median("e2fs") / self.median("copy"), 2)
        yield Goal("peak memory, MB", self.memory, 150)
        yield Goal("inspect, seconds", self.median("inspect"), 0.5)
        yield Goal("dry run, seconds", self.median("dry run"), 0.5)
        yield Goal(f"{_NODES} nodes / one", self.median(f"{_NODES} nodes") / self.median("e2fs"), _NODES)
        if "guestfs" in self.times:
            yield Goal("e2fs / virt-customize", self.median("e2fs") / self.median("virt-customize"), 0.05)
            yield Goal(
                "guestfs / virt-customize", self.median("guestfs") / self.median("virt-customize"), 0.6
            )

    def copy(self) -> None:
        """The same bytes, sparsely, and on the disk as a bake's are."""
        copies = [self.work / name for name in ("copy.img", "copy.k3s", "copy.tar")]
        for source, target in zip((self.base, self.k3s, self.airgap), copies, strict=True):
            subprocess.run(["cp", "--sparse=always", source, target], check=True)
        subprocess.run(["sync", *copies], check=True)

    def bake(self, engine: str) -> None:
        image = ["--output", str(self.work / f"{engine}.img"), "--force", "--engine", engine]
        process = subprocess.Popen(
            [CLI, "image", *self.worker, *image], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"a bake by {engine} failed")
        if engine == "e2fs":
            self.memory = max(self.memory, usage.ru_maxrss // 1000)

    def bake_all(self) -> None:
        file, folder = self.work / "cluster.toml", self.work / "all"
        folder.mkdir(exist_ok=True)
        file.write_text("".join(f'[[node]]\nname = "w{n}"\nrole = "worker"\n' for n in range(_NODES)))
        given = ["--file", str(file), "--all", *self.parts_given, "--engine", "e2fs"]
        output(CLI, "image", *given, "--output", str(folder), "--force")
        for path in folder.iterdir():
            path.unlink()

    def customize(self) -> None:
        image = self.work / "theirs.img"
        subprocess.run(["cp", "--sparse=always", self.base, image], check=True)
        customize(image, self.edits, self.k3s, self.airgap, self.work)

    def parts(self) -> dict[str, float]:
        manifest = self.work / "e2fs.img.manifest.json"
        seconds: dict[str, float] = json.loads(manifest.read_text())["seconds"]
        return seconds


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def drop(_: str) -> None:
    """For a command whose answer nobody reads."""


if __name__ == "__main__":
    main()
