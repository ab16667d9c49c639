"""Masters with a datastore elsewhere: in a file, on a node, in its record, and before an adoption."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from raspbian import Pi, config, master, worker, written
from test_cluster_file import K3S, loaded, problems
from test_preflight import machine

from bake import manifest, spec_json
from bake.cluster_file import values_for
from bake.concerns.ports import ETCD, needed
from bake.datastore import ExternalDatastore
from bake.spec import Datastore, File, FirstBoot, NodeSpec, Role
from firstboot import leave
from firstboot.contract import CONFIG, K3S_DATASTORE, NodeConfig
from firstboot.edits import Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import File as Found
from firstboot.snapshot import Snapshot
from k3s_bake import adopt
from k3s_bake.fleet import Fleet
from k3s_bake.preflight import not_reached, switched
from k3s_bake.wanted import Wanted, joining

pytestmark = pytest.mark.unit

URL = "postgres://k3s@10.0.0.9:5432/k3s"
EXTERNAL = ExternalDatastore(URL, "hunter2?")
AGENT = FirstBoot(File("firstboot.pyz", "0" * 64, 1), "ssh-ed25519 AAAA")
MASTERS = '[[node]]\nname="a"\nrole="master"\n[[node]]\nname="b"\nrole="master"\njoin=true\n'


def written_to(folder: Path, text: str, password: bytes = b"hunter2?\n") -> Path:
    (folder / "password").write_bytes(password)
    (folder / "password").chmod(0o600)
    (folder / "cluster.toml").write_text(text)
    return folder


# in cluster.toml


def test_masters_have_it_and_workers_do_not(tmp_path: Path) -> None:
    folder = written_to(tmp_path, "")
    named = f'[cluster]\ndatastore = "{URL}"\ndatastore_password_file = "password"\n'
    file = loaded(folder, named + MASTERS + '[[node]]\nname="c"\nrole="worker"\n')
    specs = [
        NodeSpec(k3s=K3S, **{"first_boot": AGENT, **values_for(file, role, name)})
        for name, role in (("a", Role.MASTER), ("b", Role.MASTER), ("c", Role.WORKER))
    ]
    assert [spec.external for spec in specs] == [EXTERNAL, EXTERNAL, None]
    assert [spec.join for spec in specs] == [False, True, False]
    assert "hunter2" not in repr(file) + repr(specs)


@pytest.mark.parametrize(
    ("text", "password", "problem"),
    [
        ("datastore = 'postgres://k3s:hunter2@db/k3s'", b"x", "cluster.datastore: secrets do not belong in"),
        ("datastore = 'sqlserver://sa@db'", b"x", "cluster.datastore: that is no datastore that K3s knows"),
        (
            "datastore_password_file = 'password'",
            b"x",
            "cluster.datastore_password_file: goes with a database",
        ),
        (
            "datastore = 'etcd'\ndatastore_password_file = 'password'",
            b"x",
            "cluster.datastore_password_file: goes with a database",
        ),
        (
            "datastore = 'https://db:2379'\ndatastore_password_file = 'password'",
            b"hunter2",
            "cluster.datastore_password_file: K3s shows etcd a certificate",
        ),
        (
            f"datastore = '{URL}'\ndatastore_password_file = 'password'",
            b"hunter2\xff",
            "does not hold text in UTF-8",
        ),
        (
            f"datastore = '{URL}'\ndatastore_password_file = 'password'",
            b"hunter2\nx",
            "that cannot be a datastore's password",
        ),
        ("datastore_password = 'hunter2'", b"x", "use datastore_password_file"),
        ("datastore = 'sql'", b"x", "'sql' is neither sqlite nor etcd"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, password: bytes, problem: str) -> None:
    (found,) = problems(written_to(tmp_path, "", password), f"[cluster]\n{text}")
    assert problem in found
    assert "hunter2" not in found


def test_k3s_s_own_key_is_told_the_form_that_takes_a_file(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[k3s.config]\ndatastore-endpoint='postgres://k3s:hunter2@db/k3s'")
    assert "use datastore in [cluster], and datastore_password_file" in found


def test_masters_of_one_sqlite_are_told_what_can_be_shared(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, MASTERS)
    assert "2 masters cannot share sqlite: write 'etcd', or name a database" in found


# on a node


def test_it_is_in_a_private_file_of_its_own_and_nowhere_else(pi: Pi) -> None:
    for spec in (master(datastore=EXTERNAL, first_boot=AGENT, join=True), master(datastore=EXTERNAL)):
        assert config(pi, spec).keys() == {"node-name", "prefer-bundled-bin"}
    assert written(pi, "k3s", spec)[K3S_DATASTORE].splitlines()[1:] == [
        'datastore-endpoint: "postgres://k3s:hunter2%3F@10.0.0.9:5432/k3s"'
    ]
    todo = pi.plan(spec)
    holding = [edit for edit in todo.edits if isinstance(edit, Write) and b"hunter2" in edit.content]
    assert [(edit.path, edit.mode, edit.secret) for edit in holding] == [(K3S_DATASTORE, 0o600, True)]
    assert todo.secret
    said = json.dumps(manifest.steps(todo)) + repr(todo)
    assert "hunter2" not in said
    assert hashlib.sha256(holding[0].content).hexdigest() not in said


def test_after_a_bake_it_is_there_and_goes_when_it_is_not_wanted(pi: Pi) -> None:
    spec = master(datastore=EXTERNAL)
    pi.bake(spec)
    assert pi.plan(spec).steps == ()
    assert pi.plan(spec).secret
    other = master(datastore=ExternalDatastore(URL, "another"))
    assert [edit.path for edit in pi.plan(other).edits] == [K3S_DATASTORE]
    for without in (master(), worker()):
        assert Remove(K3S_DATASTORE) in pi.plan(without).edits
    pi.bake(worker())
    assert not (pi.root / K3S_DATASTORE[1:]).exists()


@pytest.mark.parametrize("url", [URL, "mysql://k3s@tcp(db)/k3s", "http://db:2379"])
def test_a_record_names_it_without_the_password(pi: Pi, url: str) -> None:
    spec = master(datastore=ExternalDatastore(url, None if url.startswith("http") else "hunter2"))
    record = json.dumps(spec_json.to_json(spec))
    assert "hunter2" not in record
    again = spec_json.loads(record)
    assert again.external
    assert again.external.url == url
    assert json.dumps(spec_json.to_json(again)) == record
    pi.bake(spec)
    left = pi.plan(again).edits
    assert [edit.path for edit in left] == ([] if again.external.is_etcd else [K3S_DATASTORE])


@pytest.mark.parametrize(
    "value", [None, 1, {}, {"url": 1}, {"url": "x"}, {"url": URL, "password": "x"}, "mysql", [URL]]
)
def test_a_garbled_record_is_refused(value: object) -> None:
    record = spec_json.to_json(master(datastore=EXTERNAL))
    with pytest.raises(UserError):
        spec_json.from_json({**record, "datastore": value})


def test_no_port_is_opened_for_an_etcd_that_is_not_there() -> None:
    assert ETCD not in needed(master(datastore=EXTERNAL, first_boot=AGENT, join=True))
    assert ETCD not in needed(master(datastore=EXTERNAL))


def test_who_cannot_have_one() -> None:
    with pytest.raises(UserError, match="a worker has no datastore"):
        worker(datastore=EXTERNAL)
    with pytest.raises(UserError, match="a datastore in a file of its own"):
        master(version="v1.20.15+k3s1", datastore=EXTERNAL)
    assert master(version=None, datastore=EXTERNAL).external == EXTERNAL


def test_a_node_that_leaves_keeps_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / K3S_DATASTORE[1:]
    place.parent.mkdir(parents=True)
    place.write_text("hunter2")
    leave.remove(str(tmp_path))
    assert not (tmp_path / "etc/rancher").exists()


# before an adoption


def test_who_joins_needs_no_etcd_where_a_database_is_shared() -> None:
    assert joining(Role.MASTER, "10.0.0.2", 2, EXTERNAL) == {"master": "10.0.0.2", "join": True}
    assert joining(Role.MASTER, None, 2, Datastore.SQLITE) == {"datastore": Datastore.ETCD}


@pytest.mark.parametrize(
    ("before", "wanted", "values", "words"),
    [
        (Datastore.SQLITE, EXTERNAL, {}, f"is in K3s's own sqlite, and does not move to {URL}"),
        (EXTERNAL, Datastore.SQLITE, {}, f"is in {URL}, and does not move to K3s's own sqlite"),
        (EXTERNAL, Datastore.ETCD, {}, "K3s's own etcd"),
        (Datastore.SQLITE, EXTERNAL, {"ours": {"joined": False}}, ""),
        (Datastore.SQLITE, EXTERNAL, {"ours": None}, ""),
        (Datastore.SQLITE, Datastore.ETCD, {}, ""),
        (EXTERNAL, ExternalDatastore("mysql://k3s@tcp(10.0.0.9:5432)/k3s"), {}, "does not move to mysql"),
        (EXTERNAL, ExternalDatastore(URL.replace("10.0.0.9", "10.0.0.8")), {}, "does not move to postgres"),
        (EXTERNAL, ExternalDatastore("postgres://k3s@10.0.0.9:5432/other"), {}, "does not move to postgres"),
        (EXTERNAL, ExternalDatastore("postgres://ann@10.0.0.9/k3s?sslmode=require", "hunter2"), {}, ""),
        (ExternalDatastore("mysql://k@tcp(b)/"), ExternalDatastore("mysql://k@tcp(b)/kubernetes"), {}, ""),
        (ExternalDatastore("https://a:1,https://b:2"), ExternalDatastore("https://b:2,https://a:1"), {}, ""),
        (Datastore.ETCD, EXTERNAL, {"etcd": True, "ours": None}, "K3s keeps to the etcd of its own"),
    ],
)
def test_another_datastore_for_a_master_that_has_state(
    before: Any, wanted: Any, values: dict[str, Any], words: str
) -> None:
    there = machine(**{"ours": {"joined": True}, "etcd": False, **values})
    found = switched(before, wanted, there, take_over=False)
    assert [words in one.message and one.stops for one in found] == [True] * bool(words)
    kept = "keeps" in words
    assert bool(switched(before, wanted, there, take_over=True)) is kept


def test_an_etcd_of_which_one_member_answers_is_enough() -> None:
    assert not_reached({}, 2) == []
    assert [one.stops for one in not_reached({"a:2379": "no answer"}, 2)] == [False]
    assert [one.stops for one in not_reached({"a:2379": "no answer", "b:2379": "x"}, 2)] == [True, True]


class Remote:
    def __init__(self, failed: dict[str, str]) -> None:
        self.failed = failed
        self.asked: list[Any] = []

    async def call(self, verb: str, **values: Any) -> dict[str, Any]:
        self.asked.append((verb, values))
        return {"failed": self.failed}


def checked(
    fleet: Fleet, remote: Remote, role: Role, given: dict[str, Any], recorded: NodeSpec | None
) -> None:
    candidate = adopt.Candidate(fleet.order.candidates[0].login, role, None, given)
    asked: Any = remote
    one = adopt.Machine(candidate, fleet.outcomes[0], asked, fleet.how)
    files = {}
    if recorded is not None:
        agent = NodeConfig("home", role.value).to_json().encode()
        record = json.dumps(spec_json.to_json(recorded)).encode()
        for path, content in ((CONFIG, agent), ("/etc/k3s-bake/node.json", record)):
            files[path] = Found(len(content), 0o644, 0, 0, "", content)
    facts = machine(ours={"joined": True} if recorded else None, etcd=False)
    one.looked = adopt.Looked(Snapshot(files, ()), facts)
    asyncio.run(fleet._check_datastore(one))


@pytest.mark.parametrize(
    ("role", "given", "recorded", "asks"),
    [
        (Role.MASTER, {"datastore": EXTERNAL}, None, True),
        (Role.MASTER, {}, master(cluster="home", datastore=EXTERNAL), True),
        (Role.MASTER, {}, master(cluster="home"), False),
        (Role.MASTER, {}, None, False),
        (Role.WORKER, {}, None, False),
    ],
)
def test_a_master_tries_its_datastore_before_anything_is_changed(
    role: Role, given: dict[str, Any], recorded: NodeSpec | None, asks: bool
) -> None:
    from test_fleet import fleet

    remote = Remote({"10.0.0.9:5432": "no answer"})
    if not asks:
        checked(fleet((role, "m", None)), remote, role, given, recorded)
        assert remote.asked == []
        return
    with pytest.raises(UserError, match="does not reach its datastore at 10.0.0.9:5432: no answer") as caught:
        checked(fleet((role, "m", None)), remote, role, given, recorded)
    assert "firewall" in caught.value.hint
    assert remote.asked == [("call_all", {"places": (("10.0.0.9", 5432),)})]


def test_what_a_switch_costs_is_said_before_it_is_tried() -> None:
    from test_fleet import fleet

    remote = Remote({})
    with pytest.raises(UserError, match="does not move to postgres"):
        checked(
            fleet((Role.MASTER, "m", None)),
            remote,
            Role.MASTER,
            {"datastore": EXTERNAL},
            master(cluster="home"),
        )
    assert remote.asked == []


def test_a_stand_in_is_never_written_for_a_password_that_is_gone() -> None:
    made: Any = adopt.Machine.__new__(adopt.Machine)
    record = json.dumps(spec_json.to_json(master(datastore=EXTERNAL))).encode()
    node = {"/etc/k3s-bake/node.json": Found(len(record), 0o644, 0, 0, "", record)}
    made.looked = adopt.Looked(Snapshot(node, ()), {})
    nothing: Any = None
    with pytest.raises(UserError, match="password is not there any more"):
        asyncio.run(Wanted(nothing).again(made, {}))
