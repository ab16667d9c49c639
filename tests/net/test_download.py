import errno
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty_server import Answer, Site, proxying

from bake.cache import beside
from bake.download import Patience, Web
from bake.progress import Silent
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.net

AT_ONCE = Patience(tries=3, first_wait=0, longest_wait=0, connect=5, read=5)
BODY = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Watched(Silent):
    """Remembers what it was told, and may do something at each block or line."""

    def __init__(self, at_block: Callable[[], None] | None = None, at_line: Callable[[], None] | None = None):
        self.lines: list[str] = []
        self.done: list[int] = []
        self.totals: list[int | None] = []
        self._at_block, self._at_line = at_block, at_line

    @contextmanager
    def task(self, title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        self.totals.append(total)
        self.done.append(0)

        def advance(count: int) -> None:
            self.done[-1] += count
            if self._at_block and self.done[-1]:
                self._at_block()

        yield advance

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self._at_line:
            self._at_line()


@pytest.fixture
def target(tmp_path: Path, site: Site) -> Path:
    site.files["/image"] = BODY
    return tmp_path / "cache" / "image"


def left_over(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {target.name, "image.lock"}


def test_fetched_once_and_whole(site: Site, target: Path) -> None:
    watched = Watched()
    web = Web(watched, patience=AT_ONCE)
    for _ in range(2):
        assert web.fetch(site.url("/image"), target, SHA256) == target
    assert target.read_bytes() == BODY
    assert len(site.requests) == 1 and not left_over(target)
    assert (watched.totals, watched.done) == ([len(BODY)], [len(BODY)])


def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(BODY[:-1] + b"x")
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_cut_connection_is_resumed(site: Site, target: Path, sha256: str | None) -> None:
    site.answers["/image"].extend([Answer(cut_after=1_234_567), Answer(cut_after=1_000_000)])
    watched = Watched()
    Web(watched, patience=AT_ONCE).fetch(site.url("/image"), target, sha256)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, "bytes=1234567-", "bytes=2234567-"]
    assert watched.done == [1_234_567, 2_234_567, len(BODY)] and set(watched.totals) == {len(BODY)}
    assert len(watched.lines) == 2 and "broke off: trying again" in watched.lines[0]


def test_an_interrupted_download_is_resumed_by_the_next_run(site: Site, target: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Web(Watched(at_block=interrupt), patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    have = beside(target, ".part").stat().st_size
    assert 0 < have < len(BODY) and not target.exists()
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert site.ranges() == [None, f"bytes={have}-"] and target.read_bytes() == BODY


def test_a_part_that_is_already_whole_needs_no_server(site: Site, target: Path) -> None:
    target.parent.mkdir()
    beside(target, ".part").write_bytes(BODY)
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert target.read_bytes() == BODY and not site.requests


def test_without_ranges_it_starts_over(site: Site, target: Path) -> None:
    site.answers["/image"].extend([Answer(cut_after=1_000_000), Answer(ignore_range=True)])
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert target.read_bytes() == BODY and site.ranges()[1] == "bytes=1000000-"


@pytest.mark.parametrize("sha256", ["of the new", None])
def test_a_file_that_changed_in_between_is_not_mixed(site: Site, target: Path, sha256: str | None) -> None:
    newer = BODY[::-1]
    site.answers["/image"].append(Answer(cut_after=1_000_000))
    web = Web(patience=Patience(tries=1))
    with pytest.raises(WorkFailed, match="broke off"):
        web.fetch(site.url("/image"), target, sha256 and hashlib.sha256(newer).hexdigest())
    site.files["/image"] = newer
    web.fetch(site.url("/image"), target, sha256 and hashlib.sha256(newer).hexdigest())
    assert target.read_bytes() == newer


def test_a_mixed_file_is_fetched_anew_where_the_server_has_no_etags(site: Site, target: Path) -> None:
    site.etags = False
    target.parent.mkdir()
    beside(target, ".part").write_bytes(b"of another file")
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert target.read_bytes() == BODY and site.ranges() == ["bytes=15-", None]


def test_without_etag_and_checksum_nothing_is_resumed(site: Site, target: Path) -> None:
    site.etags = False
    site.answers["/image"].append(Answer(cut_after=1_000_000))
    Web(patience=AT_ONCE).fetch(site.url("/image"), target)
    assert target.read_bytes() == BODY and site.ranges() == [None, None]


def test_a_part_longer_than_the_file_starts_over(site: Site, target: Path) -> None:
    target.parent.mkdir()
    beside(target, ".part").write_bytes(BODY + b"more")
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert target.read_bytes() == BODY and site.ranges() == [f"bytes={len(BODY) + 4}-", None]


def test_a_wrong_hash_names_both(site: Site, target: Path) -> None:
    expected = "0" * 64
    with pytest.raises(WorkFailed) as caught:
        Web(patience=AT_ONCE).fetch(site.url("/image"), target, expected)
    assert SHA256 in caught.value.message and expected in caught.value.message and caught.value.hint
    assert not target.exists() and not left_over(target) and len(site.requests) == 1


def test_a_wrong_length_is_found(site: Site, target: Path) -> None:
    site.always = Answer(announce_more=10, ignore_range=True)
    with pytest.raises(WorkFailed, match="broke off"):
        Web(patience=AT_ONCE).fetch(site.url("/image"), target)
    assert not target.exists() and len(site.requests) == AT_ONCE.tries


def test_404_is_told_at_once(site: Site, target: Path) -> None:
    with pytest.raises(UserError, match=r"/missing answered 404 Not Found") as caught:
        Web(patience=AT_ONCE).fetch(site.url("/missing"), target)
    assert caught.value.exit_code == 2 and caught.value.hint and len(site.requests) == 1


@pytest.mark.parametrize("status", [503, 500, 429])
def test_a_server_in_trouble_is_asked_again(site: Site, target: Path, status: int) -> None:
    site.answers["/image"].extend([Answer(status=status)] * 2)
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert len(site.requests) == 3


def test_patience_ends(site: Site, target: Path) -> None:
    site.always = Answer(status=503)
    with pytest.raises(WorkFailed, match="answered 503") as caught:
        Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert caught.value.exit_code == 1 and len(site.requests) == AT_ONCE.tries


def test_a_server_that_falls_silent_is_left(site: Site, target: Path) -> None:
    released = threading.Event()
    site.always = Answer(hold=released)
    with pytest.raises(WorkFailed, match="broke off"):
        Web(patience=Patience(tries=1, read=0.1)).fetch(site.url("/image"), target, SHA256)
    released.set()


def test_nobody_listens(site: Site, target: Path, unused_port: int) -> None:
    with pytest.raises(WorkFailed, match=r"127.0.0.1 cannot be reached"):
        Web(patience=AT_ONCE).fetch(f"http://127.0.0.1:{unused_port}/image", target, SHA256)


@pytest.fixture
def unused_port() -> int:
    return 1  # tcpmux: privileged, and served nowhere


def test_two_runs_share_one_download(site: Site, target: Path) -> None:
    second_waits = threading.Event()
    site.answers["/image"].append(Answer(hold=second_waits))
    first = threading.Thread(
        target=Web(patience=Patience(read=30)).fetch, args=(site.url("/image"), target, SHA256)
    )
    first.start()
    assert site.arrived.wait(10)  # the first holds the lock now
    watched = Watched(at_line=second_waits.set)
    Web(watched, patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    first.join()
    assert watched.lines == ["another k3s-bake is fetching image: waiting for it"]
    assert target.read_bytes() == BODY and len(site.requests) == 1


def test_a_full_disk_keeps_the_part(site: Site, target: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WorkFailed, match="no space left") as caught:
        Web(Watched(at_block=full), patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert "K3S_BAKE_HOME" in caught.value.hint
    assert left_over(target) == {"image.part", "image.part.etag"} and len(site.requests) == 1


def test_a_mirror_takes_the_place_of_scheme_and_host(site: Site, target: Path) -> None:
    site.files["/pi/k3s/v1%2Bk3s1/k3s-armhf"] = BODY
    web = Web(mirror=site.url("/pi/", user="me:secret@"), patience=AT_ONCE)
    web.fetch("https://github.com/k3s/v1%2Bk3s1/k3s-armhf", target, SHA256)
    assert target.read_bytes() == BODY
    assert site.requests[0][1]["Authorization"].startswith("Basic ")


def test_no_message_shows_credentials(site: Site, target: Path) -> None:
    site.answers["/pi/image"].append(Answer(status=503))
    watched = Watched()
    mirror = site.url("/pi", user="me:secret@")
    with pytest.raises(UserError) as caught:
        Web(watched, mirror=mirror, patience=AT_ONCE).fetch("https://host/image?key=secret", target)
    said = [*watched.lines, caught.value.message, caught.value.hint, repr(caught.value.__cause__)]
    assert len(watched.lines) == 1 and "404" in caught.value.message
    assert not any("secret" in line or "me:" in line for line in said)


@pytest.mark.parametrize(
    "mirror", ["mirror.lan/pi", "ftp://mirror.lan", "https://", "http://h:port", "http://h/?q"]
)
def test_a_mirror_that_is_no_url_is_refused(mirror: str) -> None:
    with pytest.raises(UserError, match="--mirror"):
        Web(mirror=mirror)


def test_a_proxy_of_the_environment_is_used(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying(site) as (proxy, seen):
        monkeypatch.setenv("http_proxy", proxy)
        Web(patience=AT_ONCE).fetch("http://downloads.invalid/image", target, SHA256)
    assert seen == ["http://downloads.invalid/image"] and target.read_bytes() == BODY


def test_offline_uses_the_cache_only(site: Site, target: Path) -> None:
    offline = Web(offline=True)
    with pytest.raises(UserError, match="image is not in the cache") as caught:
        offline.fetch(site.url("/image"), target, SHA256)
    assert "without --offline" in caught.value.hint and not site.requests
    Web(patience=AT_ONCE).fetch(site.url("/image"), target, SHA256)
    assert offline.fetch(site.url("/image"), target, SHA256) == target


def test_text_is_small_and_retried(site: Site) -> None:
    site.files |= {"/text": b"K3s \xc3\xa9\n", "/large": bytes(2 << 20)}
    site.answers["/text"].extend([Answer(status=503), Answer(cut_after=2)])
    web = Web(patience=AT_ONCE)
    assert web.text(site.url("/text")) == "K3s \u00e9\n"
    with pytest.raises(WorkFailed, match="larger"):
        web.text(site.url("/large"))
