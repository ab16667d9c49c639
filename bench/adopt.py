"""Fifty machines configured over SSH, beside ansible-core with forks 50, pipelining and the same files.

Machines are namespaces of this one with a real sshd and nothing else, from the sample base: what is measured
is the way there, not K3s's start, and this machine's processor is all of theirs, too. Needs root, and fetches
ansible-core with pip.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rig.lan import Lan  # noqa: E402
from rig.light import Light  # noqa: E402
from rig.running import Person  # noqa: E402

from bake import cache, trust, zipapp  # noqa: E402
from bench.bake import CLI, Goal, output  # noqa: E402

_HOSTS = 50
_MB = 10
"""Of the binary that stands for K3s; it does not compress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=_HOSTS)
    parser.add_argument("--no-ansible", action="store_true", help="our own times alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k3s-bake-", dir="/var/tmp") as folder:
        bench = Bench(Path(folder))
        goals = list(bench.slope()) if given.no_ansible else list(bench.compared(given.hosts))
    sys.exit(not all(goal.met for goal in goals))


Run = Callable[[Lan, list[Light]], None]


class Bench:
    def __init__(self, work: Path) -> None:
        self.work = work
        self.person = Person(work / "person")
        self.base = Path(
            output(sys.executable, str(ROOT / "images/sample/build.py"), "--arch", "amd64").strip()
        )
        self.k3s = work / "k3s"
        self.k3s.write_bytes(b"#!/bin/sh\n" + os.urandom(_MB << 20))
        self.environment = {**os.environ, "HOME": str(self.person.home), "K3S_BAKE_HOME": str(work / "home")}
        self.options = ["--k3s", str(self.k3s), "--k3s-version", "v1.34.9+k3s1", "--airgap", "none"]
        self.options += ["--accept-new", "--no-reboot", "--no-wait", "--json"]
        os.environ["K3S_BAKE_HOME"] = self.environment["K3S_BAKE_HOME"]
        zipapp.build(cache.home(), False, print)  # fetched here: the machines' own network reaches no other
        trust.open_cluster("k3s", cache.home(), print)

    def compared(self, count: int) -> Iterator[Goal]:
        """Ours and Ansible's on fresh machines each: with K3s to send, again, and with K3s there."""
        times: dict[str, dict[str, float]] = {}
        for name, run in (("k3s-bake", self.adopt), ("ansible", self.ansible())):
            with self.machines(count) as (lan, hosts):
                sent = self.timed(run, lan, hosts)
                again = self.timed(run, lan, hosts)
            with self.machines(count, k3s=True) as (lan, hosts):
                there = self.timed(run, lan, hosts)
            times[name] = {f"{_MB} MB to send": sent, "second run": again, "K3s there": there}
            print(f"{name}, {count} machines: {times[name]}", flush=True)
        for what, most in ((f"{_MB} MB to send", 12), ("second run", 30), ("K3s there", 25)):
            ratio = times["ansible"][what] / times["k3s-bake"][what]
            yield Goal(f"{what}: part of Ansible's time (1/{ratio:.1f})", 1 / ratio, 1 / most)

    def slope(self) -> Iterator[Goal]:
        """How much each further machine costs, and our memory with many."""
        times = {}
        for count in (10, 50, 100):
            with self.machines(count, k3s=True) as (lan, hosts):
                times[count] = self.timed(self.adopt, lan, hosts)
                print(f"{count} machines: {times[count]:.2f} s", flush=True)
        yield Goal("each further machine, ms", (times[100] - times[10]) / 90 * 1000, 80)
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        yield Goal("memory with 100 machines, MB", most, 200)

    def machines(self, count: int, k3s: bool = False) -> "Machines":
        return Machines(self, count, k3s)

    def timed(self, run: Run, lan: Lan, hosts: list[Light]) -> float:
        began = time.monotonic()
        run(lan, hosts)
        return time.monotonic() - began

    def adopt(self, lan: Lan, hosts: list[Light]) -> None:
        words = [word for host in hosts for word in ("--worker", f"root@{host.address}")]
        done = subprocess.run(
            lan.inside(CLI, "adopt", *words, *self.options),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        outcomes = json.loads(done.stdout)
        failed = [one for one in outcomes if one["error"]]
        assert not failed, failed[0]
        assert len(outcomes) == len(hosts)

    def ansible(self) -> Run:
        folder = self.work / "ansible"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "ansible-core"], check=True)
        playbook = ROOT / "bench/adopt.yml"
        config = folder / "ansible.cfg"
        config.write_text(
            "[defaults]\nforks = 50\nhost_key_checking = False\ngathering = explicit\n"
            "[ssh_connection]\npipelining = True\n"
            "ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null\n"
        )

        def run(lan: Lan, hosts: list[Light]) -> None:
            inventory = folder / "hosts"
            inventory.write_text(
                "".join(
                    f"{host.address} ansible_user=root ansible_ssh_private_key_file={self.person.key}\n"
                    for host in hosts
                )
            )
            command = [str(folder / "bin/ansible-playbook"), "-i", str(inventory), str(playbook)]
            command += ["-e", f"k3s={self.k3s}"]
            done = subprocess.run(
                lan.inside(*command),
                env={**self.environment, "ANSIBLE_CONFIG": str(config)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

        return run


class Machines:
    """Fresh ones for as long as the context lasts."""

    def __init__(self, bench: Bench, count: int, k3s: bool) -> None:
        self._bench, self._count, self._k3s = bench, count, k3s

    def __enter__(self) -> tuple[Lan, list[Light]]:
        self._folder = Path(tempfile.mkdtemp(dir=self._bench.work))
        self._lan = Lan(self._folder)
        lower = self._lan.root(self._bench.base)
        person = self._bench.person
        (person.ssh / "known_hosts").unlink(missing_ok=True)
        hosts = [Light(self._lan, 10 + at, lower, person) for at in range(self._count)]
        for host in hosts:
            if self._k3s:
                target = host.upper / "usr/local/bin/k3s"
                target.parent.mkdir(parents=True)
                shutil.copyfile(self._bench.k3s, target)
                target.chmod(0o755)
            host.start()
        for host in hosts:
            host.wait()
        return self._lan, hosts

    def __exit__(self, *_: object) -> None:
        self._lan.close()
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    main()
