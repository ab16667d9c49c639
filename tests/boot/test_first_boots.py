"""A baked master and two workers, powered on at once on one link: a real kernel and systemd, the images' own
cmdline.txt, emulated. Nobody types anything: they make a cluster.

The master and one of the workers are cards that were flashed, two of four; the other worker is an image as it
was baked, which a person may write with any tool.
"""

import datetime
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from guest.baked import bake
from guest.conftest import Run, sha256
from guest.loops import attached

from bake.cache import home
from bake.emulator.kernel import kernel
from bake.emulator.lab import Lab
from bake.emulator.machine import Machine
from bake.progress import Silent
from boot import shell

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1800)]  # emulated, beside others, on two cores

Shell = Callable[[str], str]


_CLOCKS = ["1970-01-01T00:00:00", "2019-01-01T00:00:00", f"{datetime.date.today().year + 1}-12-31T00:00:00"]
"""Of the master and the workers, when each is powered on: a Pi has no clock that runs on."""

JOINED = r"k3s-bake: [a-z0-9-]+: joined\r"


@pytest.fixture(scope="module")
def lab(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Joined, after the restart of the first boot: Raspbian's script makes the root larger then."""
    folder = tmp_path_factory.mktemp("boot")
    options = ["--cluster", "home", *k3s, "--airgap", "none", "--ssh"]
    master, worker = (
        bake(cli, base, folder / f"{role}.img", "--role", role, *options).path
        for role in ("master", "worker")
    )
    before = [sha256(image) for image in (master, worker)]
    (folder / "cards").mkdir()
    flashed = folder / "cards/master.img"
    with attached(folder / "w1", 2048) as card, attached(folder / "w2", 2048) as other:
        flash(cli, master, [flashed], ["home-master"])
        flash(cli, worker, [card.path, other.path, folder / "w3"], ["w1", "w2", "w3"])
        lab_of = Lab([flashed, worker, card.path], kernel(home(), Silent()))
        yield from started(lab_of)
    assert [sha256(image) for image in (master, worker)] == before


def flash(cli: Run, image: Path, cards: list[Path], names: list[str]) -> None:
    named = (word for name in names for word in ("--name", name))
    done = cli("flash", image, *cards, *named, "--yes")
    assert done.code == 0, done.err


def started(made: Lab) -> Iterator[Lab]:
    with made as lab:
        first = [machine.cmdline for machine in lab.machines.values()]
        assert all("init_resize" in words for words in first)
        for machine, clock in zip(lab.machines.values(), _CLOCKS, strict=True):
            machine.clock = clock
        lab.power_on()
        for machine in lab.machines.values():
            machine.until("Restarting system")
        joined(lab)
        assert not any("init_resize" in machine.cmdline for machine in lab.machines.values())
        yield lab


def joined(lab: Lab) -> None:
    """Every machine has said so, and somebody is logged in on each."""
    for machine in lab.machines.values():
        machine.until(JOINED)
    for machine in lab.machines.values():
        machine.type(b"\n")
        shell.log_in(machine, "pi", "raspberry")


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Machine:
    return lab.machine("master")


@pytest.fixture(scope="module")
def on_master(machine: Machine) -> Shell:
    run = partial(shell.run, machine)
    failed = "$(systemctl --failed --no-legend --plain | cut -d' ' -f1)"
    if run("systemctl is-system-running --wait") == "degraded":
        # Where three machines share a slow core, a service may take longer than systemd waits for it.
        run(f"sudo systemctl restart {failed}")
    state = run("systemctl is-system-running --wait")
    assert state == "running", run(f"systemctl status --no-pager {failed}")
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
    worker = lab.machine("worker")
    name = shell.run(worker, "hostname")
    assert name.startswith("home-")
    # An answer can be lost where the machines share a slow core: a resolver asks again, and so does this.
    again = "for i in $(seq 60); do getent hosts {}.local && break; sleep 1; done"
    assert on_master(again.format(name)).split()[:1] == ["10.9.0.11"]
    assert shell.run(worker, again.format("home-master")).split()[:1] == ["10.9.0.10"]


def ready(on_master: Shell) -> list[str]:
    nodes = json.loads(on_master("sudo k3s kubectl get nodes -o json"))["items"]
    return sorted(
        node["metadata"]["name"]
        for node in nodes
        if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    )


def names(lab: Lab) -> list[str]:
    return sorted(shell.run(machine, "hostname") for machine in lab.machines.values())


def test_they_are_one_cluster(lab: Lab, on_master: Shell) -> None:
    assert len(set(names(lab))) == 3
    assert ready(on_master) == names(lab)


def test_a_card_has_joined_under_the_name_that_it_was_given(lab: Lab, on_master: Shell) -> None:
    (card,) = (machine for name, machine in lab.machines.items() if name.startswith("loop"))
    assert shell.run(card, "hostname") == "w1"
    assert "w1" in ready(on_master)


def test_all_have_the_time_of_the_master_which_is_no_earlier_than_its_bake(
    lab: Lab, on_master: Shell
) -> None:
    """As soon as they join: none of them can ask a time server."""
    now = int(on_master("date +%s"))
    assert datetime.datetime.fromtimestamp(now).date() >= datetime.date.today() - datetime.timedelta(days=1)
    for machine in lab.machines.values():
        assert abs(int(shell.run(machine, "date +%s")) - now) < 120


def test_a_worker_has_a_token_for_agents_alone(lab: Lab, on_master: Shell) -> None:
    servers = on_master("sudo cut -d: -f4 /var/lib/rancher/k3s/server/token")
    assert len(servers) > 8
    token = shell.run(lab.machine("worker"), "sudo cat /etc/rancher/k3s/token")
    assert token.startswith("K10")
    assert "::server:" not in token
    assert servers not in token


def test_what_a_person_sees(lab: Lab, on_master: Shell) -> None:
    told = on_master("cat /boot/k3s-bake-status.txt")
    assert told.startswith("home-master, a master of the cluster home")
    assert "phase          joined" in told
    assert "k3s-bake: phase          joined" in on_master("cat /etc/issue")
    worker = partial(shell.run, lab.machine("worker"))
    assert "master         https://10.9.0.10:6443" in worker("cat /boot/k3s-bake-status.txt")
    assert worker("ls /boot/k3s-bake") == "", "the credential is gone from the card's FAT"
    assert worker("sudo stat -c %a:%U /etc/k3s-bake/join_key") == "600:root"


_SECRETS = (
    "sed s/.*:// /etc/rancher/k3s/token /etc/rancher/k3s/agent-token /etc/rancher/node/password "
    "/var/lib/rancher/k3s/server/token; sed -n 2p /etc/k3s-bake/join_key /etc/k3s-bake/host_key"
)
_TOLD = (
    "journalctl -o cat; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /etc/issue /boot/*.txt "
    "/var/lib/k3s-bake/state.json /etc/k3s-bake/*.json /etc/avahi/services/*"
)


def test_no_secret_is_told_anywhere(lab: Lab, on_master: Shell) -> None:
    """Each machine is asked to look for its own secrets: in logs, arguments, environments and reports."""
    for machine in lab.machines.values():
        run = partial(shell.run, machine)
        run(f"sudo sh -c '({_SECRETS}) 2>/dev/null | grep . >/run/secrets'")
        assert int(run("sudo grep -c . /run/secrets")) >= 3
        run(f'sudo sh -c \'({_TOLD}) 2>/dev/null | tr "\\0" "\\n" >/run/told\'')
        assert int(run("sudo grep -c k3s-bake /run/told")) > 10
        assert run("sudo grep -c -F -f /run/secrets /run/told") == "0"
        run("sudo rm /run/secrets /run/told")


def test_after_a_reboot_of_all_of_them_they_are_joined_again(lab: Lab, on_master: Shell) -> None:
    before = names(lab)
    for machine in lab.machines.values():
        machine.clock = _CLOCKS[0]  # fake-hwclock has kept the time
        machine.type(b"sudo reboot\n")
    for machine in lab.machines.values():
        machine.until("Restarting system")
    joined(lab)
    assert names(lab) == before
    assert ready(on_master) == before
