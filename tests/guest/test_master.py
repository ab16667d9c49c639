"""A plain master, the base itself, and a base that must grow."""

import json
from pathlib import Path

import pytest

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
    started = f"{UNITS}/multi-user.target.wants/k3s.service"
    assert master.image.link(started) == f"{UNITS}/k3s.service"
    assert master.image.stat(f"{UNITS}/k3s-agent.service") is None


def test_nothing_secret_nothing_private(master: Baked) -> None:
    assert master.path.stat().st_mode & 0o777 == 0o644


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
