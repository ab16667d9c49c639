"""What a node hands on to its neighbours, taken as they take it."""

import hashlib
import http.client
import socket
from pathlib import Path

import pytest

from firstboot.errors import WorkFailed
from firstboot.fetch import FROM_PEERS, fetch
from firstboot.offer import _MOST, offer

pytestmark = pytest.mark.net

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
HOST = "127.0.0.1"


@pytest.fixture
def port(tmp_path: Path) -> int:
    """Of a file that is moved away after that, as when it is put in place."""
    path = tmp_path / "part"
    path.write_bytes(BODY)
    port = offer(path, SHA256, HOST)
    path.rename(tmp_path / "k3s")
    return port


def take(port: int, place: Path, sha256: str = SHA256) -> list[int]:
    told: list[int] = []
    fetch(f"http://{HOST}:{port}/{sha256}", place, SHA256, len(BODY), told.append, FROM_PEERS)
    return told


def test_a_neighbour_takes_it(port: int, tmp_path: Path) -> None:
    place = tmp_path / "taken"
    assert sum(take(port, place)) == len(BODY)
    assert place.read_bytes() == BODY


def test_one_that_was_cut_off_goes_on(port: int, tmp_path: Path) -> None:
    place = tmp_path / "taken"
    place.write_bytes(BODY[:777_777])
    assert sum(take(port, place)) == len(BODY) - 777_777
    assert place.read_bytes() == BODY


def test_through_no_proxy(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{HOST}:1")
    take(port, tmp_path / "taken")


def test_nothing_else_is_had_there(port: int, tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="404"):
        take(port, tmp_path / "taken", "0" * 64)
    for method, path, asked, code in [
        ("GET", "/", "", 404),
        ("GET", "/../k3s", "", 404),
        ("GET", f"/{SHA256}/..", "", 404),
        ("POST", f"/{SHA256}", "", 501),
        ("GET", f"/{SHA256}", f"bytes={len(BODY)}-", 416),
        ("GET", f"/{SHA256}", "bytes=9-4", 416),
        ("GET", f"/{SHA256}", "lines=1-", 416),
    ]:
        connection = http.client.HTTPConnection(HOST, port, timeout=20)
        connection.request(method, path, headers={"Range": asked} if asked else {})
        response = connection.getresponse()
        assert response.status == code, (method, path, asked)
        assert BODY[:100] not in response.read()
        connection.close()


def test_many_who_say_nothing_are_turned_away(port: int, tmp_path: Path) -> None:
    """And those who are served are not disturbed; later ones are served again."""
    idle = [socket.create_connection((HOST, port), 20) for _ in range(_MOST)]
    for one in idle[:-1]:
        one.sendall(b"GET")
    late = socket.create_connection((HOST, port), 20)
    late.settimeout(20)
    assert late.recv(100) == b""
    for one in [*idle, late]:
        one.close()
    for left in reversed(range(100)):  # their threads end one by one
        try:
            take(port, tmp_path / "taken")
            break
        except WorkFailed:
            assert left, "they keep their places"


def test_what_cannot_be_offered(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        offer(tmp_path / "nothing", SHA256, HOST)
    (tmp_path / "part").write_bytes(BODY)
    with pytest.raises(OSError, match="assign"):
        offer(tmp_path / "part", SHA256, "192.0.2.1")
