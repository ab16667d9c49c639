"""A plan for a node that runs: it is somebody already, and its agent has written files."""

from dataclasses import replace
from pathlib import Path

import pytest
from raspbian import Pi, master, worker

from bake.concerns import k3s
from bake.node import Plan, plan
from bake.spec import File, FirstBoot, NodeSpec
from firstboot.contract import (
    CREDENTIAL,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    K3S_CONFIG,
    K3S_TOKEN,
    STATUS,
    Credential,
)
from firstboot.errors import UserError
from firstboot.node import Node
from firstboot.token import Grant

pytestmark = pytest.mark.unit

_ELF = worker().k3s.binary
AGENT = FirstBoot(File("firstboot.pyz", _ELF.sha256, _ELF.size), "ssh-ed25519 AAAA")
BROUGHT = Credential(None, "s3cret-key", "certificate", "s3cret-host-key", "host certificate")
CA = "a" * 64


@pytest.fixture(autouse=True)
def _ssh(pi: Pi) -> None:
    pi.install(**{"openssh-client": "1:7.9p1-10+deb10u2+rpt1"})
    pi.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    pi.write("/etc/shadow", "root:*:18000:0:99999:7:::\n")
    pi.write("/etc/group", "root:x:0:\n")


def live(pi: Pi, spec: NodeSpec) -> Plan:
    return plan(spec, pi.read(), live=True)


def carry_out(pi: Pi, spec: NodeSpec) -> set[str]:
    """The paths that were changed."""
    source = pi.root.parent / "k3s"
    source.write_bytes((pi.root / "bin/ls").read_bytes())
    done = live(pi, spec)
    pi.tree.apply(done.edits, {spec.k3s.binary.sha256: str(source)})
    return {edit.path for edit in done.edits}


def live_agent(pi: Pi, name: str, *, leads: bool) -> None:
    """What the agent writes until the node has joined."""
    node = Node(str(pi.root))
    node.set_name(name)
    if leads:
        node.configure_leading(name)
    else:
        grant = Grant(f"K10{CA}::node:s3cret", "https://10.0.0.2:6443", CA, "", 1_700_000_000)
        node.configure_joining(grant, name)


@pytest.mark.parametrize("leads", [False, True])
def test_once_its_agent_has_joined_nothing_is_left_to_do(pi: Pi, leads: bool) -> None:
    spec = (master if leads else worker)(first_boot=AGENT, credential=BROUGHT, cluster="home")
    changed = carry_out(pi, spec)
    assert {JOIN_KEY, JOIN_CERTIFICATE, K3S_CONFIG} <= changed
    live_agent(pi, "home-a1b2c3", leads=leads)
    again = replace(spec, credential=Credential())  # the fleet's stand-in for one that is there
    assert live(pi, again).steps == ()


@pytest.mark.parametrize("fstab", ["", "UUID=AB-12 /boot/efi vfat umask=0077 0 1\n"])
def test_a_machine_that_is_no_pi_has_no_firmware_to_tell(pi: Pi, fstab: str) -> None:
    pi.write("/etc/fstab", f"/dev/sda2 / ext4 defaults 0 1\n{fstab}")
    pi.delete("/boot/cmdline.txt")
    changed = carry_out(pi, master(first_boot=AGENT, credential=BROUGHT, cluster="home"))
    assert {path for path in changed if path.startswith("/boot")} == {f"/boot/{STATUS}"}
    assert live(pi, master(first_boot=AGENT, credential=Credential(), cluster="home")).steps == ()


def test_a_pi_whose_boot_partition_is_not_mounted_is_refused(pi: Pi) -> None:
    pi.delete("/boot/cmdline.txt")
    with pytest.raises(UserError, match=r"no /boot/cmdline\.txt"):
        live(pi, master(first_boot=AGENT, credential=BROUGHT, cluster="home"))


def test_what_makes_the_machine_itself_stays(pi: Pi) -> None:
    changed = carry_out(pi, worker(first_boot=AGENT, credential=BROUGHT, cluster="home"))
    assert not changed & {"/etc/machine-id", "/etc/hostname", "/etc/hosts", f"/boot/{CREDENTIAL}"}
    assert pi.text("/etc/hostname") == "raspberrypi\n"
    assert (pi.root / JOIN_KEY[1:]).stat().st_mode & 0o777 == 0o600


def test_a_name_that_is_given_is_taken(pi: Pi) -> None:
    assert "/etc/hostname" in carry_out(pi, worker(first_boot=AGENT, name="pi-7", cluster="home"))
    assert pi.text("/etc/hostname") == "pi-7\n"


def test_a_new_credential_takes_the_place_of_an_old_one(pi: Pi) -> None:
    carry_out(pi, worker(first_boot=AGENT, credential=BROUGHT))
    newer = replace(BROUGHT, join_key="newer", join_certificate="newer certificate")
    assert carry_out(pi, worker(first_boot=AGENT, credential=newer)) == {JOIN_KEY, JOIN_CERTIFICATE}


def test_another_value_of_a_node_that_has_joined_keeps_its_master(pi: Pi) -> None:
    carry_out(pi, worker(first_boot=AGENT, credential=BROUGHT, cluster="home"))
    live_agent(pi, "home-a1b2c3", leads=False)
    labelled = worker(first_boot=AGENT, credential=Credential(), cluster="home", labels=("disk=ssd",))
    assert K3S_CONFIG in carry_out(pi, labelled)
    config = pi.text(K3S_CONFIG)
    assert 'server: "https://10.0.0.2:6443"' in config
    assert 'node-name: "home-a1b2c3"' in config
    assert "disk=ssd" in config


def test_what_has_left_its_cluster_knows_no_master_any_more(pi: Pi) -> None:
    carry_out(pi, worker(first_boot=AGENT, credential=BROUGHT, cluster="home"))
    live_agent(pi, "home-a1b2c3", leads=False)
    pi.delete(K3S_TOKEN)
    carry_out(pi, worker(first_boot=AGENT, credential=BROUGHT, cluster="work"))
    assert "10.0.0.2" not in pi.text(K3S_CONFIG)


def test_an_image_of_such_a_node_is_still_made_anew(pi: Pi, tmp_path: Path) -> None:
    """Only who says that it runs is taken at his word."""
    assert "/etc/machine-id" in {edit.path for edit in pi.plan(worker(first_boot=AGENT)).edits}
    assert k3s.BINARY in {edit.path for edit in pi.plan(worker(first_boot=AGENT)).edits}
