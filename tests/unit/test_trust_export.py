"""A cluster carried to a second operator, and files that claim to be one."""

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import fake_keygen
import pytest

from bake import cache, cluster_export, trust
from bake.trust import Cluster
from firstboot.contract import WORKER
from firstboot.errors import UserError

pytestmark = pytest.mark.unit

Home = Callable[[str], cache.Home]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    fake_keygen.install(monkeypatch)
    return lambda name: cache.Home(tmp_path / name / "cache", tmp_path / name / "data")


@pytest.fixture
def cluster(home: Home) -> Cluster:
    return trust.open_cluster("home", home("ours"), lambda text: None)


def test_what_is_exported_comes_in(home: Home, cluster: Cluster, tmp_path: Path) -> None:
    golden, host, own = cluster.golden(WORKER), cluster.host(), cluster.operator()
    cluster.card("w1", WORKER)
    cluster.revoke(["w1"])
    file = tmp_path / "file"
    cluster_export.write(cluster, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    theirs = cluster_export.read(file, home("theirs"), print)
    assert (theirs.name, theirs.public_key) == ("home", cluster.public_key)
    assert (theirs.golden(WORKER), theirs.host()) == (golden, host)
    assert (theirs.issued(), theirs.revoked()) == (cluster.issued(), cluster.revoked())
    assert theirs.undelivered() == ["w1"]
    assert Path(theirs.operator().key).read_text() != Path(own.key).read_text()
    for path in theirs.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.name == "operator"


def test_two_operators_tell_each_other_what_they_signed_and_revoked(
    home: Home, cluster: Cluster, tmp_path: Path
) -> None:
    cluster.card("w1", WORKER)
    cluster_export.write(cluster, tmp_path / "there")
    theirs = cluster_export.read(tmp_path / "there", home("theirs"), print)
    theirs.card("w2", WORKER)
    theirs.revoke(["w1"])
    cluster.card("w3", WORKER)
    cluster.revoke(["w3"])
    cluster_export.write(theirs, tmp_path / "back")
    cluster_export.read(tmp_path / "back", home("ours"), print)
    assert {one.name for one in cluster.issued()} >= {"w1", "w2", "w3"}
    assert {one.name for one in cluster.revoked()} == {"w1", "w3"}
    assert cluster.undelivered() == ["w3", "w1"]
    before = cluster.issued(), cluster.revoked()
    cluster_export.read(tmp_path / "back", home("ours"), print)
    assert (cluster.issued(), cluster.revoked()) == before


def test_another_cluster_of_the_name_is_refused(home: Home, cluster: Cluster, tmp_path: Path) -> None:
    other = trust.open_cluster("home", home("other"), lambda text: None)
    cluster_export.write(other, tmp_path / "file")
    with pytest.raises(UserError, match="another cluster 'home' is here already"):
        cluster_export.read(tmp_path / "file", home("ours"), print)
    again = trust.open_cluster("home", home("ours"), print)
    assert again.public_key == cluster.public_key


def test_a_file_is_replaced_by_force_only(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("dear to me")
    with pytest.raises(UserError, match="is there already"):
        cluster_export.write(cluster, file)
    assert file.read_text() == "dear to me"
    file.chmod(0o644)
    cluster_export.write(cluster, file, force=True)
    assert tarfile.is_tarfile(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="cannot write"):
        cluster_export.write(cluster, tmp_path / "no" / "such" / "folder")


def _member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


PUBLIC = fake_keygen.public(b"p" * 32).encode()
GOOD = [_member("home/authority.pub", PUBLIC), _member("home/authority", b"key")]


@pytest.mark.parametrize(
    "extra",
    [
        [_member("home/../../evil", b"x")],
        [_member("/etc/evil", b"x")],
        [_member("home/golden-worker/../../x", b"x")],
        [_member("home/other", b"x")],
        [_member("home/operator/key", b"x")],
        [_member("barn/authority", b"x")],
        [_member("home/authority", b"twice")],
        [_member("home/revoked", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        [_member("home/revoked", type=tarfile.LNKTYPE, linkname="home/authority")],
        [_member("home/revoked", type=tarfile.FIFOTYPE)],
        [_member("home/golden-worker", type=tarfile.DIRTYPE)],
        [_member("home/issued", b"not a list\n")],
        [_member("home/revoked", b"serial: 1-18446744073709551615\n")],
        [_member("home/revoked", b"\xff\n")],
    ],
)
def test_what_no_export_wrote_is_refused(
    home: Home, tmp_path: Path, extra: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    file = _archive(tmp_path, [*GOOD, *extra])
    with pytest.raises(UserError, match="is no exported cluster"):
        cluster_export.read(file, home("theirs"), print)
    assert not trust.exists("home", home("theirs"))
    assert not (tmp_path / "evil").exists()


def test_the_archive_of_these_tests_is_good_without_it(home: Home, tmp_path: Path) -> None:
    assert cluster_export.read(_archive(tmp_path, GOOD), home("theirs"), print).name == "home"


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\0" * 10240, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_archive_is_refused(home: Home, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="is no exported cluster"):
        cluster_export.read(tmp_path / "file", home("theirs"), print)


def test_archives_that_are_cut_off_too_large_or_absent_are_refused(home: Home, tmp_path: Path) -> None:
    whole = _archive(tmp_path, GOOD).read_bytes()
    (tmp_path / "file").write_bytes(whole[:515])
    with pytest.raises(UserError, match="is no exported cluster"):
        cluster_export.read(tmp_path / "file", home("theirs"), print)
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="is no exported cluster"):
        cluster_export.read(tmp_path / "file", home("theirs"), print)
    with pytest.raises(UserError, match="is not there"):
        cluster_export.read(tmp_path / "none", home("theirs"), print)
    with pytest.raises(UserError, match="is no exported cluster"):
        cluster_export.read(tmp_path, home("theirs"), print)


def _archive(folder: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    file = folder / "archive"
    with tarfile.open(file, "w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return file
