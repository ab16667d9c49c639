"""A spec: what it refuses, and what of it is recorded."""

import ast
import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raspbian import FULL, master, worker

from bake import spec_json
from bake.k3s_keys import AGENT_KEYS, SECRET_KEYS
from bake.k3s_version import K3sVersion
from bake.spec import Datastore, File, NodeSpec, Role
from firstboot.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "spec", [worker(), master(datastore=Datastore.ETCD), worker(**FULL), worker(version=None)]
)
def test_a_record_read_back_gives_the_same_record(spec: NodeSpec) -> None:
    record = json.loads(json.dumps(spec_json.to_json(spec)))
    assert json.loads(json.dumps(spec_json.to_json(spec_json.from_json(record)))) == record


def test_a_record_holds_no_secret() -> None:
    record = json.dumps(spec_json.to_json(worker(**FULL)))
    for secret in ("::node:pw", "secret-password", "http://proxy", "mirrors"):
        assert secret not in record


def test_a_record_is_not_of_one_day() -> None:
    assert "not_before" not in spec_json.to_json(worker(not_before=datetime.date(2026, 5, 4)))


@pytest.mark.parametrize("record", [{}, {"role": "boss"}, {"secrets": None}, [], None, "x"])
def test_a_garbled_record_is_refused(record: object) -> None:
    with pytest.raises(UserError):
        spec_json.from_json(record)


RECORD = json.dumps(spec_json.to_json(worker(**FULL)))
K3S = json.loads(RECORD)["k3s"]
FIELDS: dict[str, list[Any]] = {
    "role": ["boss", None, 1], "timezone": [5, ["UTC"]], "config": [[1], None, {"a": "\ud800"}],
    "name": ["../x", 1, "\ud800"], "labels": [[1], "a=b", None, ["foo"]], "ssh": [1, "yes"],
    "secrets": [["config"], "token", [1], None], "server": ["\ud800", 1], "token": ["x"],
    "wifi": [{"country": "DE", "ssid": 1}, {"country": "DE", "ssid": "a", "psk": "x"}, True],
    "address": [{"address": "10.0.0.3/24"}, {"address": 1, "gateway": 1}, "10.0.0.3/24"],
    "containerd": [{"programs": [], "version": [1]}, {"programs": [], "version": ["1", 2]}, []],
    "unknown": [1], "env": [1, {}], "not_before": [None],
    "k3s": [
        {**K3S, "version": 5}, {**K3S, "version": "v1"}, {**K3S, "binary": None}, [],
        *({**K3S, "airgap": {**K3S["binary"], "name": name}} for name in ("../../x", "", ".", "a\nb", 1)),
        {**K3S, "airgap": {**K3S["binary"], "size": True}},
        {**K3S, "airgap": {**K3S["binary"], "sha256": "x"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values]
)
def test_a_garbled_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(UserError):
        spec_json.from_json({**json.loads(RECORD), field: value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(values=st.dictionaries(st.sampled_from(sorted(json.loads(RECORD))), JSON))
def test_any_json_is_a_record_or_refused(values: dict[str, Any]) -> None:
    for record in (values, {**json.loads(RECORD), **values}):
        try:
            spec_json.to_json(spec_json.from_json(record))
        except UserError as error:
            assert "\n" not in error.message


@pytest.mark.parametrize(("role", "most"), [(Role.MASTER, 63 - 7), (Role.WORKER, 54 - 7)])
def test_the_host_name_made_of_the_cluster_s_fits(role: Role, most: int) -> None:
    make = worker if role is Role.WORKER else master
    assert len(make(cluster="c" * most).hostname) == most + 7
    with pytest.raises(UserError, match="cannot be a host name"):
        make(cluster="c" * (most + 1))
    assert make(cluster="c" * 63, name="n" * 63).hostname == "n" * 63


def test_a_master_needs_the_servers_token() -> None:
    server = "https://10.0.0.2:6443"
    with pytest.raises(UserError, match="for workers") as caught:
        master(server=server, token=b"K10" + b"a" * 64 + b"::node:x")
    assert "/var/lib/rancher/k3s/server/token " in caught.value.hint
    assert master(server=server, token=b"K10" + b"a" * 64 + b"::server:x").starts


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n"])
def test_a_file_has_a_plain_name(name: str) -> None:
    with pytest.raises(UserError, match="cannot be a file's name"):
        File(name, "ab" * 32, 1)


@pytest.mark.parametrize("env", [{"A": "a\nb"}, {"A": "hunter2\0"}, {"A B": "c"}, {"A\n": ""}])
def test_an_environment_that_systemd_would_not_read(env: dict[str, str]) -> None:
    with pytest.raises(UserError) as caught:
        worker(env=env)
    assert "hunter2" not in caught.value.message


def constant(name: str) -> Any:
    """A constant of the stand-in for K3s, read without running it."""
    source = (Path(__file__).parent.parent / "fakes/k3s").read_text()
    [value] = re.findall(rf'^{name} = (?:set\()?(""".*?"""|.*?$)', source, re.MULTILINE | re.DOTALL)
    return ast.literal_eval(value)


def test_the_stand_in_for_k3s_knows_the_same_keys() -> None:
    known = set(constant("AGENT_KEYS").split()) - SECRET_KEYS.keys() - {"config"}
    assert known <= AGENT_KEYS


@pytest.mark.parametrize("minor", range(20, 30))
def test_the_stand_in_for_k3s_takes_what_is_written_for_its_version(minor: int) -> None:
    bundled, notifies = constant("PREFER_BUNDLED_BIN"), constant("AGENT_NOTIFIES")
    for patch in range(20):
        version = K3sVersion.parse(f"v1.{minor}.{patch}+k3s1")
        assert not version.has_bundled_bin_option or _has(bundled, minor, patch)
        assert version.notifies_as_agent is _has(notifies, minor, patch)


def _has(since: dict[int, int], minor: int, patch: int) -> bool:
    return minor > max(since) or patch >= since.get(minor, 1 << 30)


@pytest.mark.parametrize("name", ["", "../x", "x" * 64, "Upper", "a.b", "-a", "a-", "a b", "ü", "a\n"])
def test_names_that_are_no_dns_labels(name: str) -> None:
    for field in ("name", "cluster"):
        with pytest.raises(UserError, match="cannot be a"):
            worker(**{field: name})


@pytest.mark.parametrize(
    "token", [b"", b"secret", b"K10abc::node:x", b"K10" + b"a" * 64 + b"::a b", b"abcdef.0123456789abcdef"]
)
def test_a_token_that_would_trust_any_master(token: bytes) -> None:
    with pytest.raises(UserError, match="K10 form") as caught:
        worker(server="https://10.0.0.2:6443", token=token)
    assert token.decode() not in caught.value.message or not token


def test_a_token_without_a_server() -> None:
    with pytest.raises(UserError, match="for joining"):
        worker(token=b"K10" + b"a" * 64 + b"::node:x")
