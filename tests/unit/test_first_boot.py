"""The agent and the join service, as they are baked in."""

import datetime
import json
from dataclasses import replace

import pytest
from raspbian import Pi, master, worker

from bake import manifest
from bake.inspection import compare
from bake.spec import File, FirstBoot, NodeSpec, Role
from firstboot.contract import (
    CONFIG,
    CREDENTIAL,
    CREDENTIAL_BYTES,
    JOIN_KEY,
    STATUS,
    STATUS_BYTES,
    Credential,
)
from firstboot.credential import credential_files
from firstboot.edits import Link, Place, Remove, Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit

_ELF = worker().k3s.binary  # the same few bytes
AGENT = FirstBoot(File("firstboot.pyz", _ELF.sha256, _ELF.size), "ssh-ed25519 AAAA")
BROUGHT = Credential(None, "s3cret-key", "certificate", "s3cret-host-key", "host certificate")
WANTS = "/etc/systemd/system/multi-user.target.wants"
UNIT = f"{WANTS}/k3s-bake.service"


@pytest.fixture(autouse=True)
def _ssh(pi: Pi) -> None:
    pi.install(**{"openssh-client": "1:7.9p1-10+deb10u2+rpt1"})
    pi.write("/etc/shadow", "root:*:18000:0:99999:7:::\npi:$6$hash:18000:0:99999:7:::\n")
    pi.write("/etc/group", "root:x:0:\npi:x:1000:\nkept:x:999:\n")


def edits(pi: Pi, spec: NodeSpec) -> dict[str, Write | Place | Link | Remove]:
    return {step.edit.path: step.edit for step in pi.plan(spec).steps}


def test_a_worker_with_an_agent(pi: Pi) -> None:
    found = edits(pi, worker(first_boot=AGENT, credential=BROUGHT, cluster="home", master="10.0.0.2"))
    assert isinstance(found["/usr/lib/k3s-bake/firstboot.pyz"], Place)
    assert isinstance(found[UNIT], Link)
    config = found[CONFIG]
    assert isinstance(config, Write)
    told = json.loads(config.content)
    assert (told["cluster"], told["role"], told["name"], told["joins"]) == ("home", "worker", None, True)
    assert told["master"] == "10.0.0.2"
    credential, status = found[f"/boot/{CREDENTIAL}"], found[f"/boot/{STATUS}"]
    assert isinstance(credential, Write)
    assert isinstance(status, Write)
    assert (len(credential.content), len(status.content)) == (CREDENTIAL_BYTES, STATUS_BYTES)
    assert Credential.from_bytes(credential.content) == BROUGHT
    assert f"{WANTS}/k3s-agent.service" not in found, "the agent starts K3s"
    assert not any("sshd_config" in path and "k3s-bake" in path for path in found)
    k3s = found["/etc/rancher/k3s/config.yaml"]
    assert isinstance(k3s, Write)
    assert b"with-node-id" not in k3s.content


def test_a_master_leads_unless_it_is_to_join(pi: Pi) -> None:
    for join in (False, True):
        config = edits(pi, master(first_boot=AGENT, credential=BROUGHT, join=join))[CONFIG]
        assert isinstance(config, Write)
        assert json.loads(config.content)["joins"] is join


def test_the_agent_is_told_what_sets_addresses(pi: Pi) -> None:
    def told() -> object:
        config = edits(pi, worker(first_boot=AGENT))[CONFIG]
        assert isinstance(config, Write)
        return json.loads(config.content)["network_manager"]

    assert told() == "dhcpcd"
    pi.remove_package("dhcpcd5")
    assert told() is None
    pi.install(**{"network-manager": "1.42.4-1"})
    assert told() == "NetworkManager"


def test_the_address_of_a_card_is_no_part_of_an_adopted_machine(pi: Pi) -> None:
    addressed = replace(BROUGHT, address="10.0.0.3/24", gateway="10.0.0.1")
    assert credential_files(addressed) == credential_files(BROUGHT)


def test_no_secret_is_in_what_is_told(pi: Pi) -> None:
    plan = pi.plan(master(first_boot=AGENT, credential=BROUGHT))
    assert plan.secret
    told = json.dumps(manifest.steps(plan)) + repr(plan)
    for secret in ("s3cret-key", "s3cret-host-key", "$6$hash"):
        assert secret not in json.dumps(manifest.steps(plan))
    assert "s3cret-key" not in repr(master(first_boot=AGENT, credential=BROUGHT))
    assert told


def test_the_account_is_nobodys_else(pi: Pi) -> None:
    pi.bake(master(first_boot=AGENT, credential=BROUGHT))
    passwd, shadow = pi.text("/etc/passwd"), pi.text("/etc/shadow")
    assert passwd.endswith("\nk3s-join:x:998:998:K3s join service:/nonexistent:/bin/sh\n")  # 999 is taken
    assert "\nk3s-join:*:" in shadow
    assert shadow.startswith("root:*:18000")
    assert not pi.plan(master(first_boot=AGENT, credential=BROUGHT)).steps


def test_without_a_credential_there_is_room_for_one(pi: Pi) -> None:
    spec = worker(first_boot=AGENT)
    plan = pi.plan(spec)
    assert not plan.secret
    assert any("without a credential" in text for _, text in plan.notes)
    pi.bake(spec)
    assert pi.text(f"/boot/{CREDENTIAL}").strip() == ""
    assert len(pi.text(f"/boot/{CREDENTIAL}")) == CREDENTIAL_BYTES


def test_a_credential_that_was_baked_in_goes_when_it_is_not_wanted_any_more(pi: Pi) -> None:
    pi.bake(worker(first_boot=AGENT, credential=BROUGHT))
    pi.bake(worker(first_boot=AGENT))
    assert pi.text(f"/boot/{CREDENTIAL}").strip() == ""
    assert not pi.plan(worker(first_boot=AGENT)).secret


def test_after_the_first_boot_nothing_is_put_back(pi: Pi) -> None:
    spec = worker(first_boot=AGENT, credential=BROUGHT)
    pi.bake(spec)
    (pi.root / "boot" / CREDENTIAL).unlink()
    pi.write(JOIN_KEY, "key")
    pi.write(f"/boot/{STATUS}", "joined".ljust(STATUS_BYTES))
    assert not pi.plan(spec).steps
    assert pi.plan(spec).secret


def test_baked_again_without_it_the_agent_goes(pi: Pi) -> None:
    pi.bake(master(first_boot=AGENT, credential=BROUGHT))
    pi.bake(master())
    for path in (UNIT, CONFIG, f"{WANTS}/k3s-bake-join.service", "/etc/k3s-bake/sshd_config"):
        assert not (pi.root / path.lstrip("/")).is_symlink()
        assert not (pi.root / path.lstrip("/")).exists()
    assert not (pi.root / "boot" / CREDENTIAL).exists()


def test_the_clock_of_an_earlier_bake_is_kept(pi: Pi) -> None:
    spec = worker(first_boot=AGENT)
    pi.bake(replace(spec, not_before=datetime.date(2026, 11, 25)))
    assert not pi.plan(spec).steps
    assert not pi.plan(replace(spec, not_before=datetime.date(2026, 1, 1))).steps


@pytest.mark.parametrize("package", ["python3", "openssh-client", "openssh-server"])
def test_what_the_base_must_have(pi: Pi, package: str) -> None:
    pi.remove_package(package)
    with pytest.raises(UserError, match="OpenSSH server|" + package):
        pi.plan(master(first_boot=AGENT))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"master": "pi.local"}, "not a master's address"),
        ({"join": True}, "a worker joins anyway"),
    ],
)
def test_what_no_worker_can_be(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        worker(first_boot=AGENT, **values)


def test_what_no_master_can_be() -> None:
    with pytest.raises(UserError, match="without an agent nothing joins|nothing joins by itself"):
        master(join=True)
    with pytest.raises(UserError, match="--server names one"):
        master(first_boot=AGENT, join=True, server="https://10.0.0.2:6443")


@pytest.mark.parametrize(("named", "called"), [("w7", "w7"), (None, "k3s-worker")])
def test_an_inspection_tells_what_the_card_is_called(pi: Pi, named: str | None, called: str) -> None:
    pi.bake(worker(first_boot=AGENT, credential=replace(BROUGHT, name=named)))
    assert compare(pi.read(), Role.WORKER).name == called
