"""From a master that is ready to a token on a worker's disk, with the baked agent and join service.

Hosts are namespaces of this machine, with a real systemd, avahi and sshd, and the stand-in for K3s: what is
measured is our own share, on this machine's processor. Needs root. ``--boot`` also boots a master and a
worker in QEMU.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rig.hosts import Host, wait  # noqa: E402
from rig.lan import Lan, children  # noqa: E402

from bench.bake import CLI, Goal, output  # noqa: E402
from firstboot import join  # noqa: E402

_MANY = 100
_LOSS = 60
"""Percent of what comes in at a worker."""
_STARTS = 10
"""Seconds that K3s takes to start: some, for a master is heard long before its K3s is up."""
_TICKS = os.sysconf("SC_CLK_TCK")
_K3S = ["--k3s", str(ROOT / "tests/fakes/k3s"), "--k3s-version", "v1.34.9+k3s1", "--airgap", "none"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=10, help="of two workers each")
    parser.add_argument("--many", type=int, default=_MANY, help="workers that ask at once")
    parser.add_argument("--boot", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k3s-bake-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder))
        goals = [*bench.soon(given.runs), *bench.lossy(given.runs), *bench.idle(), *bench.many(given.many)]
        if given.boot:
            bench.boot()
    sys.exit(not all(goal.met for goal in goals))


class Bench:
    def __init__(self, work: Path) -> None:
        self.work = work
        os.environ["K3S_BAKE_HOME"] = str(work / "home")
        self.images = {role: self.bake(role, "amd64") for role in ("master", "worker")}

    def bake(self, role: str, arch: str) -> Path:
        with unset("K3S_BAKE_HOME"):
            base = output(sys.executable, str(ROOT / "images/sample/build.py"), "--arch", arch).strip()
        image = self.work / f"{arch}-{role}.img"
        cluster = self.work / "cluster.toml"
        cluster.write_text(f'[cluster]\nname = "home"\n[k3s.env]\nK3S_STAND_IN_STARTS = "{_STARTS}"\n')
        words = ["--base", base, "--role", role, "--file", str(cluster), *_K3S, "--output", str(image)]
        output(CLI, "image", *words)
        return image

    @contextlib.contextmanager
    def lan(self) -> Iterator[Lan]:
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            lan = Lan(Path(folder))
            try:
                yield lan
            finally:
                lan.close()

    def host(self, lan: Lan, number: int, role: str) -> Host:
        return Host(lan, number, lan.root(self.images[role])).start()

    # what is measured

    def soon(self, runs: int) -> Iterator[Goal]:
        times = [seconds for _ in range(runs) for seconds in self.run(2)]
        told("ready to token", times)
        yield Goal("median, seconds", statistics.median(times), 1)
        yield Goal("95 %, seconds", at_most(times, 0.95), 3)

    def lossy(self, runs: int) -> Iterator[Goal]:
        times = [seconds for _ in range(runs) for seconds in self.run(2, _LOSS)]
        told(f"ready to token, {_LOSS} % lost", times)
        yield Goal(f"median with {_LOSS} % lost, seconds", statistics.median(times), 15)

    def run(self, count: int, loss: int = 0) -> list[float]:
        """Workers wait, a master is powered on."""
        with self.lan() as lan:
            workers = [self.host(lan, 11 + at, "worker") for at in range(count)]
            for worker in workers:
                worker.until("searching", "no-master")
                worker.lose(loss)
            time.sleep(2 * join.ROUND)  # they have been on for a while
            master = self.host(lan, 10, "master")
            for worker in workers:
                worker.until("starting", seconds=600)
            return since_ready(master, workers)

    def idle(self) -> Iterator[Goal]:
        with self.lan() as lan:
            worker = self.host(lan, 11, "worker")
            worker.until("searching", "no-master")
            yield from idle(worker, "while it waits")
            self.host(lan, 10, "master")
            worker.until("joined")
            yield from idle(worker, "after it has joined")

    def many(self, count: int) -> Iterator[Goal]:
        with self.lan() as lan:
            workers = [self.host(lan, 11 + at, "worker") for at in range(count)]
            for worker in workers:
                worker.until("searching", "no-master", seconds=900)
            master = self.host(lan, 10, "master")
            with Memory(master) as memory:
                for worker in workers:
                    worker.until("starting", seconds=1800)
            times = since_ready(master, workers)
            told(f"{count} workers at once", times)
            print(f"memory of the master's side (sshd, forced command, helper): {memory.peak} MB at most")
            yield Goal("served of those who asked, missing", count - len(times), 0)

    def boot(self) -> None:
        images = [str(self.bake(role, "armhf")) for role in ("master", "worker")]
        said = output(CLI, "boot", *images, "--until", "joined", "--timeout", "900", "--json")
        events = [json.loads(line) for line in said.splitlines()]
        for image in images:
            first: dict[str, float] = {}
            for event in events:
                if event["machine"] == Path(image).name and event["what"] == "restarting":
                    first.clear()  # Raspbian's script has made the root larger: this was not our boot
                elif event["machine"] == Path(image).name:
                    first.setdefault(event["what"], event["seconds"])
            print(f"in QEMU, {Path(image).stem}: {first}")


def since_ready(master: Host, workers: list[Host]) -> list[float]:
    """Seconds from when K3s told systemd that it is up until the token lay on each worker's disk."""
    shown = master.run("systemctl show -p ActiveEnterTimestampMonotonic --value k3s")
    ready = int(shown) / 1e6 + time.time() - time.monotonic()
    return sorted(worker.path("/etc/rancher/k3s/token").stat().st_mtime - ready for worker in workers)


def idle(worker: Host, when: str, seconds: float = 60) -> Iterator[Goal]:
    agent = int(worker.run("pgrep -of 'firstboot.pyz agent'"))
    outside = next(pid for pid in descendants(worker.leader) if inner(pid) == agent)
    time.sleep(5)
    used, most = ticks(outside), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, sum(map(pss, [outside, *descendants(outside)])))
        time.sleep(0.5)
    yield Goal(f"agent {when}, % of a core", (ticks(outside) - used) / _TICKS / seconds * 100, 1)
    yield Goal(f"agent {when}, MB", most / 1024, 40)


class Memory:
    """Of the processes that answer joins on a master, at most, in MB."""

    def __init__(self, master: Host) -> None:
        self.peak = 0
        self._master = master
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        wait(lambda: self._master.is_on, 30, str)
        while not self._ended.wait(0.3):
            pids = descendants(self._master.leader)
            ours = [
                pid
                for pid in pids
                if any(word in cmdline(pid) for word in ("sshd", "pyz serve", "pyz helper"))
            ]
            self.peak = max(self.peak, sum(map(pss, ours)) // 1024)


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        found += children(one)
    return found[1:]


def inner(pid: int) -> int:
    """A process's number in its host."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def ticks(pid: int) -> int:
    """Of processor time, with that of children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15]))


def pss(pid: int) -> int:
    """kB of memory, with its part of what it shares."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def cmdline(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@contextlib.contextmanager
def unset(name: str) -> Iterator[None]:
    before = os.environ.pop(name)
    yield
    os.environ[name] = before


def at_most(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def told(what: str, times: list[float]) -> None:
    print(
        f"{what}: {len(times)} workers, median {statistics.median(times):.2f} s, "
        f"95 % {at_most(times, 0.95):.2f} s, last {max(times):.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
