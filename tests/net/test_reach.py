"""Whether something takes connections, by who would need it."""

import socket

import pytest

from firstboot.reach import call_all

pytestmark = pytest.mark.net


def test_places_that_take_no_connection_are_told_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        there, away = listening.getsockname()[1], closed.getsockname()[1]
        failed = call_all([("127.0.0.1", there), ("127.0.0.1", away)])
        assert failed == {f"127.0.0.1:{away}": "connection refused"}


def test_a_name_that_nobody_knows() -> None:
    (why,) = call_all([("nobody.invalid", 5432)]).values()
    assert why


def test_a_name_that_none_can_be_is_told_and_holds_up_nothing() -> None:
    (why,) = call_all([("a..b", 5432)]).values()
    assert "label" in why
