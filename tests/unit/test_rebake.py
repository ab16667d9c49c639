"""A node baked again as something else: what the first bake left goes, and what is secret stays hidden."""

import hashlib
import json

import pytest
from raspbian import ARM_ELF, FULL, Pi, master, worker

from bake import manifest, spec_json
from bake.spec import Containerd, File, K3s, NodeSpec
from firstboot.edits import Remove, Write

pytestmark = pytest.mark.unit

IMAGES = "/var/lib/rancher/k3s/agent/images"
ETC = "/etc/rancher/k3s"
ENV = "/etc/systemd/system/k3s-agent.service.env"


def removed(pi: Pi, spec: NodeSpec) -> set[str]:
    return {edit.path for edit in pi.plan(spec).edits if isinstance(edit, Remove)}


def test_what_only_the_first_was_to_have_goes(pi: Pi) -> None:
    pi.bake(worker(**FULL))
    pi.bake(master())
    for path in (f"{ETC}/token", f"{ETC}/registries.yaml", ENV):
        assert not (pi.root / path[1:]).exists()
    assert pi.plan(master()).steps == ()


def test_a_bases_own_registries_stay(pi: Pi) -> None:
    pi.write(f"{ETC}/registries.yaml", "mirrors: {}\n")
    pi.bake(worker())
    assert pi.text(f"{ETC}/registries.yaml") == "mirrors: {}\n"
    assert pi.plan(worker()).secret
    pi.write("/etc/k3s-bake/node.json", "garbled")
    assert removed(pi, worker()) == set()


def test_older_container_images_go_and_others_stay(pi: Pi) -> None:
    older, own = f"{IMAGES}/k3s-airgap-images-arm.tar.gz", f"{IMAGES}/own.tar"
    (pi.root / IMAGES[1:] / "k3s-airgap-images-folder").mkdir(parents=True)
    for path in (older, own):
        pi.write(path, "x")
    binary = worker().k3s.binary
    airgap = File("k3s-airgap-images-arm.tar", hashlib.sha256(ARM_ELF).hexdigest(), len(ARM_ELF))
    pi.bake(worker(k3s=K3s(binary, None, airgap)))
    assert sorted(path.name for path in (pi.root / IMAGES[1:]).iterdir()) == [
        "k3s-airgap-images-arm.tar", "k3s-airgap-images-folder", "own.tar",
    ]  # fmt: skip
    assert removed(pi, worker()) == {f"{IMAGES}/k3s-airgap-images-arm.tar"}


def test_our_containerd_is_not_started_any_more_and_another_is_left_alone(pi: Pi) -> None:
    pi.install(runc="1.0.0")
    started = "/etc/systemd/system/multi-user.target.wants/containerd.service"
    pi.bake(worker(containerd=Containerd((), (1, 7))))
    assert started in removed(pi, worker())
    pi.write("/etc/systemd/system/containerd.service", "[Unit]\n")
    assert started not in removed(pi, worker())


def test_what_was_secret_is_in_no_report(pi: Pi) -> None:
    pi.bake(worker(**FULL))
    secrets = (f"{ETC}/token", f"{ETC}/registries.yaml", ENV)
    hashes = [hashlib.sha256((pi.root / path[1:]).read_bytes()).hexdigest() for path in secrets]
    for again in (master(), worker()):
        said = json.dumps(manifest.steps(pi.plan(again)))
        assert all(path in said for path in secrets)
        assert not any(digest in said for digest in hashes)


def test_an_image_with_a_secret_of_before_is_private(pi: Pi) -> None:
    assert not pi.plan(worker()).secret
    pi.write("/etc/wpa_supplicant/wpa_supplicant.conf", "ctrl_interface=/run\nupdate_config=1\n")
    assert not pi.plan(worker()).secret
    pi.bake(worker(**FULL))
    assert pi.plan(worker()).secret  # Wi-Fi stays
    pi.write("/etc/wpa_supplicant/wpa_supplicant.conf", "")
    assert not pi.plan(worker()).secret  # all the others go


@pytest.mark.parametrize("first", [worker(**FULL), worker(), master()])
def test_the_record_s_stand_ins_ask_for_nothing_more(pi: Pi, first: NodeSpec) -> None:
    pi.bake(first)
    recorded = spec_json.from_json(json.loads(pi.text("/etc/k3s-bake/node.json")))
    assert removed(pi, recorded) == set()
    left = {edit.path for edit in pi.plan(recorded).edits if isinstance(edit, Write) and edit.secret}
    assert left == {edit.path for edit in pi.plan(recorded).edits}
    assert bool(left) is (first.token is not None)
