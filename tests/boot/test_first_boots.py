"""A baked master's and worker's first boots, side by side on one link: a real kernel and systemd, the images'
own cmdline.txt, emulated."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from guest.baked import bake
from guest.conftest import Run, sha256

from bake.cache import home
from bake.emulator.kernel import kernel
from bake.emulator.lab import Lab
from bake.emulator.machine import Machine
from bake.progress import Silent
from boot import shell

pytestmark = pytest.mark.boot

Shell = Callable[[str], str]


@pytest.fixture(scope="module")
def lab(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Up and logged in, after the restart of the first boot: Raspbian's script makes the root larger then."""
    folder = tmp_path_factory.mktemp("boot")
    options = ["--cluster", "home", *k3s, "--airgap", "none", "--ssh"]
    images = [
        bake(cli, base, folder / f"{role}.img", "--role", role, *options).path
        for role in ("master", "worker")
    ]
    before = [sha256(image) for image in images]
    with Lab(images, kernel(home(), Silent())) as lab:
        first = [machine.cmdline for machine in lab.machines.values()]
        assert all("init_resize" in words for words in first)
        lab.power_on()
        for machine in lab.machines.values():
            machine.until("Restarting system")
            shell.log_in(machine, "pi", "raspberry")
            assert "init_resize" not in machine.cmdline
        yield lab
    assert [sha256(image) for image in images] == before


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    return lab.machine("master")


@pytest.fixture(scope="module")
def on_master(machine: Machine) -> Shell:
    run = partial(shell.run, machine)
    assert run("systemctl is-system-running --wait") == "running"
    return run


def test_the_memory_cgroup_is_on(on_master: Shell) -> None:
    row = on_master("grep ^memory /proc/cgroups").split()
    assert row[-1] == "1"


def test_swap_is_off(on_master: Shell) -> None:
    assert on_master("tail -n +2 /proc/swaps") == ""
    assert on_master("systemctl is-enabled dphys-swapfile") == "masked"
    assert on_master("ls /var/swap 2>/dev/null") == ""


def test_iptables_is_the_legacy_one(on_master: Shell) -> None:
    assert "(legacy)" in on_master("sudo iptables --version")
    assert "(legacy)" in on_master("sudo ip6tables --version")


def test_it_is_itself(on_master: Shell) -> None:
    assert on_master("hostname") == "home-master"
    assert on_master("getent hosts home-master").split()[0] == "127.0.1.1"
    assert len(on_master("cat /etc/machine-id")) == 32
    assert on_master("systemctl is-active ssh") == "active"


def test_root_fills_the_card(on_master: Shell) -> None:
    card = int(on_master("lsblk --bytes --nodeps --noheadings --output SIZE /dev/vda"))
    assert card == 4 << 30  # the image is much smaller
    assert int(on_master("df --block-size=1 --output=size / | tail -1")) > card * 8 // 10


def test_the_router_gives_addresses_and_the_link_carries_packets(lab: Lab, on_master: Shell) -> None:
    worker = partial(shell.run, lab.machine("worker"))
    assert "10.9.0.10/24" in on_master("ip -4 -o addr show eth0")
    assert "10.9.0.11/24" in worker("ip -4 -o addr show eth0")
    assert " 0% packet loss" in on_master("sudo ping -c 3 -i 0.3 10.9.0.11")
    assert " 0% packet loss" in worker("sudo ping -c 3 -i 0.3 10.9.0.10")


def test_names_are_found_by_multicast(lab: Lab, on_master: Shell) -> None:
    assert on_master("getent hosts home-worker.local").split()[0] == "10.9.0.11"
    assert shell.run(lab.machine("worker"), "getent hosts home-master.local").split()[0] == "10.9.0.10"


def test_k3s_runs_and_its_node_is_ready(on_master: Shell) -> None:
    assert on_master("systemctl is-active k3s") == "active"
    ready = "sudo kubectl get nodes -o json"
    on_master(f"for _ in $(seq 60); do {ready} | grep -q '\"True\"' && break; sleep 1; done")
    (node,) = json.loads(on_master(ready))["items"]
    assert node["metadata"]["name"] == "home-master"
    states = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
    assert states["Ready"] == "True"
