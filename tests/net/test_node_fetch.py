"""What a node fetches by itself: from a server on loopback that fails as told."""

import hashlib
import io
import threading
from pathlib import Path

import pytest
from faulty_server import Answer, Site

from firstboot.errors import WorkFailed
from firstboot.fetch import Patience, fetch
from firstboot.remote import Session

pytestmark = pytest.mark.net

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
AT_ONCE = Patience(silence=10, waits=(0, 0), told=0)
FILE = "/k3s-armhf"


class Node:
    def __init__(self, folder: Path, site: Site) -> None:
        self.place = folder / SHA256
        self.site = site
        self.told: list[int] = []

    def fetch(self, url: str = "", patience: Patience = AT_ONCE) -> None:
        fetch(url or self.site.url(FILE), self.place, SHA256, len(BODY), self.told.append, patience)

    def refused(self, url: str = "", patience: Patience = AT_ONCE) -> WorkFailed:
        with pytest.raises(WorkFailed) as caught:
            self.fetch(url, patience)
        assert "\n" not in caught.value.message
        return caught.value


@pytest.fixture
def node(tmp_path: Path, site: Site) -> Node:
    site.files[FILE] = BODY
    return Node(tmp_path, site)


def test_it_is_there_and_told_how_much_came(node: Node) -> None:
    node.fetch()
    assert node.place.read_bytes() == BODY
    assert sum(node.told) == len(BODY)
    node.fetch()
    assert len(node.site.requests) == 1


def test_one_that_is_cut_goes_on_where_it_was(node: Node) -> None:
    node.site.answers[FILE].extend([Answer(cut_after=100_000), Answer(cut_after=200_000)])
    node.fetch()
    assert node.place.read_bytes() == BODY
    assert node.site.ranges() == [None, "bytes=100000-", "bytes=300000-"]
    assert sum(node.told) == len(BODY)


def test_what_an_earlier_run_has_left_is_taken_up(node: Node) -> None:
    node.place.write_bytes(BODY[:5000])
    node.fetch()
    assert node.site.ranges() == ["bytes=5000-"]
    assert sum(node.told) == len(BODY) - 5000


def test_a_server_that_knows_no_ranges(node: Node) -> None:
    node.site.answers[FILE].extend([Answer(cut_after=100_000), Answer(ignore_range=True)])
    node.fetch()
    assert node.place.read_bytes() == BODY


@pytest.mark.parametrize("cuts", [[50_000, 60_000] * 20, list(range(1000, 41_000, 1000))])
def test_a_server_that_begins_anew_and_never_comes_to_the_end(node: Node, cuts: list[int]) -> None:
    node.site.answers[FILE].extend([Answer(cut_after=cut, ignore_range=True) for cut in cuts])
    assert node.refused().message.startswith(("the connection to", "127.0.0.1 cuts it off"))
    assert len(node.site.requests) < 10


def test_what_was_there_of_another_version_is_fetched_anew(node: Node) -> None:
    node.place.write_bytes(b"x" * 5000)
    node.fetch()
    assert node.place.read_bytes() == BODY
    assert node.site.ranges() == ["bytes=5000-", None]


def test_one_with_another_sha256_is_not_kept(node: Node) -> None:
    node.site.files[FILE] = BODY[:-1] + b"x"
    assert "another sha256" in node.refused().message
    assert not node.place.exists()
    assert len(node.site.requests) == 1


@pytest.mark.parametrize("no_length", [False, True])
def test_one_that_is_too_large_is_not_kept(node: Node, no_length: bool) -> None:
    node.site.files[FILE] = BODY + b"x"
    node.site.always = Answer(no_length=no_length)
    assert "sends more than" in node.refused().message
    assert not node.place.exists()


def test_one_that_is_too_small_ends_in_time(node: Node) -> None:
    node.site.files[FILE] = BODY[:-1]
    assert "sends less than" in node.refused().message
    assert not node.place.exists()


def test_a_server_in_trouble_is_asked_again(node: Node) -> None:
    node.site.answers[FILE].extend([Answer(status=503)] * 2)
    node.fetch()
    node.place.unlink()
    node.site.answers[FILE].extend([Answer(status=503)] * 3)
    assert node.refused().message == "127.0.0.1 answers it with 503"


def test_one_that_is_not_there_is_not_asked_for_again(node: Node) -> None:
    refused = node.refused(node.site.url("/nothing"))
    assert refused.message == "127.0.0.1 answers it with 404"
    assert "Leave out --fetch node" in refused.hint
    assert len(node.site.requests) == 1


def test_a_redirect_without_tls_is_not_followed(node: Node) -> None:
    node.site.answers[FILE].append(Answer(location=node.site.url("/elsewhere")))
    node.site.files["/elsewhere"] = BODY
    assert node.refused().message == "127.0.0.1 leads to a server without TLS"
    assert [path for path, _ in node.site.requests] == [FILE]


def test_a_redirect_to_tls_is_followed(node: Node) -> None:
    """To where nobody speaks it."""
    node.site.answers[FILE].extend([Answer(location=f"https://127.0.0.1:{node.site.port}/x")] * 3)
    assert "does not reach" in node.refused().message


def test_a_server_that_falls_silent(node: Node) -> None:
    hold = threading.Event()
    node.site.always = Answer(hold=hold)
    refused = node.refused(patience=Patience(silence=0.05, waits=(0,), told=0))
    hold.set()
    assert refused.message == "the connection to 127.0.0.1 broke off"
    assert len(node.told) == 2, "whoever waits hears of each try"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/k3s", "it does not reach 127.0.0.1: Connection refused"),
        ("http://nowhere.invalid/k3s", "it finds no address of nowhere.invalid"),
    ],
)
def test_a_node_without_the_web(node: Node, url: str, words: str) -> None:
    refused = node.refused(url)
    assert refused.message == words
    assert "Leave out --fetch node" in refused.hint


def test_a_mirrors_password_is_sent_there_and_shown_nowhere(node: Node) -> None:
    node.fetch(node.site.url(FILE, "ann:hunter2@"))
    assert node.site.requests[0][1]["Authorization"] == "Basic YW5uOmh1bnRlcjI="
    node.place.unlink()
    assert "hunter2" not in str(vars(node.refused(node.site.url("/nothing", "ann:hunter2@"))))


def test_a_peer_leads_nowhere_else(node: Node) -> None:
    node.site.answers[FILE].append(Answer(location=f"https://127.0.0.1:{node.site.port}/x"))
    caught = node.refused(patience=AT_ONCE._replace(is_peer=True))
    assert caught.message == "127.0.0.1 leads elsewhere"
    assert len(node.site.requests) == 1


def test_a_peer_that_sends_a_little_each_time_is_given_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try brings something, and the next goes on: without an end, nearly."""
    monkeypatch.setattr("firstboot.fetch._GRACE", 0.0)
    node.site.answers[FILE].extend([Answer(cut_after=1)] * 10_000)
    caught = node.refused(patience=AT_ONCE._replace(is_peer=True, least=1e12))
    assert caught.message == "127.0.0.1 is too slow"
    assert len(node.site.requests) < 5


def test_what_a_peer_has_sent_is_not_gone_on_with(node: Node, tmp_path: Path) -> None:
    node.site.files[FILE] = b"garbage" * 1000
    session = Session(str(tmp_path / "root"), io.BytesIO())
    request = {"verb": "fetch", "url": node.site.url(FILE), "sha256": SHA256, "size": len(BODY)}
    node.site.answers[FILE].extend([Answer(cut_after=5000)] * 3)
    node.site.always = Answer(status=404)
    assert session.answer({**request, "peer": True})["code"] == 1
    assert session.answer({"verb": "put", "sha256": SHA256, "size": len(BODY), "offset": -1}) == {"offset": 0}
