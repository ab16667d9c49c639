"""Hosts that are an sshd and nothing else: a hundred of them start in a quarter of a minute."""

import subprocess
import time

from rig.lan import NETWORK, Lan
from rig.running import Person

_RUN = """
ip link set lo up
mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {merged} || exit 1
cd {merged}
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run
mkdir -p run/sshd
mount -t tmpfs -o mode=755 dev dev
for name in null zero random urandom tty full; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir -p dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
hostname {name}
exec chroot . /usr/sbin/sshd -D -e
"""


class Light:
    """``person`` logs in as root."""

    def __init__(self, lan: Lan, number: int, lower: str, person: Person) -> None:
        self.name = f"light{number}"
        self.address = f"{NETWORK}.{number}"
        self.upper = lan.folder / self.name / "upper"
        self._lan = lan
        self._folders = {name: lan.folder / self.name / name for name in ("upper", "work", "merged")}
        for folder in self._folders.values():
            folder.mkdir(parents=True)
        self._lower = lower
        key = person.home / "host_key"  # the same for all: to make one takes longer than all else
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        for path, text, mode in (
            ("etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600),
            ("root/.ssh/authorized_keys", person.public_key.read_text(), 0o600),
            ("etc/hostname", f"{self.name}\n", 0o644),
            ("etc/fstab", "/dev/mmcblk0p1 /boot vfat noauto 0 0\n", 0o644),
        ):
            place = self.upper / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(mode)

    def start(self) -> None:
        near = f"vl{self.address.rpartition('.')[2]}"
        for words in (
            f"ip netns add {self.name}",
            f"ip link add {near} type veth peer name eth0 netns {self.name}",
            f"ip link set {near} master br0 up",
            f"ip -n {self.name} address add {self.address}/24 dev eth0",
            f"ip -n {self.name} link set eth0 up",
        ):
            self._lan.run(*words.split())
        script = _RUN.format(lower=self._lower, name=self.name, **self._folders)
        apart = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        command = self._lan.inside("nsenter", f"--net=/run/netns/{self.name}", *apart, "sh", "-c", script)
        with (self.upper.parent / "log").open("wb") as log:
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until its sshd answers."""
        probe = self._lan.inside("bash", "-c", f"exec 3<>/dev/tcp/{self.address}/22")
        end = time.monotonic() + 60
        while subprocess.run(probe, capture_output=True, check=False).returncode:
            assert time.monotonic() < end, (self.upper.parent / "log").read_text()
            time.sleep(0.05)
