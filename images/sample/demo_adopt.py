"""make demo-adopt: three machines that run become a cluster, and are put back again. Needs root.

The machines are namespaces of this one, with a real systemd, sshd and sudo, from the sample base.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from rig.lan import Lan  # noqa: E402
from rig.running import Person, answers, machine, until  # noqa: E402

from bake import cache, zipapp  # noqa: E402

CLI = Path(sys.executable).with_name("k3s-bake")
_PARTS = ["--k3s", ROOT / "tests/fakes/k3s", "--k3s-version", "v1.34.9+k3s1", "--airgap", "none"]


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("make demo-adopt makes machines in namespaces, which needs root: sudo make demo-adopt")
    print(
        "K3s is a stand-in here, which runs no containers, and the machines are of a sample base.", flush=True
    )
    build = [sys.executable, str(ROOT / "images/sample/build.py"), "--arch", "amd64"]
    base = Path(subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    with tempfile.TemporaryDirectory(prefix="k3s-bake-demo-", dir="/var/tmp") as folder:
        lan = Lan(Path(folder))
        try:
            adopt(lan, base, Person(Path(folder, "person")))
        finally:
            lan.close()


def adopt(lan: Lan, base: Path, person: Person) -> None:
    hosts = [machine(lan, base, number, person).start() for number in (10, 11, 12)]
    until(hosts, answers)
    master, *workers = (f"pi@{host.address}" for host in hosts)
    logins = ["--master", master, *(word for login in workers for word in ("--worker", login))]
    environment = {**os.environ, "HOME": str(person.home)}
    os.environ["K3S_BAKE_HOME"] = environment["K3S_BAKE_HOME"] = str(person.home / "k3s-bake")
    zipapp.build(cache.home(), False, print)  # fetched here: the machines' own network reaches no other
    for title, words in (
        ("Are they fit?", ["preflight", *logins, "--accept-new"]),
        ("Make them a cluster:", ["adopt", *logins, *_PARTS]),
        ("Once more, which changes nothing:", ["adopt", *logins, *_PARTS]),
        ("As they were before:", ["undo", "--yes", master, *workers]),
    ):
        print(f"\n{title}\n$ k3s-bake {' '.join(map(str, words))}", flush=True)
        command = lan.inside(CLI, *map(str, words))
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
