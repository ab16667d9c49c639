from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import answers, serve

pytestmark = pytest.mark.unit


def test_both_halves_know_the_same_verbs() -> None:
    assert set(serve.VERBS) == set(answers.VERBS)


@pytest.mark.parametrize(
    "verb", ["", "rm -rf /", "hand-out ", "hand-out\n", "HAND-OUT", "hand-out; id", "--help"]
)
def test_other_commands_are_refused_unread(verb: str) -> None:
    assert json.loads(serve._answer({"SSH_ORIGINAL_COMMAND": verb})) == {"error": "not-allowed"}


def test_nobody_without_a_certificate() -> None:
    environment = {
        "SSH_ORIGINAL_COMMAND": "status",
        "SSH_CONNECTION": "10.0.0.3 4000 10.0.0.2 6422",
        "SSH_USER_AUTH": "/nonexistent",
    }
    assert json.loads(serve._answer(environment)) == {"error": "not-allowed"}
    assert serve.signed_of("") is None
    assert serve.signed_of("publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMq") is None
    assert serve.signed_of("publickey ssh-ed25519-cert-v01@openssh.com AAAA") is None
    assert serve.signed_of("password") is None


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        ("10.0.0.3 4000 10.0.0.2 6422", "10.0.0.2"),
        ("2001:db8::3 4000 2001:db8::2 6422", "2001:db8::2"),
        ("fe80::3%eth0 4000 fe80::2%eth0 6422", "fe80::2"),
        ("", None),
        ("10.0.0.3 4000 master 6422", None),
        ("10.0.0.3 4000 10.0.0.2", None),
    ],
)
def test_the_address_that_was_reached(connection: str, address: str | None) -> None:
    assert serve.own_address(connection) == address


@given(st.binary(max_size=300))
def test_any_request_is_an_object_or_refused(data: bytes) -> None:
    found = serve.parsed(data)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    ("data", "parsed"),
    [
        (b"", {}),
        (b" \n", {}),
        (b'{"name": "w1"}', {"name": "w1"}),
        (b"[]", None),
        (b"[" * 60_000, None),
        (b"\xff", None),
        (b"too long", None),
    ],
)
def test_requests(data: bytes, parsed: dict[str, object] | None) -> None:
    assert serve.parsed(data) == parsed
