"""A baked master's first boots: a real kernel and systemd, the image's own cmdline.txt, emulated."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.baked import bake
from guest.conftest import Run, sha256

from boot.kernel import kernel
from boot.machine import Console, Machine

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def machine(
    cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("boot")
    options = ["--role", "master", "--cluster", "home", *k3s, "--airgap", "none", "--ssh"]
    master = bake(cli, base, folder / "m.img", *options)
    before = sha256(master.path)
    yield Machine(master.path, kernel(), folder)
    assert sha256(master.path) == before


@pytest.fixture(scope="module")
def console(machine: Machine) -> Iterator[Console]:
    """Logged in on the second boot: on the first, Raspbian's script makes the root larger and restarts."""
    first = machine.cmdline
    with machine.on() as console:
        assert "Restarting system" in console.until_off()
    assert "init_resize" in first
    assert "init_resize" not in machine.cmdline
    with machine.on() as console:
        console.log_in("pi", "raspberry")
        assert console.run("systemctl is-system-running --wait") == "running"
        yield console


def test_the_memory_cgroup_is_on(console: Console) -> None:
    row = console.run("grep ^memory /proc/cgroups").split()
    assert row[-1] == "1"


def test_swap_is_off(console: Console) -> None:
    assert console.run("tail -n +2 /proc/swaps") == ""
    assert console.run("systemctl is-enabled dphys-swapfile") == "masked"
    assert console.run("ls /var/swap 2>/dev/null") == ""


def test_iptables_is_the_legacy_one(console: Console) -> None:
    assert "(legacy)" in console.run("sudo iptables --version")
    assert "(legacy)" in console.run("sudo ip6tables --version")


def test_it_is_itself(console: Console) -> None:
    assert console.run("hostname") == "home-master"
    assert console.run("getent hosts home-master").split()[0] == "127.0.1.1"
    assert len(console.run("cat /etc/machine-id")) == 32
    assert console.run("systemctl is-active ssh") == "active"


def test_root_fills_the_card(console: Console) -> None:
    size = int(console.run("lsblk --bytes --noheadings --output SIZE /dev/vda2"))
    assert int(console.run("df --block-size=1 --output=size / | tail -1")) > size * 9 // 10


def test_k3s_runs_and_its_node_is_ready(console: Console) -> None:
    assert console.run("systemctl is-active k3s") == "active"
    ready = "sudo kubectl get nodes -o json"
    console.run(f"for _ in $(seq 60); do {ready} | grep -q '\"True\"' && break; sleep 1; done")
    (node,) = json.loads(console.run(ready))["items"]
    assert node["metadata"]["name"] == "home-master"
    states = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    assert states["Ready"] == "True"
