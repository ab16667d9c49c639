"""Bases and K3s releases, fetched as a command would, from a mirror on loopback."""

import hashlib
import lzma
from pathlib import Path

import pytest
from faulty_server import Answer, Site

from bake import base as bases
from bake import catalogue
from bake.artifacts import link_airgap, link_k3s, resolve_airgap, resolve_k3s
from bake.cache import Home
from bake.download import Patience, Web
from bake.k3s_version import K3sVersion
from bake.wish import Wish, k3s_links
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.net

AT_ONCE = Patience(tries=3, first_wait=0, longest_wait=0, connect=5, read=5)
TAG = "v1.34.9+k3s1"
RELEASE = "/k3s-io/k3s/releases/download/v1.34.9%2Bk3s1"
CHANNEL = "/v1-release/channels/stable"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "cache", tmp_path / "data")


@pytest.fixture
def web(site: Site) -> Web:
    return Web(mirror=site.url(""), patience=AT_ONCE)


def release(site: Site, files: dict[str, bytes]) -> None:
    """Serves files, and the checksum file that lists them."""
    listed = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in files.items())
    site.files |= {f"{RELEASE}/{name}": body for name, body in files.items()}
    site.files[f"{RELEASE}/sha256sum-arm.txt"] = listed.encode()


def test_k3s_by_version_is_checked_and_kept(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-armhf": b"the binary"})
    found = resolve_k3s(TAG, None, "armhf", home, web)
    assert found.path.read_bytes() == b"the binary"
    assert (found.name, found.size, found.version) == ("k3s-armhf", 10, K3sVersion.parse(TAG))
    assert found.sha256 == hashlib.sha256(b"the binary").hexdigest()
    assert resolve_k3s(TAG, None, "armhf", home, Web(offline=True)) == found
    assert [path for path, _ in site.requests] == [f"{RELEASE}/sha256sum-arm.txt", f"{RELEASE}/k3s-armhf"]


def test_k3s_for_nodes_that_fetch_it_themselves_is_only_looked_at(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-armhf": b"the binary", "k3s-airgap-images-arm.tar.gz": b"images"})
    version, binary = link_k3s(TAG, None, "armhf", home, web)
    assert (binary.url, binary.size) == (site.url(f"{RELEASE}/k3s-armhf"), 10)
    assert binary.sha256 == hashlib.sha256(b"the binary").hexdigest()
    assert link_airgap(version, "armhf", home, web).name == "k3s-airgap-images-arm.tar.gz"
    kept = [path.name for path in home.cache.rglob("*") if path.is_file()]
    assert kept == ["sha256sum-arm.txt"]
    wish = Wish({}, k3s=TAG, links=True)
    k3s, sources = k3s_links(wish, "armhf", home, web)
    assert [k3s.binary.name, k3s.airgap and k3s.airgap.name] == [one.name for one in sources.values()]  # type: ignore[union-attr]


def test_the_size_of_what_nodes_fetch_must_be_known(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-armhf": b"the binary"})
    site.answers[f"{RELEASE}/k3s-armhf"].append(Answer(no_length=True))
    with pytest.raises(WorkFailed, match="does not say how large it is"):
        link_k3s(TAG, None, "armhf", home, web)
    with pytest.raises(UserError, match="a file of this machine"):
        link_k3s("./k3s", None, "armhf", home, web)


def test_k3s_that_is_not_what_its_release_lists(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-armhf": b"the binary"})
    site.files[f"{RELEASE}/k3s-armhf"] = b"another one"
    with pytest.raises(WorkFailed, match="expected"):
        resolve_k3s(TAG, None, "armhf", home, web)


def test_k3s_damaged_in_the_cache_is_not_used(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-armhf": b"the binary"})
    resolve_k3s(TAG, None, "armhf", home, web).path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="not in the cache"):
        resolve_k3s(TAG, None, "armhf", home, Web(offline=True))
    assert resolve_k3s(TAG, None, "armhf", home, web).path.read_bytes() == b"the binary"


def test_a_release_without_this_architecture(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-s390x": b"the binary"})
    with pytest.raises(UserError, match=r"K3s v1\.34\.9\+k3s1 has no k3s-armhf"):
        resolve_k3s(TAG, None, "armhf", home, web)


def test_an_unknown_release(home: Home, web: Web) -> None:
    with pytest.raises(UserError, match="answered 404"):
        resolve_k3s(TAG, None, "armhf", home, web)


def test_a_login_page_is_not_kept_as_checksums(site: Site, home: Home, web: Web) -> None:
    site.files[f"{RELEASE}/sha256sum-arm.txt"] = b"<html>please log in</html>"
    with pytest.raises(WorkFailed, match="no checksums"):
        resolve_k3s(TAG, None, "armhf", home, web)
    release(site, {"k3s-armhf": b"the binary"})
    assert resolve_k3s(TAG, None, "armhf", home, web).size == 10


@pytest.mark.parametrize("tag", ["v1.34.9+k3s1", "v1.34.9%2Bk3s1"])
def test_k3s_by_channel(site: Site, home: Home, web: Web, tag: str) -> None:
    release(site, {"k3s-armhf": b"the binary"})
    site.answers[CHANNEL].append(Answer(status=503))
    site.answers[CHANNEL].append(Answer(location=f"https://github.com/k3s-io/k3s/releases/tag/{tag}"))
    assert resolve_k3s("stable", None, "armhf", home, web).version == K3sVersion.parse(TAG)


def test_a_channel_that_leads_nowhere(site: Site, home: Home, web: Web) -> None:
    site.answers[CHANNEL].append(Answer(location="https://portal.invalid/login"))
    with pytest.raises(WorkFailed, match="leads to no release"):
        resolve_k3s("stable", None, "armhf", home, web)
    site.files[CHANNEL] = b"hello"
    with pytest.raises(WorkFailed, match="without a redirect"):
        resolve_k3s("stable", None, "armhf", home, web)
    with pytest.raises(UserError, match="404"):
        resolve_k3s("v1.99", None, "armhf", home, web)


def test_airgap_archive_in_the_best_form_that_the_release_has(site: Site, home: Home, web: Web) -> None:
    release(site, {"k3s-airgap-images-arm.tar": b"tar", "k3s-airgap-images-arm.tar.gz": b"gz"})
    found = resolve_airgap("auto", K3sVersion.parse(TAG), "armhf", home, web)
    assert found is not None and found.path.name == found.name == "k3s-airgap-images-arm.tar.gz"
    assert found.path.read_bytes() == b"gz"


def served_base(site: Site, monkeypatch: pytest.MonkeyPatch, body: bytes) -> catalogue.Base:
    """A base whose archive is served as ``body``."""
    sha256 = hashlib.sha256(body).hexdigest()
    base = catalogue.Base("tiny", "Tiny", "https://images.invalid/a/tiny.img.xz", sha256, "armhf", "buster")
    monkeypatch.setattr(catalogue, "load", lambda: (base,))
    site.files["/a/tiny.img.xz"] = body
    return base


def test_a_known_base_is_fetched_and_unpacked_once(
    site: Site, home: Home, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = served_base(site, monkeypatch, lzma.compress(b"raw image"))
    site.answers["/a/tiny.img.xz"].append(Answer(cut_after=20))
    found = bases.resolve("tiny", home, web)
    assert found.path.read_bytes() == b"raw image"
    assert (found.name, found.sha256, found.source) == ("tiny", base.sha256, base.url)
    assert catalogue.cached(base, home) and not list((home.cache / "downloads").glob("*.xz"))
    assert bases.resolve("tiny", home, Web(offline=True)) == found
    assert site.ranges() == [None, "bytes=20-"]


def test_a_known_base_that_cannot_be_had(
    site: Site, home: Home, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_base(site, monkeypatch, lzma.compress(b"raw image"))
    with pytest.raises(UserError, match=r"tiny\.img\.xz is not in the cache"):
        bases.resolve("tiny", home, Web(offline=True))
    site.files["/a/tiny.img.xz"] = b"replaced"
    with pytest.raises(WorkFailed, match="expected"):
        bases.resolve("tiny", home, web)
    assert not list((home.cache / "bases").glob("*.img"))
