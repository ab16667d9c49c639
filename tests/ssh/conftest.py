"""Baked amd64 images as hosts with a real systemd and sshd, each test's on a network of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest.baked import bake
from guest.conftest import CLI, ROOT, Done, Run, cli, environment
from rig.hosts import Host
from rig.lan import Lan
from rig.running import Person, answers, machine, until
from rig.secrets import Watch

from bake import cache
from bake.trust import Cluster, open_cluster

__all__ = ["cli", "environment"]

Operator = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Machines = Callable[..., list[Host]]
Power = Callable[..., Host]


@pytest.fixture(scope="session")
def base() -> Path:
    """The sample base for this machine's own processor."""
    command = [sys.executable, str(ROOT / "images/sample/build.py"), "--arch", "amd64"]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@pytest.fixture(scope="session")
def k3s() -> list[str]:
    """Options that name the K3s to bake in: a real one where it is given, else the stand-in."""
    real = os.environ.get("K3S_BAKE_TEST_K3S_AMD64")
    path = real or str(ROOT / "tests/fakes/k3s")
    return ["--k3s", path, "--k3s-version", os.environ.get("K3S_BAKE_TEST_K3S_VERSION", "v1.34.9+k3s1")]


Images = Callable[..., Path]


@pytest.fixture(scope="session")
def image(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Bakes an image of a role and a cluster; the same one for the same options."""
    made: dict[tuple[str, ...], Path] = {}

    def of(role: str, *options: str, cluster: str = "home") -> Path:
        key = (role, cluster, *options)
        if key not in made:
            target = tmp_path_factory.mktemp("image") / f"{cluster}-{role}-{len(made)}.img"
            words = ["--role", role, "--cluster", cluster, *k3s, "--airgap", "none", "--ssh", *options]
            made[key] = bake(cli, base, target, *words).path
        return made[key]

    return of


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    if os.geteuid() != 0:
        pytest.skip("NOT TRIED: hosts in namespaces need root")
    lan = Lan(tmp_path)
    try:
        yield lan
    finally:
        lan.close()


@pytest.fixture
def watch(lan: Lan) -> Iterator[Watch]:
    with Watch(lan) as watch:
        yield watch


@pytest.fixture
def power(lan: Lan, image: Images, watch: Watch) -> Iterator[Power]:
    """A new host of a role, switched on. At the end no secret of any host was seen anywhere."""
    hosts: list[Host] = []

    def on(
        number: int,
        role: str,
        *options: str,
        serial: str = "",
        cluster: str = "home",
        start: bool = True,
    ) -> Host:
        host = Host(lan, number, lan.root(image(role, *options, cluster=cluster)), serial)
        hosts.append(host)
        return host.start() if start else host

    yield on
    watch.check(hosts)
    for host in hosts:
        host.stop()


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "person")


@pytest.fixture
def start(lan: Lan, environment: dict[str, str], person: Person) -> Start:
    """k3s-bake, begun by the person at a machine on the same network."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            lan.inside(CLI, *map(str, arguments)),
            env={**environment, "HOME": str(person.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def operator(start: Start) -> Operator:
    """The same, to its end."""

    def run(*arguments: object) -> Done:
        with start(*arguments) as process:
            out, err = process.communicate(timeout=300)
        return Done(process.returncode, out, err)

    return run


@pytest.fixture
def machines(
    lan: Lan, base: Path, person: Person, environment: dict[str, str], watch: Watch
) -> Iterator[Machines]:
    """Of these numbers, on: systems that are no nodes yet. At the end no secret of any was seen anywhere."""
    hosts: list[Host] = []

    def on(*numbers: int) -> list[Host]:
        made = [machine(lan, base, number, person).start() for number in numbers]
        hosts.extend(made)
        until(made, answers)
        return made

    yield on
    logs = Path(environment["K3S_BAKE_HOME"], "data/logs").glob("*.log")
    watch.check(hosts, b"".join(log.read_bytes() for log in logs))
    for host in hosts:
        host.stop()


@pytest.fixture
def adopting(k3s: list[str], image: Images) -> list[str]:
    """The words that each adoption begins with."""
    image("worker")  # fetches what the agent is made of: machines on the network of a test reach no other
    return ["adopt", "--cluster", "home", *k3s, "--airgap", "none", "--accept-new"]


@pytest.fixture
def adopt(operator: Operator, adopting: list[str]) -> Operator:
    def adopt(*arguments: object) -> Done:
        return operator(*adopting, *arguments)

    return adopt


@pytest.fixture
def home(environment: dict[str, str], image: Images, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster's own keys, as its operator has them."""
    image("master")
    monkeypatch.setenv("K3S_BAKE_HOME", environment["K3S_BAKE_HOME"])
    return open_cluster("home", cache.home(), print)
