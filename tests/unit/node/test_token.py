"""A master's answer is checked before anything is made of it; ssh's words become reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firstboot import token
from firstboot.clock import corrected, floor
from firstboot.contract import REASONS
from firstboot.token import Grant, NotAnswered, Trust, ask, grant_of, reason_of

pytestmark = pytest.mark.unit

CA = "a" * 64
ANSWER = {
    "token": f"K10{CA}::node:s3cret",
    "server": "https://10.0.0.2:6443",
    "ca": CA,
    "k3s": "v1.34.9+k3s1",
    "time": 1_700_000_000,
}
TRUST = Trust("home", "/a folder/50%/key", "/c", "/k")


def test_an_answer_is_a_grant() -> None:
    grant = grant_of(ANSWER)
    assert (grant.server, grant.ca, grant.time) == ("https://10.0.0.2:6443", CA, 1_700_000_000)
    assert "s3cret" not in repr(grant)
    assert isinstance(grant_of({**ANSWER, "server": "https://[2001:db8::2]:6443"}), Grant)


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "s3cret"},
        {"token": f"K10{'b' * 64}::node:s3cret"},
        {"token": f"K10{CA}::node:s3 cret"},
        {"server": "https://master.local:6443"},
        {"server": "http://10.0.0.2:6443"},
        {"server": "https://10.0.0.2:6443\nnode-label: x"},
        {"server": "https://10.0.0.999:6443"},
        {"ca": "b" * 64},
        {"k3s": "v1 --flag"},
        {"time": "now"},
        {"time": -1},
        {"time": 1 << 60},
        {"token": None},
    ],
    ids=str,
)
def test_what_no_master_of_ours_says_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(NotAnswered) as caught:
        grant_of({**ANSWER, **wrong})
    assert caught.value.reason == "bad-answer"
    assert "s3cret" not in str(caught.value)


def _answering(monkeypatch: pytest.MonkeyPatch, code: int, answer: bytes, complaint: str = "") -> list[str]:
    """Stands in for ssh; what it was called with."""
    called: list[str] = []

    def run(command: list[str], *_: object) -> tuple[int, bytes, str]:
        called.extend(command)
        return code, answer, complaint

    monkeypatch.setattr(token, "run", run)
    return called


def test_paths_are_quoted_and_no_host_but_a_certified_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    called = _answering(monkeypatch, 0, json.dumps(ANSWER).encode())
    assert ask("10.0.0.2", "hand-out", {"name": "pi-1"}, TRUST) == ANSWER
    assert 'IdentityFile="/a folder/50%%/key"' in called
    assert "StrictHostKeyChecking=yes" in called
    assert "HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com" in called
    assert "HostKeyAlias=k3s-bake-home" in called
    assert called[-2:] == ["k3s-join@10.0.0.2", "hand-out"]


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000])
def test_garbage_is_a_bad_answer(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    _answering(monkeypatch, 0, answer)
    with pytest.raises(NotAnswered) as caught:
        ask("10.0.0.2", "hand-out", {}, TRUST)
    assert caught.value.reason == "bad-answer"


@pytest.mark.parametrize("error", ["\x1b[2J", {}, [], 3, "no-such-reason"])
def test_a_reason_that_is_none_is_never_passed_on(monkeypatch: pytest.MonkeyPatch, error: object) -> None:
    _answering(monkeypatch, 1, json.dumps({"error": error}).encode())
    assert ask("10.0.0.2", "hand-out", {}, TRUST) == {"error": "bad-answer"}


@pytest.mark.parametrize("address", ["-oProxyCommand=x", "master.local", "10.0.0.2 x", ""])
def test_only_addresses_reach_a_command(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    called = _answering(monkeypatch, 0, b"{}")
    with pytest.raises(NotAnswered):
        ask(address, "hand-out", {}, TRUST)
    assert called == []


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        ("No ED25519-CERT host key is known for k3s-bake-home and you have requested", "untrusted-master"),
        ("Host key verification failed.", "untrusted-master"),
        ("Unable to negotiate with 10.0.0.2: no matching host key type found", "untrusted-master"),
        ("k3s-join@10.0.0.2: Permission denied (publickey).", "credential-refused"),
        ("ssh: connect to host 10.0.0.2 port 6422: Connection refused", "unreachable"),
        ("timed out", "unreachable"),
    ],
)
def test_what_ssh_says_becomes_a_reason(complaint: str, reason: str) -> None:
    assert reason_of(complaint) == reason
    assert reason in REASONS


def test_the_clock_starts_no_earlier_than_the_bake_or_the_last_shutdown() -> None:
    assert floor("2021-05-07 15:00:00\n", "2026-11-25") == 1795564800
    assert floor("2030-01-01 00:00:00", "2026-11-25") == 1893456000
    assert floor("garbage", None) == 0


def test_the_clock_goes_back_before_the_first_join_only() -> None:
    assert corrected(1000.0, 5000, joined=True) == 5000
    assert corrected(5000.0, 1000, joined=False) == 1000
    assert corrected(5000.0, 1000, joined=True) is None
    assert corrected(1000.0, 1030, joined=False) is None
