"""A plain master, the base itself, and a base that must grow."""

import json
from pathlib import Path

import pytest

from firstboot.contract import CREDENTIAL, Credential
from guest.baked import UNITS, Baked, bake, check_common, sparse_airgap
from guest.conftest import Run
from guest.look import Image

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def master(
    cli: Run, base: Path, k3s: list[str], engine: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Baked:
    folder = tmp_path_factory.mktemp("master")
    options = [
        "--role",
        "master",
        "--cluster",
        "home",
        *engine,
        *k3s,
        "--airgap",
        "none",
        "--datastore",
        "etcd",
    ]
    return bake(cli, base, folder / "m.img", *options)


def test_what_every_node_has(master: Baked, base: Path, k3s: list[str], tmp_path: Path) -> None:
    check_common(master, base, k3s, tmp_path)


def test_k3s(master: Baked) -> None:
    assert {key: json.loads(value) for key, value in master.config.items()} == {
        "node-name": "home-master",
        "cluster-init": True,
        "prefer-bundled-bin": True,
    }
    unit = master.image.text(f"{UNITS}/k3s.service")
    assert "\nType=notify\n" in unit
    assert "\nExecStart=/usr/local/bin/k3s server\n" in unit
    assert master.image.stat(f"{UNITS}/multi-user.target.wants/k3s.service") is None  # its agent starts it
    assert master.image.stat(f"{UNITS}/k3s-agent.service") is None


def test_the_join_service(master: Baked) -> None:
    image = master.image
    assert image.link(f"{UNITS}/multi-user.target.wants/k3s-bake.service") == f"{UNITS}/k3s-bake.service"
    assert "\nForceCommand /usr/bin/python3 -I " in image.text("/etc/k3s-bake/sshd_config")
    for path in ("/etc/passwd", "/etc/group", "/etc/shadow"):
        assert "\nk3s-join:" in image.text(path)
    assert image.stat("/etc/shadow") == ("regular", 0o640, 0, 42)
    assert image.stat("/etc/k3s-bake/revoked_keys") == ("regular", 0o644, 0, 0)


def test_the_credential_is_secret_so_the_image_is_private(master: Baked) -> None:
    brought = Credential.from_bytes(master.image.boot(CREDENTIAL).encode())
    assert brought
    assert brought.host_key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert master.path.stat().st_mode & 0o777 == 0o600
    told = master.path.with_name(f"{master.path.name}.manifest.json").read_text()
    told += master.done.out + master.done.err
    for key in (brought.host_key, brought.join_key):
        assert not any(line in told for line in key.splitlines() if len(line) > 40)
    assert "$6$" not in told  # a password's hash, of /etc/shadow


def test_nothing_secret_nothing_private(cli: Run, k3s: list[str], base: Path, tmp_path: Path) -> None:
    options = ["--role", "master", "--engine", "e2fs", *k3s, "--airgap", "none", "--no-agent"]
    plain = bake(cli, base, tmp_path / "m.img", *options)
    assert plain.path.stat().st_mode & 0o777 == 0o644
    assert plain.image.link(f"{UNITS}/multi-user.target.wants/k3s.service") == f"{UNITS}/k3s.service"
    assert plain.image.stat(f"{UNITS}/k3s-bake.service") is None


def test_the_base_is_no_node(base: Path, cli: Run) -> None:
    done = cli("inspect", base)
    assert done.code == 1
    for concern, path in {
        "cgroups": "/boot/cmdline.txt",
        "iptables": "/etc/alternatives/iptables",
        "swap": f"{UNITS}/dphys-swapfile.service",
        "k3s": "/usr/local/bin/k3s is missing",
        "identity": "/etc/hostname",
        "record": "/etc/k3s-bake/node.json",
    }.items():
        assert concern in done.out
        assert path in done.out


def test_what_does_not_fit_makes_root_grow(cli: Run, k3s: list[str], base: Path, tmp_path: Path) -> None:
    """Before any engine opens the image. Root stays last, the disk id stays, and holes stay holes."""
    before = Image(base)
    airgap = sparse_airgap(tmp_path)
    grown = bake(cli, base, tmp_path / "g.img", "--role", "worker", *k3s, "--airgap", airgap)
    assert grown.manifest["grown"] > 0
    assert grown.path.stat().st_size == base.stat().st_size + grown.manifest["grown"]
    assert grown.path.stat().st_blocks * 512 < base.stat().st_blocks * 512 + (100 << 20)
    assert grown.image.disk_id == before.disk_id
    assert grown.image.types == before.types
    assert grown.image.parts[0] == before.parts[0]
    assert sum(grown.image.parts[1]) == grown.path.stat().st_size
    grown.image.fsck(tmp_path)
