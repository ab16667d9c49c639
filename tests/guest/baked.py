"""A baked image, and what must be so of every one, seen with debugfs and mtools alone."""

import json
from pathlib import Path

from guest.conftest import Done, Run
from guest.look import Image

CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID={id}-02 rootfstype=ext4 elevator=deadline "
    "fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh "
    "cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory\n"
)
UNITS = "/etc/systemd/system"


class Baked:
    def __init__(self, image: Path, options: list[object], done: Done) -> None:
        self.path = image
        self.options = options
        self.done = done
        self.image = Image(image)
        self.manifest = json.loads(image.with_name(f"{image.name}.manifest.json").read_text())
        self.config = dict(
            line.split(": ", 1) for line in self.image.text("/etc/rancher/k3s/config.yaml").splitlines()[1:]
        )


def bake(cli: Run, base: Path, output: Path, *options: object) -> Baked:
    all_options = ["--base", base, *options]
    done = cli("image", *all_options, "--output", output)
    assert done.code == 0, done.err
    return Baked(output, all_options, done)


def check_common(baked: Baked, base: Path, k3s: list[str], tmp_path: Path) -> None:
    """What every node has: cgroups, legacy iptables, no swap, K3s, an identity that is its own."""
    image, before = baked.image, Image(base)
    assert image.boot("cmdline.txt") == CMDLINE.format(id=before.disk_id.removeprefix("0x"))
    for name in ("iptables", "ip6tables"):
        state = f"/var/lib/dpkg/alternatives/{name}"
        assert image.text(state) == before.text(state).replace("auto\n", "manual\n", 1)
        for suffix in ("", "-restore", "-save"):
            assert image.link(f"/etc/alternatives/{name}{suffix}") == f"/usr/sbin/{name}-legacy{suffix}"
    assert image.link(f"{UNITS}/dphys-swapfile.service") == "/dev/null"
    assert image.stat(f"{UNITS}/multi-user.target.wants/dphys-swapfile.service") is None
    assert image.stat("/usr/local/bin/k3s") == ("regular", 0o755, 0, 0)
    taken = tmp_path / "k3s"
    image.debugfs(f"dump /usr/local/bin/k3s {taken}")
    assert taken.read_bytes() == Path(k3s[1]).read_bytes()
    for name in ("kubectl", "crictl", "ctr"):
        assert image.link(f"/usr/local/bin/{name}") == "k3s"
    assert image.stat("/etc/rancher/k3s/config.yaml") == ("regular", 0o600, 0, 0)
    assert image.text("/etc/machine-id") == ""
    image.fsck(tmp_path)


def sparse_airgap(folder: Path) -> Path:
    """Container images larger than the sample base's free room, most of them a hole."""
    path = folder / "k3s-airgap-images-arm.tar"
    with path.open("wb") as stream:
        stream.write(b"head" * 1000)
        stream.seek(1300 << 20)
        stream.write(b"tail" * 1000)
    return path
