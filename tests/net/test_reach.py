"""Whether something takes connections, by who would need it."""

import socket

import pytest

from firstboot.machine import is_taken
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


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_port_is_taken_while_somebody_listens_there(family: int, address: str) -> None:
    """And no longer: connections of a moment ago do not count."""
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server has it
        listening.bind((address, 0))
        port = listening.getsockname()[1]
        listening.listen()
        assert is_taken(port)
        with socket.create_connection(("localhost", port)), listening.accept()[0]:
            listening.close()
            assert not is_taken(port)
    assert not is_taken(port)
