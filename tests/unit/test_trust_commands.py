"""The operator's commands, with masters, mDNS and ssh-keygen made up."""

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_keygen
import pytest
import yaml
from click.testing import CliRunner, Result
from test_kubeconfig import OF_K3S

from bake import cache, trust
from bake.trust import Cluster
from firstboot import mdns, token
from firstboot.contract import REASONS, WORKER, Announcement
from firstboot.errors import UserError, WorkFailed
from firstboot.token import NotAnswered
from k3s_bake.cli.app import cli

pytestmark = pytest.mark.unit

A, B, C = "10.0.0.2", "10.0.0.3", "10.0.0.4"
KUBECONFIG = {"kubeconfig": OF_K3S, "server": f"https://{A}:6443"}


class Lan:
    """What is heard, and how each address answers: a reason is a refusal by ssh."""

    def __init__(self) -> None:
        self.heard: list[Announcement] = []
        self.answers: dict[str, dict[str, Any] | str] = {}
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    def masters(self, *addresses: str, cluster: str = "home", role: str = "master") -> None:
        self.heard += [
            Announcement(cluster, role, f"n{len(self.heard)}", "joined", addr=one) for one in addresses
        ]

    def browse(self, seconds: float, enough: mdns.Enough | None = None) -> list[Announcement]:
        for end in range(1, len(self.heard) + 1):
            if enough is not None and enough(self.heard[:end]):
                return self.heard[:end]
        return self.heard

    def ask(
        self, address: str, verb: str, request: Mapping[str, Any], trust: token.Trust, limit: float
    ) -> dict[str, Any]:
        assert Path(trust.key).read_text().startswith("PRIVATE")
        assert trust.cluster == "home"
        self.asked.append((address, verb, request))
        answer = self.answers.get(address, "unreachable")
        if isinstance(answer, str):
            raise NotAnswered(answer)
        return {"done": True} if verb == "revoke" and "error" not in answer else answer


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Lan:
    lan = Lan()
    monkeypatch.setattr(mdns, "browse", lan.browse)
    monkeypatch.setattr(token, "ask", lan.ask)
    return lan


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake_keygen.install(monkeypatch)
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return trust.open_cluster("home", cache.home(), lambda text: None)


Run = Callable[[str], Result]


@pytest.fixture
def run(lan: Lan, cluster: Cluster) -> Run:
    return lambda args: CliRunner().invoke(cli, args.split(), env={"COLUMNS": "200"})


def _config(tmp_path: Path) -> Path:
    return tmp_path / "person" / ".kube" / "config"


def test_kubeconfig_is_merged(run: Run, lan: Lan, tmp_path: Path) -> None:
    lan.masters(B, cluster="barn")
    lan.masters(C, role="worker")
    lan.masters(A)
    lan.answers = {A: KUBECONFIG, B: KUBECONFIG, C: KUBECONFIG}
    done = run("kubeconfig")
    assert done.exit_code == 0
    assert "kubectl --context k3s-bake-home get nodes" in done.stdout
    assert lan.asked == [(A, "kubeconfig", {})]
    config = _config(tmp_path)
    assert yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"] == f"https://{A}:6443"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert [path.name for path in config.parent.iterdir()] == ["config"]
    assert "S0VZ" not in done.output


def test_the_first_file_of_kubeconfig_is_meant_and_links_stay(
    run: Run, lan: Lan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lan.answers = {A: KUBECONFIG}
    link, real = tmp_path / "link", tmp_path / "real"
    link.symlink_to(real)
    monkeypatch.setenv("KUBECONFIG", f":{link}:{tmp_path / 'second'}")
    assert run(f"kubeconfig --master {A}").exit_code == 0
    assert link.is_symlink()
    assert "k3s-bake-home" in real.read_text()
    assert not _config(tmp_path).exists()


def test_print_and_output_leave_the_configuration_alone(run: Run, lan: Lan, tmp_path: Path) -> None:
    lan.answers = {A: KUBECONFIG}
    printed = run(f"kubeconfig --master {A} --print")
    assert yaml.safe_load(printed.stdout)["current-context"] == "k3s-bake-home"
    file = tmp_path / "own"
    assert run(f"kubeconfig --master {A} --output {file}").exit_code == 0
    assert file.read_text() == printed.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    asked = len(lan.asked)
    assert "is there already" in str(run(f"kubeconfig --master {A} --output {file}").exception)
    assert len(lan.asked) == asked
    assert run(f"kubeconfig --master {A} --output {file} --force").exit_code == 0
    assert not _config(tmp_path).exists()


def test_a_configuration_that_cannot_be_merged_stays_as_it_is(run: Run, lan: Lan, tmp_path: Path) -> None:
    lan.answers = {A: KUBECONFIG}
    config = _config(tmp_path)
    config.parent.mkdir(parents=True)
    for content in (b"clusters: [{name: k3s-bake-home}]\n", b"\xff\xfe"):
        config.write_bytes(content)
        assert isinstance(run(f"kubeconfig --master {A}").exception, UserError)
        assert config.read_bytes() == content


def test_a_rogue_heard_first_is_passed_over(run: Run, lan: Lan, cluster: Cluster) -> None:
    lan.masters(B, A)
    lan.answers = {B: "untrusted-master", A: {"done": True}}
    assert run("release w1").exit_code == 0
    assert [one[0] for one in lan.asked] == [B, A]
    assert (cluster.folder / "last-master").read_text() == f"{A}\n"


def test_the_last_master_is_asked_where_none_is_heard(run: Run, lan: Lan, cluster: Cluster) -> None:
    lan.answers = {A: {"done": True}}
    assert run(f"release w1 --master {A}").exit_code == 0
    assert run("release w1").exit_code == 0
    assert lan.asked == [(A, "release", {"name": "w1"})] * 2
    (cluster.folder / "last-master").write_text("-oProxyCommand=evil\n")
    assert "no master of cluster 'home' is heard" in str(run("release w1").exception)


def test_where_no_master_answers_each_ones_reason_is_told(run: Run, lan: Lan) -> None:
    lan.masters(A, B)
    lan.answers = {A: "credential-refused", B: {"error": "not-ready"}}
    failed = run("release w1").exception
    assert isinstance(failed, WorkFailed)
    assert f"{A}: credential-refused; {B}: not-ready" in failed.message
    assert REASONS["credential-refused"] in failed.hint
    assert REASONS["not-ready"] in failed.hint


def test_answers_that_make_no_sense_are_none(run: Run, lan: Lan, tmp_path: Path) -> None:
    for answer in ({}, {"done": "yes"}, {"error": "made-up"}, {"error": {}}, {"kubeconfig": 5, "server": []}):
        lan.answers = {A: answer}
        assert isinstance(run(f"release w1 --master {A}").exception, WorkFailed)
        assert isinstance(run(f"kubeconfig --master {A}").exception, WorkFailed)
    assert not _config(tmp_path).exists()


def test_what_is_revoked_goes_to_every_master(run: Run, lan: Lan, cluster: Cluster) -> None:
    cluster.card("w1", WORKER)
    lan.masters(A, B, C)
    lan.answers = {A: {"done": True}, B: {"done": True}}
    done = run("revoke w1")
    assert done.exit_code == 0
    assert f"w1 is revoked, as {A}, {B} knows" in done.stdout
    assert f"{C} did not take it" in done.stderr
    serial = cluster.issued()[0].serial
    assert lan.asked[0][2]["lines"] == [f"serial: {serial} # w1"]
    assert lan.asked[0][2]["names"] == ["w1"]
    assert cluster.undelivered() == []


def test_what_is_revoked_waits_for_a_master(run: Run, lan: Lan, cluster: Cluster) -> None:
    cluster.golden(WORKER)
    cluster.card("w1", WORKER)
    for card in ("w1", "golden/worker"):
        done = run(f"revoke {card}")
        assert done.exit_code == 1
        assert f"{card} is revoked here, and no master knows it yet" in done.stdout
    assert cluster.undelivered() == ["w1", "golden/worker"]
    lan.answers = {A: {"done": True}}
    done = run(f"release w2 --master {A}")
    assert f"delivered to {A} that it is revoked: w1, golden/worker" in done.stderr
    assert lan.asked[-1][2]["names"] == ["w1"]  # the nodes among them
    assert cluster.undelivered() == []
    asked = len(lan.asked)
    run(f"release w2 --master {A}")
    assert len(lan.asked) == asked + 1


def test_a_master_that_refuses_the_list_does_not_empty_the_queue(
    run: Run, lan: Lan, cluster: Cluster
) -> None:
    lan.answers = {A: {"error": "not-allowed"}}
    assert run(f"revoke w1 --master {A}").exit_code == 1
    assert cluster.undelivered() == ["w1"]


@pytest.mark.parametrize(
    "args", ["revoke x --cluster barn", "release x --cluster barn", "kubeconfig --cluster barn"]
)
def test_an_unknown_cluster_is_told_and_none_is_made(run: Run, cluster: Cluster, args: str) -> None:
    failed = run(args).exception
    assert isinstance(failed, UserError)
    assert failed.hint == "Known here: home."
    assert [path.name for path in cluster.folder.parent.iterdir() if path.is_dir()] == ["home"]


def test_names_that_are_none_reach_no_master(run: Run, lan: Lan) -> None:
    lan.masters(A)
    for args in ("release -- -x", "release a/b", "revoke golden/worker", "revoke a;b"):
        assert isinstance(run(args).exception, UserError)
    assert lan.asked == []


def test_show_and_list_tell_all_but_secrets(run: Run, cluster: Cluster) -> None:
    assert "home" in run("cluster list").stdout
    cluster.card("w1", WORKER)
    cluster.host()
    cluster.card("w2", WORKER)
    cluster.revoke(["w2", "theirs"])
    shown = run("cluster show").stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.split()}
    assert "revoked" in lines["w2"]
    assert "revoked" in lines["theirs"]
    assert "revoked" not in lines["w1"]
    assert WORKER in lines["w1"]
    assert "never" in lines["host/home"]
    data = json.loads(run("cluster show home --json").stdout)
    assert [one["name"] for one in data["issued"]] == ["w1", "host/home", "w2"]
    assert data["undelivered"] == ["w2", "theirs"]
    assert data["signing_key_here"] is True
    assert json.loads(run("cluster list --json").stdout)[0]["authority"] == data["authority"]
    assert "PRIVATE" not in shown + json.dumps(data)


def test_export_and_import(
    run: Run, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(f"cluster export home {tmp_path / 'file'}")
    assert "holds the signing key of 'home'" in done.stdout
    monkeypatch.setenv("K3S_BAKE_HOME", str(tmp_path / "elsewhere"))
    assert "none yet" in run("cluster list").stdout
    assert "'home' is here: SHA256:" in run(f"cluster import {tmp_path / 'file'}").stdout


@pytest.mark.parametrize("ready", [True, False])
def test_status_is_what_kubernetes_says(run: Run, lan: Lan, ready: bool) -> None:
    nodes = [
        {
            "name": "m1",
            "ready": True,
            "k3s": "v1.34.9+k3s1",
            "roles": ["control-plane"],
            "address": A,
            "serial": "",
        },
        {
            "name": "w1",
            "ready": ready,
            "k3s": "v1.34.9+k3s1",
            "roles": [],
            "address": B,
            "serial": "1000\x1b[0m",
        },
    ]
    lan.answers = {A: {"nodes": nodes, "time": 1}}
    done = run(f"status --master {A}")
    assert done.exit_code == (0 if ready else 1)
    assert ("NotReady" in done.stdout) is not ready
    assert "\x1b" not in done.stdout
    assert "clocks" in done.stdout
    assert json.loads(run(f"status --master {A} --json").stdout)["nodes"] == nodes
    lan.answers = {A: {"nodes": None}}
    assert "Kubernetes does not" in str(run(f"status --master {A}").exception)
