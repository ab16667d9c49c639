"""The K3s stand-in keeps to the rules of K3s that the rest of the tests lean on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.node

K3S = Path(__file__).with_name("k3s")
PYTHON = os.environ.get("K3S_BAKE_TEST_NODE_PYTHON", sys.executable)
GRACE = "2"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Machine:
    """A root folder of its own, in which one stand-in process at a time runs."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root = root
        self.log_path = root / "k3s.log"
        self.process: subprocess.Popen[bytes] | None = None
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("K3S_", "KUBE"))}
        self.environment = clean | {
            "K3S_STAND_IN_ROOT": str(root),
            "K3S_STAND_IN_GRACE": GRACE,
            **environment,
        }

    def configure(self, **options: object) -> None:
        lines = [f"{key.replace('_', '-')}: {json.dumps(value)}\n" for key, value in options.items()]
        path = self.root / "etc/rancher/k3s/config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))

    def start(self, *arguments: str) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, str(K3S), *arguments], env=self.environment, stdout=log, stderr=log
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PYTHON, str(K3S), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=20)

    def output(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def logs(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.log().count(text) >= times, f"{text!r} in:\n{self.log()}")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)


class Master(Machine):
    @property
    def url(self) -> str:
        text = (self.root / "etc/rancher/k3s/k3s.yaml").read_text()
        return re.findall(r"server: (\S+)", text)[0]

    def token(self, name: str = "node-token") -> str:
        return (self.root / "var/lib/rancher/k3s/server" / name).read_text().strip()

    def fetch(self, path: str) -> bytes:
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(self.url + path, context=context, timeout=10) as answer:
            return answer.read()

    def serve(self, **options: object) -> None:
        self.configure(bind_address="127.0.0.1", https_listen_port=0, **options)
        self.start("server")
        self.logs("k3s is up and running")

    def status(self, name: str) -> str:
        """The status of the Ready condition, or '' where there is no such node."""
        for node in json.loads(self.output("kubectl", "get", "nodes", "-o", "json"))["items"]:
            if node["metadata"]["name"] == name:
                return next(
                    each["status"] for each in node["status"]["conditions"] if each["type"] == "Ready"
                )
        return ""

    def ready(self, name: str) -> None:
        wait_until(lambda: self.status(name) == "True", f"{name} Ready")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    machine = Master(tmp_path_factory.mktemp("master"))
    machine.serve(node_name="master", cluster_init=True)
    yield machine
    machine.stop()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Master]]:
    """Makes machines, and stops what still runs on them afterwards."""
    made: list[Master] = []

    def make(name: str = "machine", **environment: str) -> Master:
        root = tmp_path / name
        root.mkdir()
        made.append(Master(root, **environment))
        return made[-1]

    yield make
    for each in made:
        if each.alive:
            each.stop(signal.SIGKILL)


def join(agent: Machine, master: Master, name: str, token: str = "") -> None:
    agent.configure(
        server=master.url, token=token or master.token(), node_name=name, node_label=["tier=edge"]
    )
    agent.start("agent")


def test_it_names_its_version_and_itself(machine: Callable[..., Master]) -> None:
    lines = machine("new").output("--version").splitlines()
    assert lines[0] == "k3s version v1.34.9+k3s1 (stand-in)"
    assert lines[1].startswith("go version ")
    assert "stand-in" in lines[2]
    old = machine("old", K3S_STAND_IN_VERSION="v1.21.2+k3s1")
    assert old.output("--version").startswith("k3s version v1.21.2+k3s1 ")
    assert old.run("token", "create").returncode == 3


def test_the_token_names_the_ca_that_cacerts_returns(master: Master) -> None:
    match = re.fullmatch(r"K10([0-9a-f]{64})::server:([0-9a-f]{32})", master.token())
    assert match
    assert match.group(1) == hashlib.sha256(master.fetch("/cacerts")).hexdigest()
    assert master.fetch("/ping") == b"pong"
    folder = master.root / "var/lib/rancher/k3s/server"
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert (folder / "node-token").is_symlink()
    assert (folder / "agent-token").is_symlink()


def test_an_agent_joins_and_turns_not_ready_when_it_dies(
    master: Master, machine: Callable[..., Master]
) -> None:
    agent = machine()
    join(agent, master, "worker1")
    master.ready("worker1")
    node = json.loads(master.output("kubectl", "get", "node", "worker1", "-o", "json"))
    assert node["metadata"]["labels"]["tier"] == "edge"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.9+k3s1"
    row = next(line for line in master.output("kubectl", "get", "nodes").splitlines() if "worker1" in line)
    assert row.split()[1:3] == ["Ready", "<none>"]
    agent.stop(signal.SIGKILL)
    wait_until(lambda: master.status("worker1") == "Unknown", "worker1 NotReady")
    assert " NotReady " in master.output("kubectl", "get", "nodes", "-o", "wide")


def test_an_agent_never_speaks_to_a_server_with_another_ca(
    master: Master, machine: Callable[..., Master]
) -> None:
    agent = machine()
    join(agent, master, "impostor", f"K10{'0' * 64}::server:{master.token().rpartition(':')[2]}")
    agent.logs("token CA hash does not match the Cluster CA certificate hash: 0000", times=2)
    assert agent.alive  # like K3s, it tries for ever
    assert master.status("impostor") == ""
    server = machine("server")
    server.configure(server=master.url, token=f"K10{'0' * 64}::server:x")
    done = server.run("server")
    assert done.returncode == 1
    assert "token CA hash does not match" in done.stderr


def test_an_agent_with_a_wrong_password_stays_and_logs_401(
    master: Master, machine: Callable[..., Master]
) -> None:
    agent = machine()
    join(agent, master, "stranger", master.token().rpartition(":")[0] + ":wrong")
    agent.logs("/v1-k3s/config: 401 Unauthorized", times=2)
    assert agent.alive
    assert master.status("stranger") == ""


def test_a_name_is_kept_for_its_node_until_that_is_deleted(
    master: Master, machine: Callable[..., Master]
) -> None:
    first, second = machine("first"), machine("second")
    join(first, master, "worker2")
    master.ready("worker2")
    first.stop()
    join(second, master, "worker2")
    second.logs("Node password rejected, duplicate hostname or contents of ")
    master.logs("Sending HTTP 403 response to 127.0.0.1: unable to verify password for node worker2")
    assert second.alive
    master.output("kubectl", "delete", "node", "worker2")
    master.ready("worker2")


def test_bootstrap_tokens_expire_and_joined_nodes_outlive_them(
    master: Master, machine: Callable[..., Master]
) -> None:
    token = master.output("token", "create", "--ttl", "2s").strip()
    assert re.fullmatch(r"K10[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}", token)
    early, late = machine("early"), machine("late")
    join(early, master, "early", token)
    master.ready("early")
    wait_until(lambda: status_with(master, token.partition("::")[2]) == 401, "the token expired")
    join(late, master, "late", token)
    late.logs("/v1-k3s/config: 401 Unauthorized")
    early.stop()
    wait_until(lambda: master.status("early") == "Unknown", "early NotReady")
    early.start("agent")
    master.ready("early")


def status_with(master: Master, bearer: str) -> int:
    context = ssl._create_unverified_context()
    request = urllib.request.Request(
        master.url + "/v1-k3s/config", headers={"Authorization": f"Bearer {bearer}"}
    )
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_an_agent_refuses_what_only_a_server_knows(machine: Callable[..., Master]) -> None:
    agent = machine()
    agent.configure(server="https://127.0.0.1:1", token="x", tls_san=["a"])
    done = agent.run("agent")
    assert done.returncode == 1
    assert "flag provided but not defined: -tls-san" in done.stderr
    agent.configure(server="https://127.0.0.1:1")
    assert "--token is required" in agent.run("agent").stderr
    agent.configure(token="x")
    assert "--server is required" in agent.run("agent").stderr


def test_an_agent_waits_for_its_token_file(master: Master, machine: Callable[..., Master]) -> None:
    agent = machine()
    path = agent.root / "token"
    agent.configure(server=master.url, node_name="waiter", token_file=str(path))
    agent.start("agent")
    agent.logs(f"Waiting for {path} to be available", times=2)
    path.write_text(master.token("agent-token") + "\n")
    master.ready("waiter")


def test_an_agent_token_joins_agents_and_no_servers(machine: Callable[..., Master]) -> None:
    server, agent, rival = machine("server"), machine("agent"), machine("rival")
    (server.root / "secret").write_text("agents-only\n")
    server.serve(node_name="solo", agent_token_file=str(server.root / "secret"), cluster_init=True)
    token = server.token("agent-token")
    assert re.fullmatch(r"K10[0-9a-f]{64}::node:agents-only", token)
    join(agent, server, "helper", token)
    server.ready("helper")
    rival.configure(server=server.url, token=token)
    done = rival.run("server")
    assert done.returncode == 1
    assert "/v1-k3s/server-bootstrap: 401" in done.stderr


def test_a_further_master_has_the_same_ca_and_nodes(master: Master, machine: Callable[..., Master]) -> None:
    second, agent = machine("second"), machine("agent")
    second.serve(node_name="master2", server=master.url, token=master.token())
    assert second.fetch("/cacerts") == master.fetch("/cacerts")
    assert second.token() == master.token()
    join(agent, second, "worker3")
    second.ready("worker3")
    master.ready("master2")


def put_pods_on(master: Master, node: str) -> None:
    """One that may go, one that a budget holds, one that does not end, and one of a DaemonSet."""
    by_a_set = {"ownerReferences": [{"kind": "DaemonSet", "name": "x", "controller": True}]}
    made: dict[str, dict[str, object]] = {
        "free": {},
        "held": {"labels": {"app": "web"}},
        "slow": {"finalizers": ["a.b/c"]},
        "set": by_a_set,
    }
    items = [
        {"kind": "Pod", "metadata": {"name": name, **meta}, "spec": {"nodeName": node}}
        for name, meta in made.items()
    ]
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    items.append({"kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget})
    (master.root / "pods.json").write_text(json.dumps({"kind": "List", "items": items}))
    assert master.output("kubectl", "create", "-f", str(master.root / "pods.json")).splitlines()[::4] == [
        "pod/free created",
        "poddisruptionbudget.policy/web created",
    ]


def test_a_drain_moves_what_may_go_and_names_what_stays(
    master: Master, machine: Callable[..., Master]
) -> None:
    agent = machine("agent")
    join(agent, master, "drained")
    master.ready("drained")
    put_pods_on(master, "drained")
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=1s")
    both = master.run("kubectl", "cordon", "drained", "nobody")
    assert both.stderr == 'Error from server (NotFound): nodes "nobody" not found\n'
    assert master.output("kubectl", "cordon", "drained") == "node/drained cordoned\n"
    done = master.run("kubectl", "drain", "drained", *options)
    assert done.returncode == 1
    assert done.stdout.startswith("node/drained already cordoned\n")
    assert "evicting pod default/free\n" in done.stdout
    assert "pod/free evicted\n" in done.stdout
    assert "Warning: ignoring DaemonSet-managed Pods: default/set\n" in done.stderr
    held = 'error when evicting pods/"held" -n "default"'
    assert f"{held} (will retry after 5s): Cannot evict pod as it would violate the pod's" in done.stderr
    assert f"{held}: global timeout reached: 1s" in done.stderr
    assert 'waiting for pod "slow" in namespace "default" to terminate: global timeout' in done.stderr
    assert 'There are pending pods in node "drained" when an error occurred: [error when' in done.stderr
    assert "pod/held\npod/slow\n" in done.stderr
    selector = "--field-selector=spec.nodeName=drained"
    listed = json.loads(master.output("kubectl", "get", "pods", "-A", selector, "-o", "json"))
    assert [pod["metadata"]["name"] for pod in listed["items"]] == ["held", "set", "slow"]
    node = json.loads(master.output("kubectl", "get", "node", "drained", "-o", "json"))
    assert node["spec"]["unschedulable"] is True
    master.output("kubectl", "delete", "node", "drained")
    missing = master.run("kubectl", "drain", "drained", *options)
    assert missing.returncode == 1
    assert missing.stderr == 'Error from server (NotFound): nodes "drained" not found\n'
    assert json.loads(master.output("kubectl", "get", "pods", "-A", "-o", "json"))["items"] == []


@pytest.mark.parametrize(("version", "notifies"), [("v1.34.9+k3s1", True), ("v1.21.2+k3s1", False)])
def test_agents_notify_systemd_where_k3s_does(
    master: Master, machine: Callable[..., Master], version: str, notifies: bool
) -> None:
    name = f"notifier-{notifies}".lower()
    agent = machine(K3S_STAND_IN_VERSION=version, NOTIFY_SOCKET=f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(0.5)
        join(agent, master, name)
        master.ready(name)
        try:
            received = sock.recv(64) == b"READY=1"
        except TimeoutError:
            received = False
    assert received is notifies
    assert agent.stop() == 0
