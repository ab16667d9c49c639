"""What is shown and kept of a plan: no secret, no control character that acts."""

import json
from pathlib import Path

import pytest
from raspbian import FULL, Pi, master, worker

from bake import manifest
from bake.inspection import compare
from bake.node import Plan
from bake.spec import Role
from k3s_bake import report

pytestmark = pytest.mark.unit

TOKEN = "K10" + "b" * 64 + "::server:hunter2"


def everything(plan: Plan) -> str:
    return json.dumps(manifest.steps(plan)) + "".join(report.diff(step) for step in plan.steps) + repr(plan)


def test_what_an_earlier_installation_kept_private_stays_so(pi: Pi) -> None:
    pi.write("/etc/rancher/k3s/config.yaml", f"token: {TOKEN}\n")
    (pi.root / "etc/rancher/k3s/config.yaml").chmod(0o600)
    pi.write("/etc/systemd/system/k3s.service", f"ExecStart=/usr/local/bin/k3s server --token {TOKEN}\n")
    pi.write("/etc/systemd/system/k3s-agent.service.env", f"K3S_TOKEN={TOKEN}\n")
    (pi.root / "etc/systemd/system/k3s-agent.service.env").chmod(0o600)
    told = everything(pi.plan(worker()))
    assert "hunter2" not in told
    assert "/etc/systemd/system/k3s.service" in told
    assert '"secret": true' in told


def test_no_secret_of_the_spec_is_told(pi: Pi) -> None:
    told = everything(pi.plan(worker(**FULL)))
    for secret in ("::node:pw", "secret-password", "http://proxy"):
        assert secret not in told


def test_a_diff_shows_text_and_access(pi: Pi) -> None:
    (pi.root / "etc/hostname").chmod(0o600)
    steps = {step.edit.path: step for step in pi.plan(worker(name="w1")).steps}
    shown = report.diff(steps["/etc/hosts"])
    assert "-127.0.1.1\traspberrypi\n+127.0.1.1\tw1\n" in shown
    assert report.diff(steps["/etc/rancher/k3s/config.yaml"]).startswith("--- /dev/null\n")


def test_control_characters_and_markup_of_an_image_do_nothing() -> None:
    assert "\x1b" not in report.shown("a\x1b[31mb")
    assert report.shown("[red]x") == "\\[red]x"


def test_inspection_wants_a_secret_to_be_there_private_and_not_empty(pi: Pi) -> None:
    spec = worker(**FULL)
    pi.bake(spec)
    token = pi.root / "etc/rancher/k3s/token"
    assert compare(pi.read(), Role.WORKER).missing["k3s"] == ()
    token.chmod(0o644)
    assert [step.edit.path for step in compare(pi.read(), Role.WORKER).missing["k3s"]] == [
        "/etc/rancher/k3s/token"
    ]
    token.chmod(0o600)
    token.write_bytes(b"")
    assert compare(pi.read(), Role.WORKER).missing["k3s"]


def test_inspection_of_what_was_never_baked_names_what_is_missing(pi: Pi, tmp_path: Path) -> None:
    found = compare(pi.read(), Role.MASTER)
    assert not found.recorded
    assert not found.met
    missing = {name for name, steps in found.missing.items() if steps}
    assert {"cgroups", "iptables", "swap", "k3s", "identity", "record"} <= missing
    pi.bake(master())
    assert compare(pi.read(), Role.MASTER).recorded
