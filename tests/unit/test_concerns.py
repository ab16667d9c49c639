"""Each concern on a Raspbian-shaped folder: what it leaves, what it refuses, and that it settles."""

import datetime
import json
from pathlib import Path

import pytest
from raspbian import Pi, alternative, master, worker
from test_firewall import NFTABLES, SAVED, UFW, ZONE

from bake.concerns.k3s import config_yaml
from bake.facts import facts_of
from bake.spec import Datastore, NodeSpec, StaticAddress, Wifi
from firstboot.edits import Remove, Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
TOKEN = b"K10" + b"a" * 64 + b"::node:pw"
FULL = {
    "name": "w1",
    "server": "https://10.0.0.2:6443",
    "token": TOKEN,
    "labels": ("disk=ssd",),
    "taints": ("big=true:NoSchedule",),
    "config": {"kubelet-arg": ["v=2"], "disable": ["traefik"]},
    "env": {"HTTP_PROXY": "http://proxy"},
    "registries": b"mirrors: {}\n",
    "authorized_keys": (KEY,),
    "wifi": Wifi("DE", "home", "secret-password"),
    "address": StaticAddress("10.0.0.3/24", "10.0.0.1", ("10.0.0.1",)),
    "timezone": "Europe/Berlin",
}


def written(pi: Pi, concern: str, spec: NodeSpec) -> dict[str, str]:
    return {edit.path: edit.content.decode() for edit in pi.wants(concern, spec) if isinstance(edit, Write)}


def config(pi: Pi, spec: NodeSpec) -> dict[str, object]:
    lines = written(pi, "k3s", spec)["/etc/rancher/k3s/config.yaml"].splitlines()[1:]
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in lines)}


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


class TestK3s:
    def test_worker_config(self, pi: Pi) -> None:
        assert config(pi, worker(**FULL)) == {
            "kubelet-arg": ["v=2"],  # and not 'disable', which an agent refuses
            "node-name": "w1",
            "node-label": ["disk=ssd"],
            "node-taint": ["big=true:NoSchedule"],
            "server": "https://10.0.0.2:6443",
            "token-file": "/etc/rancher/k3s/token",
            "prefer-bundled-bin": True,
        }

    def test_master_config(self, pi: Pi) -> None:
        spec = master(cluster="home", datastore=Datastore.ETCD, config={"disable": ["traefik"]})
        assert config(pi, spec) == {
            "disable": ["traefik"],
            "node-name": "home-master",
            "cluster-init": True,
            "prefer-bundled-bin": True,
        }

    def test_one_image_for_many_workers_makes_many_nodes(self, pi: Pi) -> None:
        assert config(pi, worker())["with-node-id"] is True

    @pytest.mark.parametrize("version", [None, "v1.21.2+k3s1"])
    def test_old_or_unknown_k3s_gets_no_key_it_would_refuse(self, pi: Pi, version: str | None) -> None:
        assert "prefer-bundled-bin" not in config(pi, worker(version=version))

    def test_cgroup_v1_is_allowed_where_k3s_refuses_it(self, pi: Pi) -> None:
        spec = worker(version="v1.35.0+k3s1", config={"kubelet-arg": ["v=2"]})
        assert config(pi, spec)["kubelet-arg"] == ["v=2", "fail-cgroupv1=false"]
        pi.install(systemd="252")
        assert config(pi, spec)["kubelet-arg"] == ["v=2"]

    @pytest.mark.parametrize(
        ("spec", "kind"),
        [
            (master(version=None), "notify"),
            (worker(), "notify"),
            (worker(version=None), "exec"),
            (worker(version="v1.21.2+k3s1"), "exec"),
        ],
    )
    def test_unit_type(self, pi: Pi, spec: NodeSpec, kind: str) -> None:
        unit = written(pi, "k3s", spec)[f"/etc/systemd/system/{spec.role.unit}.service"]
        assert f"\nType={kind}\n" in unit
        assert f"\nExecStart=/usr/local/bin/k3s {spec.role.k3s}\n" in unit

    def test_a_worker_that_cannot_join_is_not_started(self, pi: Pi) -> None:
        started = "/etc/systemd/system/multi-user.target.wants/k3s-agent.service"
        assert Remove(started) in pi.wants("k3s", worker())
        assert Remove(started) not in pi.wants("k3s", worker(**FULL))
        assert pi.notes("k3s", worker(**FULL)) == []

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (worker(), "this worker still needs --server and --token-file"),
            (worker(server="https://10.0.0.2:6443"), "this worker still needs --token-file"),
            (master(server="https://10.0.0.2:6443"), "this master still needs --token-file"),
        ],
    )
    def test_what_is_missing_is_said(self, pi: Pi, spec: NodeSpec, said: str) -> None:
        assert pi.notes("k3s", spec) == [f"K3s is installed but not started at boot: {said}"]

    def test_the_environment_is_written_as_systemd_reads_it(self, pi: Pi) -> None:
        env = {"A": 'ü "b" \\c $d', "B": ""}
        files = written(pi, "k3s", worker(env=env))
        assert files["/etc/systemd/system/k3s-agent.service.env"] == 'A="ü \\"b\\" \\\\c $d"\nB=""\n'

    def test_secrets_are_private_and_hidden(self, pi: Pi) -> None:
        todo = pi.plan(worker(**FULL))
        secrets = {edit.path: edit for edit in todo.edits if isinstance(edit, Write) and edit.secret}
        assert {"/etc/rancher/k3s/token", "/etc/rancher/k3s/registries.yaml"} <= secrets.keys()
        assert all(edit.mode == 0o600 for edit in secrets.values())
        assert todo.secret
        for shown in (repr(todo), repr(worker(**FULL))):
            assert "::node:pw" not in shown
            assert "secret-password" not in shown

    def test_yaml_values_cannot_break_out(self) -> None:
        assert (
            config_yaml({"a": "b\nc: d", "e": "ü"})
            == '# Written by k3s-bake.\na: "b\\nc: d"\ne: "ü"\n'.encode()
        )


class TestIdentity:
    def test_names(self, pi: Pi) -> None:
        pi.bake(worker(name="w1"))
        assert pi.text("/etc/hostname") == "w1\n"
        assert pi.text("/etc/hosts") == "127.0.0.1\tlocalhost\n\n127.0.1.1\tw1\n"

    def test_machine_id_is_emptied(self, pi: Pi) -> None:
        pi.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        pi.write("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")
        pi.bake(worker())
        assert pi.text("/etc/machine-id") == ""
        assert not (pi.root / "var/lib/dbus/machine-id").exists()

    def test_a_key_turns_ssh_on_and_passwords_off(self, pi: Pi) -> None:
        pi.bake(worker(authorized_keys=(KEY,)))
        assert pi.text("/home/pi/.ssh/authorized_keys") == KEY + "\n"
        assert (pi.root / "home/pi/.ssh").stat().st_mode & 0o777 == 0o700
        assert (pi.root / "etc/systemd/system/multi-user.target.wants/ssh.service").is_symlink()
        assert pi.text("/etc/ssh/sshd_config").splitlines()[1:] == [
            "PasswordAuthentication no", "ChallengeResponseAuthentication no", "#Port 22", "UsePAM yes",
        ]  # fmt: skip

    def test_keys_that_are_there_stay(self, pi: Pi) -> None:
        pi.write("/home/pi/.ssh/authorized_keys", "ssh-rsa AAAA other\n")
        pi.bake(worker(authorized_keys=(KEY,)))
        assert pi.text("/home/pi/.ssh/authorized_keys") == f"ssh-rsa AAAA other\n{KEY}\n"

    def test_without_a_key_ssh_is_left_alone(self, pi: Pi) -> None:
        assert not any("ssh" in edit.path for edit in pi.wants("identity", worker()))
        assert "left as the base has it" in pi.notes("identity", worker())[0]

    @pytest.mark.parametrize("flag", ["/boot/ssh", "/boot/ssh.txt", "/boot/firmware/ssh.txt"])
    def test_no_ssh(self, pi: Pi, flag: str) -> None:
        if flag.startswith("/boot/firmware"):
            pi.write("/etc/fstab", "LABEL=boot /boot/firmware vfat defaults 0 2\n")
            pi.write("/boot/firmware/cmdline.txt", "root=/dev/mmcblk0p2\n")
        pi.write(flag, "")
        pi.bake(worker(ssh=False, authorized_keys=(KEY,)))
        assert not (pi.root / flag[1:]).exists()

    def test_passwords_are_said_whatever_the_base(self, pi: Pi) -> None:
        assert pi.notes("identity", worker(ssh=True)) == [
            "SSH is on and takes passwords: of pi, if the base has set one"
        ]

    @pytest.mark.parametrize("home", ["/var/lib/pi", "/home/a/b", "/home/..", "pi", ""])
    def test_a_home_where_no_keys_can_go(self, pi: Pi, home: str) -> None:
        pi.write("/etc/passwd", f"pi:x:1000:1000::{home}:/bin/sh\n")
        with pytest.raises(UserError, match="the home of pi is"):
            pi.plan(worker(authorized_keys=(KEY,)))

    @pytest.mark.parametrize("uid", ["²", "-1", "", "9" * 5000])
    def test_a_user_without_a_number_is_none(self, pi: Pi, uid: str) -> None:
        pi.write("/etc/passwd", f"pi:x:{uid}:1000::/home/pi:/bin/sh\n")
        with pytest.raises(UserError, match="no user 'pi'"):
            pi.plan(worker(authorized_keys=(KEY,)))

    def test_unknown_user(self, pi: Pi) -> None:
        with pytest.raises(UserError, match="no user 'eve'") as caught:
            pi.plan(worker(user="eve", authorized_keys=(KEY,)))
        assert "pi" in caught.value.hint

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Argentina/Ushuaia", "GMT", "UTC"])
    def test_timezone(self, pi: Pi, zone: str) -> None:
        self.zones(pi)
        pi.bake(worker(timezone=zone))
        assert str((pi.root / "etc/localtime").readlink()) == f"/usr/share/zoneinfo/{zone}"
        assert pi.text("/etc/timezone") == f"{zone}\n"

    def zones(self, pi: Pi) -> None:
        for name in ("America/Argentina/Ushuaia", "posix/Europe/Berlin", "posix/GMT", "zone.tab", "GMT"):
            pi.write(f"/usr/share/zoneinfo/{name}", "TZif")
        pi.link("/usr/share/zoneinfo/UTC", "Etc/UTC")

    @pytest.mark.parametrize(
        "zone",
        [
            "Europe/Berln", "Europe", "America/Argentina", "America/Argentina/Nowhere", "Europe/Berlin/Mitte",
            "posix/Europe", "posix/GMT", "zone.tab", "../../etc/passwd", "Europe/../GMT", "Mars",
            "/etc/passwd", "GMT/", "GMT\n", "",
        ],
    )  # fmt: skip
    def test_unknown_timezone(self, pi: Pi, zone: str) -> None:
        self.zones(pi)
        with pytest.raises(UserError, match="no time zone"):
            pi.plan(worker(timezone=zone))


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
