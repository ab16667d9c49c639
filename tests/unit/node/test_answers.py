"""Who may ask a master for what, and what it says: with a Kubernetes of the test's own."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import answers, helper, kubernetes, revocations
from firstboot.answers import Answers
from firstboot.asker import Asker, asker_of
from firstboot.contract import MASTER, OPERATOR, REASONS, WORKER
from firstboot.kubernetes import KubernetesNode
from firstboot.registry import PATH, Registry

pytestmark = pytest.mark.unit

CA = "a" * 64
SERVER = f"K10{CA}::server:s3rvers"
AGENTS = f"K10{CA}::node:agents"
WORKER_1 = Asker("w1", frozenset([WORKER]), "10.0.0.2")
GOLDEN = Asker("golden/worker", frozenset([WORKER]), "10.0.0.2")
MASTER_2 = Asker("m2", frozenset([MASTER]), "10.0.0.2")
PERSON = Asker("operator/home", frozenset([OPERATOR]), "10.0.0.2")
W1 = {"name": "w1", "serial": "1000a", "k3s": "v1.34.9+k3s1", "role": "worker"}


class Cluster:
    def __init__(self) -> None:
        self.version = "v1.34.9+k3s1"
        self.up = True
        self.now = 1000.0
        self.comes_up = float("inf")
        self.nodes = [KubernetesNode("m1", True, "v1.34.9+k3s1", ("master",), "10.0.0.2")]
        self.minted: list[str] = []
        self.deleted: list[str] = []
        self.revoked: list[str] = []
        self.looks = 0

    def get(self) -> list[KubernetesNode] | None:
        self.looks += 1
        return list(self.nodes) if self.up else None

    def create_token(self, version: str) -> str | None:
        if not self.up:
            return None
        self.minted.append(f"abc{len(self.minted):03}")
        return f"K10{CA}::{self.minted[-1]}.{'s' * 16}"

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.up = self.up or self.now > self.comes_up

    def delete(self, name: str) -> bool:
        self.nodes = [node for node in self.nodes if node.name != name]
        self.deleted.append(name)
        return self.up


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    for name, value in {
        "version": lambda: found.version,
        "nodes": found.get,
        "create_token": found.create_token,
        "delete_token": lambda identity: found.deleted.append(identity) or True,
        "delete_node": found.delete,
        "server_token": lambda: SERVER if found.up else None,
        "is_up": lambda: found.up,
        "agent_password": lambda: "agents",
        "kubeconfig": lambda server: f"server: {server}" if found.up else None,
    }.items():
        monkeypatch.setattr(kubernetes, name, value)
    monkeypatch.setattr(revocations, "refuses", lambda signed, root: False)
    monkeypatch.setattr(revocations, "add", lambda lines, root: found.revoked.extend(lines))
    monkeypatch.setattr(answers.socket, "gethostname", lambda: "m1")
    monkeypatch.setattr(answers.time, "monotonic", lambda: found.now)
    monkeypatch.setattr(answers.time, "sleep", found.sleep)
    return found


@pytest.fixture
def master(cluster: Cluster, tmp_path: Path) -> Answers:
    return Answers(str(tmp_path))


def test_a_worker_gets_a_token_for_agents(master: Answers) -> None:
    answer = master.answer("hand-out", WORKER_1, W1)
    assert answer["token"] == f"K10{CA}::abc000.{'s' * 16}"
    assert answer["server"] == "https://10.0.0.2:6443"
    assert answer["ca"] == CA
    assert answer["k3s"] == "v1.34.9+k3s1"
    assert answer["time"] > 1_700_000_000


def test_an_old_k3s_makes_none_so_the_agents_own_is_handed_out(cluster: Cluster, master: Answers) -> None:
    cluster.version = "v1.21.2+k3s1"
    assert master.answer("hand-out", WORKER_1, dict(W1, k3s="v1.21.2+k3s1"))["token"] == AGENTS


def test_a_hundred_at_once_cost_one_token(cluster: Cluster, master: Answers) -> None:
    said: list[dict[str, object]] = []

    def asks(number: int) -> None:
        said.append(master.answer("hand-out", GOLDEN, dict(W1, name=f"w{number}", serial=f"{number}")))

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 100
    assert all("token" in answer for answer in said)
    assert len(cluster.minted) == 1
    assert len(Registry(master._root).serials()) == 100


def test_a_further_master_gets_the_servers_token_and_nobody_else(master: Answers) -> None:
    asked = {"name": "m2", "serial": "2000", "k3s": "", "role": "master"}
    answer = master.answer("hand-out", MASTER_2, asked)
    assert (answer["token"], answer["agent_token"]) == (SERVER, "agents")
    assert "agent_token" not in master.answer("hand-out", WORKER_1, W1)
    assert master.answer("hand-out", WORKER_1, dict(W1, role="master")) == {"error": "not-allowed"}
    both = WORKER_1._replace(principals=frozenset([WORKER, OPERATOR]))
    assert master.answer("hand-out", both, dict(W1, role="master")) == {"error": "not-allowed"}


@pytest.mark.parametrize(
    ("asker", "verb"),
    [
        (WORKER_1, "kubeconfig"),
        (WORKER_1, "revoke"),
        (WORKER_1, "release"),
        (MASTER_2, "kubeconfig"),
        (PERSON, "hand-out"),
        (PERSON, "rejoin"),
        (PERSON, "rm -rf /"),
        (PERSON, "_delete"),
        (PERSON._replace(principals=frozenset(["root", "w1"])), "status"),
        (PERSON._replace(principals=frozenset()), "status"),
    ],
)
def test_who_may_not(master: Answers, cluster: Cluster, asker: Asker, verb: str) -> None:
    assert master.answer(verb, asker, W1) == {"error": "not-allowed"}
    assert cluster.minted == cluster.deleted == cluster.revoked == []


def test_a_cards_certificate_is_for_its_own_name_and_a_golden_one_for_any(master: Answers) -> None:
    assert master.answer("hand-out", WORKER_1, dict(W1, name="w2")) == {"error": "wrong-name"}
    assert master.answer("status", WORKER_1, dict(W1, name="w2")) == {"error": "wrong-name"}
    assert master.answer("rejoin", WORKER_1, dict(W1, name="w2")) == {"error": "wrong-name"}
    assert "token" in master.answer("hand-out", GOLDEN, dict(W1, name="w2"))


def test_one_name_one_board(master: Answers) -> None:
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    assert master.answer("hand-out", WORKER_1, dict(W1, serial="1000b")) == {"error": "name-taken"}
    assert master.answer("release", PERSON, {"name": "w1"}) == {"done": True}
    assert "token" in master.answer("hand-out", WORKER_1, dict(W1, serial="1000b"))
    assert master.answer("hand-out", GOLDEN, dict(W1, name="m1")) == {"error": "name-taken"}


def test_a_ready_nodes_name_is_not_released(cluster: Cluster, master: Answers) -> None:
    cluster.nodes.append(KubernetesNode("w1", True, "", (), ""))
    assert master.answer("release", PERSON, {"name": "w1"}) == {"error": "name-taken"}
    assert cluster.deleted == []


def test_a_node_is_taken_back_by_the_same_board_when_it_is_lost(cluster: Cluster, master: Answers) -> None:
    assert master.answer("rejoin", WORKER_1, W1) == {"error": "name-taken"}  # nobody knows it
    master.answer("hand-out", WORKER_1, W1)
    cluster.nodes.append(KubernetesNode("w1", True, "", (), ""))
    assert master.answer("rejoin", WORKER_1, W1) == {"error": "name-taken"}
    assert cluster.deleted == []
    cluster.nodes[-1] = cluster.nodes[-1]._replace(ready=False)
    assert master.answer("rejoin", WORKER_1, dict(W1, serial="1000b")) == {"error": "name-taken"}
    assert master.answer("rejoin", WORKER_1, W1) == {"done": True}
    assert cluster.deleted == ["w1"]


@pytest.mark.parametrize(
    ("theirs", "ours", "well"),
    [
        ("v1.34.9+k3s1", "v1.34.9+k3s1", True),
        ("v1.33.20+k3s1", "v1.34.9+k3s1", True),
        ("v1.34.10+k3s1", "v1.34.9+k3s1", False),
        ("v1.35.0+k3s1", "v1.34.9+k3s1", False),
        ("", "v1.34.9+k3s1", True),
        ("v9", "v1.34.9+k3s1", True),
    ],
)
def test_no_node_is_newer_than_its_master(
    cluster: Cluster, master: Answers, theirs: str, ours: str, well: bool
) -> None:
    cluster.version = ours
    answer = master.answer("hand-out", WORKER_1, dict(W1, k3s=theirs))
    assert ("token" in answer) is well
    assert well or answer == {"error": "newer-than-master"}


def test_while_kubernetes_is_not_up(cluster: Cluster, master: Answers) -> None:
    cluster.up = False
    for verb, asker, request in [
        ("hand-out", WORKER_1, W1),
        ("status", WORKER_1, W1),
        ("status", PERSON, {}),
        ("kubeconfig", PERSON, {}),
        ("release", PERSON, {"name": "w1"}),
    ]:
        assert master.answer(verb, asker, request)["error"] == "not-ready"
    assert Registry(master._root).serials() == {}


def test_who_asks_early_is_answered_as_soon_as_k3s_is_up(cluster: Cluster, master: Answers) -> None:
    cluster.up, cluster.comes_up = False, 1010.0
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    assert cluster.now < 1011.0


def test_nobody_waits_for_ever_nor_do_many(cluster: Cluster, master: Answers) -> None:
    cluster.up = False
    assert master.answer("hand-out", WORKER_1, W1) == {"error": "not-ready", "waited": True}
    assert 1020.0 <= cluster.now < 1021.0
    for waiting in ({"w1"}, {"w2", "w3", "w4", "w5"}):  # itself, by another connection; and enough others
        master._waiting, before = waiting, cluster.now
        assert master.answer("hand-out", WORKER_1, W1) == {"error": "not-ready"}
        assert cluster.now == before


def test_status(cluster: Cluster, master: Answers) -> None:
    master.answer("hand-out", WORKER_1, W1)
    cluster.nodes.append(KubernetesNode("w1", False, "v1.34.9+k3s1", (), "10.0.0.3"))
    answer = master.answer("status", WORKER_1, W1)
    assert (answer["known"], answer["ready"], answer["ca"]) == (True, False, CA)
    listed = master.answer("status", PERSON, {})["nodes"]
    assert [(one["name"], one["ready"], one["serial"]) for one in listed] == [
        ("m1", True, ""),
        ("w1", False, "1000a"),
    ]
    for _ in range(50):
        master.answer("status", WORKER_1, W1)
    assert cluster.looks <= 2, "a hundred who ask cost one look"


def test_revoked(cluster: Cluster, master: Answers) -> None:
    before = master.answer("hand-out", WORKER_1, W1)["token"]
    request = {"lines": ["serial: 77 # w1", "id: w9"], "names": ["w1"]}
    assert master.answer("revoke", PERSON, request) == {"done": True}
    assert cluster.revoked == ["serial: 77 # w1", "id: w9"]
    assert cluster.deleted == ["abc000", "w1"]
    assert Registry(master._root).serials() == {}
    assert master.answer("hand-out", GOLDEN, dict(W1, name="w2", serial="2"))["token"] != before


def test_a_token_made_while_others_are_revoked_is_not_revoked_with_them(
    cluster: Cluster, master: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.answer("hand-out", WORKER_1, W1)
    deleted: list[str] = []

    def delete(identity: str) -> bool:
        deleted.append(identity)
        if len(deleted) == 1:  # meanwhile somebody else asks
            master.answer("hand-out", GOLDEN, dict(W1, name="w2", serial="2"))
        return True

    monkeypatch.setattr(kubernetes, "delete_token", delete)
    master.answer("revoke", PERSON, {"lines": [], "names": []})
    assert deleted == ["abc000"]


def test_a_connection_that_outlives_its_certificate_gets_nothing(
    master: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "refuses", lambda signed, root: signed == "revoked")
    stolen = WORKER_1._replace(certificate="revoked")
    assert master.answer("hand-out", stolen, W1) == {"error": "credential-refused"}
    assert "token" in master.answer("hand-out", WORKER_1._replace(certificate="good"), W1)


def test_what_many_hold_takes_no_name_that_came_with_a_card_of_its_own(
    cluster: Cluster, master: Answers
) -> None:
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    for verb in ("hand-out", "rejoin"):
        assert master.answer(verb, GOLDEN, W1) == {"error": "name-taken"}
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    golden = dict(W1, name="w2", serial="2")
    assert "token" in master.answer("hand-out", GOLDEN, golden)
    own = Asker("w2", frozenset([WORKER]), "10.0.0.2")
    assert "token" in master.answer("hand-out", own, golden), "the same board, with a card of its own now"
    assert master.answer("hand-out", GOLDEN, golden) == {"error": "name-taken"}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"lines": "serial: 1", "names": []},
        {"lines": ["serial: 1\nserial: 2"], "names": []},
        {"lines": ["serial: -1"], "names": []},
        {"lines": ["hash: SHA256:x"], "names": []},
        {"lines": ["ssh-ed25519 AAAA"], "names": []},
        {"lines": ["id: a b"], "names": []},
        {"lines": [], "names": ["--all"]},
        {"lines": [], "names": [7]},
        {"lines": ["id: x"] * 3000, "names": []},
    ],
)
def test_only_what_can_be_revoked_is(cluster: Cluster, master: Answers, request_: dict[str, object]) -> None:
    assert master.answer("revoke", PERSON, request_) == {"error": "bad-answer"}
    assert cluster.revoked == cluster.deleted == []


@pytest.mark.parametrize(
    "left", ["", "{", "[]", '{"w1": 7}', '{"w1": {"serial": "; rm"}}', '{"../x": {"serial": "1"}}']
)
def test_a_garbled_registry_counts_as_none(master: Answers, left: str) -> None:
    path = Path(master._root, PATH.lstrip("/"))
    path.parent.mkdir(parents=True)
    path.write_text(left)
    assert "token" in master.answer("hand-out", WORKER_1, W1)
    assert Registry(master._root).serials() == {"w1": "1000a"}
    assert path.stat().st_mode & 0o777 == 0o600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
keys = st.sampled_from(["name", "serial", "k3s", "role", "lines", "names"])


@given(
    st.sampled_from([*answers.VERBS, "x", ""]),
    st.sampled_from([WORKER_1, GOLDEN, MASTER_2, PERSON]),
    st.dictionaries(keys, json_values | st.sampled_from(["w1", "1", "worker", "master"])),
)
def test_whatever_is_asked_the_answer_is_one(verb: str, asker: Asker, request_: dict[str, object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubernetes, "run", lambda *_, **__: (1, b"", ""))
        patch.setattr(Registry, "_write", lambda *_: None)
        patch.setattr(revocations, "add", lambda *_: None)
        answer = Answers("/nonexistent").answer(verb, asker, request_)
    assert answer == {"done": True} or answer["error"] in REASONS


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_from_the_socket_is_answered(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helper, "_log", lambda *_: None)
        assert json.loads(helper.answered(data, Answers("/nonexistent"))) == {"error": "bad-answer"}


def test_what_the_journal_hears(master: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"verb": "hand-out", "key_id": "w1", "principals": [WORKER], "address": "10.0.0.2", "request": W1}
    asked["certificate"] = "x"
    said = json.loads(helper.answered(json.dumps(asked).encode(), master))
    assert capsys.readouterr().out == "hand-out w1: done\n"
    asked.update(verb="x\x1b[2J", request={"name": "\x1b[31m"})
    helper.answered(json.dumps(asked).encode(), master)
    told = capsys.readouterr().out
    assert told == "? ?: not-allowed\n"
    assert said["token"] not in told


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_id": 7},
        {"principals": WORKER},
        {"principals": [7]},
        {"address": "x"},
        {"address": None},
        {"certificate": ""},
        {"certificate": None},
    ],
)
def test_the_forced_command_is_not_believed_all(wrong: dict[str, object]) -> None:
    good = {"key_id": "w1", "principals": [WORKER], "address": "10.0.0.2", "certificate": "x"}
    assert asker_of(good) == WORKER_1._replace(certificate="x")
    with pytest.raises(ValueError, match=r"no (asker|certificate)"):
        asker_of({**good, **wrong})
