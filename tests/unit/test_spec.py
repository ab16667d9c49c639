"""A spec: what it refuses, and what of it is recorded."""

import json

import pytest
from raspbian import master, worker
from test_concerns import FULL

from bake import spec_json
from bake.spec import Datastore, NodeSpec
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


@pytest.mark.parametrize("record", [{}, {"role": "boss"}, {"secrets": None}, []])
def test_a_garbled_record_is_refused(record: object) -> None:
    with pytest.raises(UserError):
        spec_json.from_json(record)  # type: ignore[arg-type]


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
