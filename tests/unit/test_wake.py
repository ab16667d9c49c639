"""Changed paths in, commands out."""

import pytest

from bake.node import CONCERNS
from firstboot.contract import AGENT, JOIN_UNIT, UNIT
from k3s_bake.wake import wake

pytestmark = pytest.mark.unit

UNITS = "/etc/systemd/system"


def test_nothing_changed_nothing_done() -> None:
    assert wake([]) == wake([], agent=False)
    assert (wake([]).first, wake([]).then, wake([]).reboot) == ((), (), ())


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (f"{UNITS}/k3s.service", ("systemctl", "daemon-reload")),
        ("/etc/rancher/k3s/config.yaml", ("systemctl", "try-restart", "--no-block", "k3s.service")),
        ("/usr/local/bin/k3s", ("systemctl", "try-restart", "--no-block", "k3s.service")),
        ("/etc/hostname", ("hostname", "--file", "/etc/hostname")),
        ("/etc/ssh/sshd_config", ("systemctl", "try-reload-or-restart", "ssh.service")),
        ("/etc/k3s-bake/sshd_config", ("systemctl", "try-restart", JOIN_UNIT)),
        (AGENT, ("systemctl", "try-restart", "k3s-bake-helper.service")),
        (
            f"{UNITS}/sockets.target.wants/k3s-bake-helper.socket",
            ("systemctl", "restart", "k3s-bake-helper.socket"),
        ),
        ("/etc/ufw/user.rules", ("ufw", "reload")),
        (
            "/etc/dhcpcd.conf",
            ("systemctl", "kill", "--kill-who=main", "--signal=HUP", "dhcpcd.service"),
        ),
    ],
)
def test_each_path_wakes_what_reads_it(path: str, command: tuple[str, ...]) -> None:
    assert command in wake([path]).then


def test_a_k3s_that_is_still_starting_is_restarted_too() -> None:
    """try-restart leaves alone what is not active yet, which would go on with what it has read."""
    path = "/etc/rancher/k3s/config.yaml.d/k3s-bake-datastore.yaml"
    assert ("systemctl", "restart", "--no-block", "k3s.service") in wake([path], is_on=True).then
    assert ("systemctl", "try-restart", "--no-block", "k3s.service") in wake([path]).then
    assert not any("k3s.service" in command for command in wake([path], is_new=True).then)
    assert wake([path], is_on=True, is_new=True) == wake([path], is_on=True)


def test_a_token_restarts_no_k3s() -> None:
    """It is read when K3s starts, and a running one has joined."""
    assert not any("k3s.service" in command for command in wake(["/etc/rancher/k3s/token"]).then)


def test_units_are_read_before_any_is_started_and_the_agent_comes_last() -> None:
    found = wake([f"{UNITS}/{UNIT}", f"{UNITS}/k3s-agent.service", "/etc/hostname"], unit="k3s-agent")
    assert found.then[0] == ("systemctl", "daemon-reload")
    assert found.then[-1] == ("systemctl", "restart", UNIT)
    assert ("systemctl", "try-restart", "--no-block", "k3s-agent.service") in found.then
    assert wake(["/etc/hostname"], agent=False).then[-1] != ("systemctl", "restart", UNIT)


def test_swap_is_turned_off_before_its_file_goes() -> None:
    found = wake([f"{UNITS}/dphys-swapfile.service", "/var/swap"])
    assert found.first == (("systemctl", "stop", "dphys-swapfile.service"),)


def test_the_kernels_words_take_a_boot() -> None:
    assert wake(["/boot/cmdline.txt"]).reboot == ("/boot/cmdline.txt",)
    assert wake(["/boot/cmdline.txt"], boot="/boot/firmware").reboot == ()
    assert wake(["/boot/firmware/cmdline.txt"], boot="/boot/firmware").reboot


def test_no_command_holds_a_path_of_a_secret() -> None:
    paths = [probe.path for concern in CONCERNS for probe in concern.probes if "*" not in probe.path]
    found = wake(paths)
    words = [word for command in (*found.first, *found.then) for word in command]
    assert not any("token" in word or "key" in word for word in words)


def test_only_a_master_has_a_helper() -> None:
    assert not any("k3s-bake-helper" in " ".join(command) for command in wake([AGENT], unit="k3s-agent").then)


@pytest.mark.parametrize("rules", ["/etc/ufw/user.rules", "/etc/iptables/rules.v4"])
def test_a_firewall_that_the_other_iptables_has_loaded_takes_a_boot(rules: str) -> None:
    """What is left to a boot is asked for again by a later run, from those paths alone."""
    switch = "/etc/alternatives/iptables"
    found = wake([switch, "/etc/hostname", rules])
    assert found.reboot == (switch, rules)
    assert wake(found.reboot).reboot == found.reboot
    assert wake([switch]).reboot == wake([rules]).reboot == wake([switch, "/etc/nftables.conf"]).reboot == ()
