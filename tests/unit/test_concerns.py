"""Each concern on a Raspbian-shaped folder: what it leaves, what it refuses, and that it settles."""

import datetime
from pathlib import Path

import pytest
from raspbian import FULL, Pi, alternative, master, worker, written
from test_firewall import NFTABLES, SAVED, UFW, ZONE

from bake.facts import facts_of
from bake.spec import Datastore, NodeSpec
from firstboot.edits import Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("spec", [worker(), master(), worker(**FULL), master(datastore=Datastore.ETCD)])
def test_after_apply_the_plan_is_empty(pi: Pi, spec: NodeSpec) -> None:
    assert pi.bake(spec).steps
    assert pi.plan(spec).steps == ()


def test_a_worker_made_a_master_has_only_the_masters_unit(pi: Pi) -> None:
    pi.bake(worker(**FULL))
    pi.bake(master())
    units = pi.root / "etc/systemd/system"
    assert (units / "k3s.service").exists()
    assert not (units / "k3s-agent.service").exists()
    assert not (units / "multi-user.target.wants/k3s-agent.service").is_symlink()


class TestCgroups:
    def test_the_boot_folder_is_where_fstab_says(self, pi: Pi) -> None:
        pi.write("/etc/fstab", "LABEL=boot /boot/firmware vfat defaults 0 2\n")
        pi.write("/boot/firmware/cmdline.txt", "root=/dev/mmcblk0p2\n")
        assert [edit.path for edit in pi.wants("cgroups", worker())] == ["/boot/firmware/cmdline.txt"]

    def test_no_cmdline(self, pi: Pi) -> None:
        pi.delete("/boot/cmdline.txt")
        with pytest.raises(UserError, match="has no /boot/cmdline.txt"):
            pi.plan(worker())

    def test_empty_cmdline(self, pi: Pi) -> None:
        pi.write("/boot/cmdline.txt", " \n")
        with pytest.raises(UserError, match="is empty"):
            pi.plan(worker())

    @pytest.mark.parametrize("text", ["a=1\nb=2\n", "a=1\r\nb=2\r\n"])
    def test_lines_the_firmware_does_not_read_go_and_are_said(self, pi: Pi, text: str) -> None:
        pi.write("/boot/cmdline.txt", text)
        assert written(pi, "cgroups", worker())["/boot/cmdline.txt"].startswith("a=1 cgroup_enable=cpuset ")
        assert "'b=2'" in pi.notes("cgroups", worker())[0]

    def test_not_utf8(self, pi: Pi) -> None:
        pi.write("/boot/cmdline.txt", b"name=caf\xe9 quiet\n")
        [edit] = pi.wants("cgroups", worker())
        assert isinstance(edit, Write)
        assert edit.content.startswith(b"name=caf\xe9 quiet cgroup_enable=cpuset")


class TestIptables:
    def test_only_the_mode_and_the_links_change(self, pi: Pi) -> None:
        pi.bake(worker())
        for name in ("iptables", "ip6tables"):
            assert pi.text(f"/var/lib/dpkg/alternatives/{name}") == alternative(name, "manual")
            for tool in ("", "-restore", "-save"):
                link = pi.root / f"etc/alternatives/{name}{tool}"
                assert str(link.readlink()) == f"/usr/sbin/{name}-legacy{tool}"

    def test_no_alternatives_nothing_to_do(self, pi: Pi) -> None:
        for name in ("iptables", "ip6tables"):
            pi.delete(f"/var/lib/dpkg/alternatives/{name}")
        assert pi.wants("iptables", worker()) == []
        assert len(pi.notes("iptables", worker())) == 2

    def test_no_legacy_variant(self, pi: Pi) -> None:
        pi.delete("/usr/sbin/iptables-legacy")
        with pytest.raises(UserError, match="no /usr/sbin/iptables-legacy"):
            pi.plan(worker())

    def test_no_iptables(self, pi: Pi) -> None:
        pi.remove_package("iptables")
        with pytest.raises(UserError, match="no iptables"):
            pi.plan(worker())

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "auto\n",
            alternative("iptables")[:-40],
            alternative("iptables")[:-1],
            alternative("iptables") + "more\n",
            alternative("iptables").replace("20", "x"),
            alternative("iptables").replace("-nft", "-legacy"),
            "\0" * 99,
        ],
    )
    def test_garbled(self, pi: Pi, text: str) -> None:
        pi.write("/var/lib/dpkg/alternatives/iptables", text)
        with pytest.raises(UserError, match="iptables is garbled"):
            pi.plan(worker())


class TestSwap:
    def test_dphys_swapfile_is_masked_and_its_file_goes(self, pi: Pi) -> None:
        pi.write("/var/swap", "x")
        pi.bake(worker())
        units = pi.root / "etc/systemd/system"
        assert str((units / "dphys-swapfile.service").readlink()) == "/dev/null"
        assert not (units / "multi-user.target.wants/dphys-swapfile.service").is_symlink()
        assert not (pi.root / "var/swap").exists()

    def test_fstab_lines_are_commented_not_lost(self, pi: Pi) -> None:
        line = "/dev/sda2 none swap sw 0 0\n"
        before = pi.text("/etc/fstab")
        pi.write("/etc/fstab", before + line)
        pi.bake(worker())
        assert pi.text("/etc/fstab") == f"{before}# k3s-bake: swap off: {line}"

    @pytest.mark.parametrize(
        ("package", "path"),
        [
            ("zram-tools", "/etc/systemd/system/zramswap.service"),
            ("systemd-zram-generator", "/etc/systemd/system/dev-zram0.swap"),
            ("rpi-swap", "/etc/rpi/swap.conf.d/90-k3s-bake.conf"),
        ],
    )
    def test_other_mechanisms(self, pi: Pi, package: str, path: str) -> None:
        assert path not in [edit.path for edit in pi.wants("swap", worker())]
        pi.install(**{package: "1"})
        assert path in [edit.path for edit in pi.wants("swap", worker())]

    def test_without_any_there_is_nothing_to_do(self, pi: Pi) -> None:
        pi.remove_package("dphys-swapfile")
        assert pi.wants("swap", worker()) == []


class TestClock:
    SPEC = worker(not_before=datetime.date(2026, 5, 4))
    KEPT = "/etc/fake-hwclock.data"

    @pytest.fixture
    def pi(self, pi: Pi) -> Pi:
        pi.install(**{"fake-hwclock": "0.11+rpt1"})
        return pi

    @pytest.mark.parametrize("kept", [None, "", "2023-05-03 00:00:00\n", "2026-05-03 23:59:59\n", b"\xff\n"])
    def test_it_starts_no_earlier_than_the_day_given(self, pi: Pi, kept: str | bytes | None) -> None:
        if kept is not None:
            pi.write(self.KEPT, kept)
        pi.bake(self.SPEC)
        assert pi.text(self.KEPT) == "2026-05-04 00:00:00\n"
        assert pi.wants("clock", self.SPEC) == []

    @pytest.mark.parametrize(
        "kept", ["2026-05-04 00:00:00\n", "2026-05-04 00:00:00", "2027-01-01 12:00:00\n"]
    )
    def test_it_is_never_set_back(self, pi: Pi, kept: str) -> None:
        pi.write(self.KEPT, kept)
        assert pi.wants("clock", self.SPEC) == []

    def test_without_a_day_or_fake_hwclock_there_is_nothing_to_do(self, pi: Pi) -> None:
        assert pi.wants("clock", worker()) == []
        pi.remove_package("fake-hwclock")
        assert pi.wants("clock", self.SPEC) == []


class TestFacts:
    def test_not_debian(self, pi: Pi) -> None:
        pi.delete("/var/lib/dpkg/status")
        with pytest.raises(UserError, match="without dpkg"):
            pi.plan(worker())

    def test_no_fat_in_fstab(self, pi: Pi) -> None:
        pi.write("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
        with pytest.raises(UserError, match="mounts no FAT"):
            pi.plan(worker())

    def test_another_processor(self, pi: Pi) -> None:
        pi.write("/var/lib/dpkg/status", pi.text("/var/lib/dpkg/status").replace("armhf", "riscv64"))
        with pytest.raises(UserError, match="for riscv64"):
            pi.plan(worker())

    def test_programs_of_another_processor_than_dpkg_says(self, pi: Pi) -> None:
        pi.write("/var/lib/dpkg/status", pi.text("/var/lib/dpkg/status").replace("armhf", "amd64"))
        with pytest.raises(UserError, match="says amd64, but its programs are armhf"):
            pi.plan(worker())

    def test_what_buster_is(self, pi: Pi) -> None:
        facts = facts_of(pi.read())
        assert facts.architecture == "armhf"
        assert facts.version("openssh-server") == (7, 9)
        assert facts.network_manager == "dhcpcd"
        assert not facts.may_use_cgroup_v2
        assert facts.boot == "/boot"
        assert facts.pretty == "Raspbian GNU/Linux 10 (buster)"


def test_a_concern_edits_only_what_it_asked_for(tmp_path: Path) -> None:
    """plan() asserts it; here with everything on, for each network manager and firewall."""
    wants = "/etc/systemd/system/multi-user.target.wants"
    written = {
        "dhcpcd5": "/etc/dhcpcd.conf",
        "network-manager": "/etc/NetworkManager/system-connections/k3s-bake-eth0.nmconnection",
        "systemd-networkd": "/etc/systemd/network/10-k3s-bake-eth0.network",
        "ufw": "/etc/ufw/user6.rules",
        "firewalld": "/etc/firewalld/zones/public.xml",
        "nftables": "/etc/nftables.conf",
        "iptables-persistent": "/etc/iptables/rules.v6",
    }
    for package, path in written.items():
        pi = Pi(tmp_path / package)
        if package == "systemd-networkd":  # no package of its own
            pi.remove_package("dhcpcd5")
            pi.link(f"{wants}/systemd-networkd.service", "/lib/systemd/system/systemd-networkd.service")
        else:
            pi.install(**{package: "1"})
        pi.link(f"{wants}/nftables.service", "/lib/systemd/system/nftables.service")
        files = {"ufw/user.rules": UFW, "ufw/user6.rules": UFW, "firewalld/zones/public.xml": ZONE}
        files |= {"nftables.conf": NFTABLES, "iptables/rules.v4": SAVED, "iptables/rules.v6": SAVED}
        for name, content in files.items():
            pi.write(f"/etc/{name}", content)
        assert path in [edit.path for edit in pi.plan(worker(**FULL)).edits]
