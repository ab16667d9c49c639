"""A worker with everything that can be asked for."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from guest.baked import UNITS, Baked, bake, check_common
from guest.conftest import Run, sha256
from guest.look import Image

pytestmark = pytest.mark.guest

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"
PASSWORD = "correct-horse-battery"
TOKEN = "K10" + "a" * 64 + "::node:hunter2-hunter2"


@pytest.fixture(scope="module")
def worker(
    cli: Run, base: Path, k3s: list[str], engine: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Baked:
    """A worker with everything that can be asked for, some of it from cluster.toml."""
    folder = tmp_path_factory.mktemp("worker")
    files = {"key.pub": KEY, "psk": PASSWORD, "token": TOKEN, "registries.yaml": "mirrors: {}\n"}
    for name, content in files.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)
    airgap = folder / "k3s-airgap-images-arm.tar"
    airgap.write_bytes(hashlib.sha256(b"images").digest() * 200_000)
    (folder / "cluster.toml").write_text(
        '[cluster]\nname = "home"\nregistries = "registries.yaml"\n'
        '[k3s.config]\nkubelet-arg = ["v=2"]\ndisable = ["traefik"]\n'
        '[k3s.env]\nHTTP_PROXY = "http://proxy:3128"\n'
        '[[node]]\nname = "w1"\nrole = "worker"\nlabels = ["disk=ssd"]\n'
    )
    options: list[object] = [
        "--file",
        folder / "cluster.toml",
        "--name",
        "w1",
        *engine,
        *k3s,
        "--airgap",
        airgap,
    ]
    options += ["--server", "https://10.0.0.2:6443", "--token-file", folder / "token"]
    options += ["--authorized-key", folder / "key.pub", "--timezone", "Europe/Berlin"]
    options += ["--wifi-country", "DE", "--wifi-ssid", "home", "--wifi-psk-file", folder / "psk"]
    options += ["--address", "10.0.0.3/24", "--gateway", "10.0.0.1", "--dns", "10.0.0.1"]
    return bake(cli, base, folder / "w1.img", *options)


def test_what_every_node_has(worker: Baked, base: Path, k3s: list[str], tmp_path: Path) -> None:
    check_common(worker, base, k3s, tmp_path)


def test_k3s(worker: Baked) -> None:
    assert {key: json.loads(value) for key, value in worker.config.items()} == {
        "kubelet-arg": ["v=2"],
        "node-name": "w1",
        "node-label": ["disk=ssd"],
        "server": "https://10.0.0.2:6443",
        "token-file": "/etc/rancher/k3s/token",
        "prefer-bundled-bin": True,
    }
    image = worker.image
    assert image.text("/etc/rancher/k3s/token") == TOKEN + "\n"
    assert image.stat("/etc/rancher/k3s/token") == ("regular", 0o600, 0, 0)
    assert image.text("/etc/rancher/k3s/registries.yaml") == "mirrors: {}\n"
    images = "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-arm.tar"
    assert image.stat(images) == ("regular", 0o644, 0, 0)
    unit = image.text(f"{UNITS}/k3s-agent.service")
    assert "\nType=notify\n" in unit
    assert "\nExecStart=/usr/local/bin/k3s agent\n" in unit
    assert image.text(f"{UNITS}/k3s-agent.service.env") == 'HTTP_PROXY="http://proxy:3128"\n'
    assert image.stat(f"{UNITS}/k3s-agent.service.env") == ("regular", 0o600, 0, 0)
    started = f"{UNITS}/multi-user.target.wants/k3s-agent.service"
    assert image.link(started) == f"{UNITS}/k3s-agent.service"


def test_identity_and_network(worker: Baked) -> None:
    image = worker.image
    assert image.text("/etc/hostname") == "w1\n"
    assert "\n127.0.1.1\tw1\n" in image.text("/etc/hosts")
    assert image.text("/home/pi/.ssh/authorized_keys") == KEY + "\n"
    assert image.stat("/home/pi/.ssh/authorized_keys") == ("regular", 0o600, 1000, 1000)
    assert image.stat("/home/pi/.ssh") == ("directory", 0o700, 1000, 1000)
    assert "PasswordAuthentication no" in image.text("/etc/ssh/sshd_config").splitlines()[:2]
    assert image.link(f"{UNITS}/multi-user.target.wants/ssh.service") == "/lib/systemd/system/ssh.service"
    assert image.link("/etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
    dhcpcd = image.text("/etc/dhcpcd.conf")
    assert "\ninterface eth0\n" in dhcpcd
    assert "static ip_address=10.0.0.3/24" in dhcpcd
    wifi = image.text("/etc/wpa_supplicant/wpa_supplicant.conf")
    assert "country=DE" in wifi
    assert PASSWORD in wifi
    assert image.stat("/etc/wpa_supplicant/wpa_supplicant.conf") == ("regular", 0o600, 0, 0)


def test_no_firewall_is_said(worker: Baked) -> None:
    assert [note for note in worker.manifest["notes"] if note["concern"] == "ports"]


def test_secrets_are_in_no_report_and_the_image_is_private(worker: Baked) -> None:
    said = worker.done.out + worker.done.err + json.dumps(worker.manifest)
    for secret in (TOKEN, TOKEN + "\n", PASSWORD, "http://proxy:3128"):
        assert secret not in said
        assert hashlib.sha256(secret.encode()).hexdigest() not in said
    assert worker.path.stat().st_mode & 0o777 == 0o600


def test_the_manifest_tells_what_was_there(worker: Baked, base: Path) -> None:
    by_path = {edit["edit"]["path"]: edit for edit in worker.manifest["edits"]}
    assert worker.manifest["base"]["sha256"] == sha256(base)
    swap = by_path[f"{UNITS}/multi-user.target.wants/dphys-swapfile.service"]
    assert swap["edit"]["kind"] == "remove"
    assert swap["before"]["target"].endswith("/dphys-swapfile.service")
    assert by_path["/etc/hostname"]["before"]["text"] == "raspberrypi\n"
    assert by_path["/etc/rancher/k3s/token"]["edit"]["secret"]


def test_dry_run_equals_the_manifest(worker: Baked, cli: Run, tmp_path: Path) -> None:
    """Told by e2fs, whichever engine made it."""
    given = ["--engine", "e2fs", "--output", tmp_path / "none.img", "--dry-run", "--json"]
    done = cli("image", *worker.options, *given)
    assert done.code == 0, done.err
    assert json.loads(done.out)["edits"] == worker.manifest["edits"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_bake_of_the_output_plans_nothing(worker: Baked, cli: Run) -> None:
    """By e2fs, whichever engine made it."""
    given = ["--base", worker.path, "--engine", "e2fs", "--dry-run", "--json"]
    done = cli("image", *worker.options, *given)
    assert done.code == 0, done.err
    assert json.loads(done.out)["edits"] == []


def test_inspect_says_met(worker: Baked, cli: Run, engine: list[str]) -> None:
    before = sha256(worker.path)
    done = cli("inspect", worker.path, *engine)
    assert done.code == 0, done.out + done.err
    assert "worker w1 of cluster home" in done.out
    assert "missing" not in done.out
    assert sha256(worker.path) == before


def test_the_bmap_is_good_for_bmaptool(worker: Baked, tmp_path: Path) -> None:
    """bmaptool checks each range's hash; the copy must hold the same trees on a card of garbage."""
    card = tmp_path / "card"
    size = worker.path.stat().st_size
    with card.open("wb") as stream:
        for _ in range(size >> 20):
            stream.write(b"\xa5" * (1 << 20))
    bmap = worker.path.with_name(f"{worker.path.name}.bmap")
    subprocess.run(["bmaptool", "-q", "copy", "--bmap", bmap, worker.path, card], check=True)
    Image(card).fsck(tmp_path)
    assert Image(card).text("/etc/rancher/k3s/config.yaml") == worker.image.text(
        "/etc/rancher/k3s/config.yaml"
    )
    assert Image(card).boot("cmdline.txt") == worker.image.boot("cmdline.txt")
    assert re.search(r"<BlocksCount> (\d+) ", bmap.read_text())[1] == str(size // 4096)  # type: ignore[index]
