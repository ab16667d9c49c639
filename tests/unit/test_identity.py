"""Who a node is, and who may log in."""

import pytest
from raspbian import KEY, Pi, worker

from firstboot.errors import UserError

pytestmark = pytest.mark.unit


def test_names(pi: Pi) -> None:
    pi.bake(worker(name="w1"))
    assert pi.text("/etc/hostname") == "w1\n"
    assert pi.text("/etc/hosts") == "127.0.0.1\tlocalhost\n\n127.0.1.1\tw1\n"


def test_machine_id_is_emptied(pi: Pi) -> None:
    pi.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    pi.write("/var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n")
    pi.bake(worker())
    assert pi.text("/etc/machine-id") == ""
    assert not (pi.root / "var/lib/dbus/machine-id").exists()


def test_a_key_turns_ssh_on_and_passwords_off(pi: Pi) -> None:
    pi.bake(worker(authorized_keys=(KEY,)))
    assert pi.text("/home/pi/.ssh/authorized_keys") == KEY + "\n"
    assert (pi.root / "home/pi/.ssh").stat().st_mode & 0o777 == 0o700
    assert (pi.root / "etc/systemd/system/multi-user.target.wants/ssh.service").is_symlink()
    assert pi.text("/etc/ssh/sshd_config").splitlines()[1:] == [
        "PasswordAuthentication no", "ChallengeResponseAuthentication no", "#Port 22", "UsePAM yes",
    ]  # fmt: skip


def test_keys_that_are_there_stay(pi: Pi) -> None:
    pi.write("/home/pi/.ssh/authorized_keys", "ssh-rsa AAAA other\n")
    pi.bake(worker(authorized_keys=(KEY,)))
    assert pi.text("/home/pi/.ssh/authorized_keys") == f"ssh-rsa AAAA other\n{KEY}\n"


def test_without_a_key_ssh_is_left_alone(pi: Pi) -> None:
    assert not any("ssh" in edit.path for edit in pi.wants("identity", worker()))
    assert "left as the base has it" in pi.notes("identity", worker())[0]


@pytest.mark.parametrize("flag", ["/boot/ssh", "/boot/ssh.txt", "/boot/firmware/ssh.txt"])
def test_no_ssh(pi: Pi, flag: str) -> None:
    if flag.startswith("/boot/firmware"):
        pi.write("/etc/fstab", "LABEL=boot /boot/firmware vfat defaults 0 2\n")
        pi.write("/boot/firmware/cmdline.txt", "root=/dev/mmcblk0p2\n")
    pi.write(flag, "")
    pi.bake(worker(ssh=False, authorized_keys=(KEY,)))
    assert not (pi.root / flag[1:]).exists()


def test_passwords_are_said_whatever_the_base(pi: Pi) -> None:
    assert pi.notes("identity", worker(ssh=True)) == [
        "SSH is on and takes passwords: of pi, if the base has set one"
    ]


@pytest.mark.parametrize("home", ["/var/lib/pi", "/home/a/b", "/home/..", "pi", ""])
def test_a_home_where_no_keys_can_go(pi: Pi, home: str) -> None:
    pi.write("/etc/passwd", f"pi:x:1000:1000::{home}:/bin/sh\n")
    with pytest.raises(UserError, match="the home of pi is"):
        pi.plan(worker(authorized_keys=(KEY,)))


@pytest.mark.parametrize("uid", ["²", "-1", "", "9" * 5000])
def test_a_user_without_a_number_is_none(pi: Pi, uid: str) -> None:
    pi.write("/etc/passwd", f"pi:x:{uid}:1000::/home/pi:/bin/sh\n")
    with pytest.raises(UserError, match="no user 'pi'"):
        pi.plan(worker(authorized_keys=(KEY,)))


def test_unknown_user(pi: Pi) -> None:
    with pytest.raises(UserError, match="no user 'eve'") as caught:
        pi.plan(worker(user="eve", authorized_keys=(KEY,)))
    assert "pi" in caught.value.hint


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Argentina/Ushuaia", "GMT", "UTC"])
def test_timezone(pi: Pi, zone: str) -> None:
    zones(pi)
    pi.bake(worker(timezone=zone))
    assert str((pi.root / "etc/localtime").readlink()) == f"/usr/share/zoneinfo/{zone}"
    assert pi.text("/etc/timezone") == f"{zone}\n"


def zones(pi: Pi) -> None:
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
def test_unknown_timezone(pi: Pi, zone: str) -> None:
    zones(pi)
    with pytest.raises(UserError, match="no time zone"):
        pi.plan(worker(timezone=zone))
