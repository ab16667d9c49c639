"""A cluster's authority: what is kept, what is made anew, what is refused; ssh-keygen is made up."""

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import fake_keygen
import pytest

from bake import cache, cluster_store, trust
from bake.ssh_keygen import Wish
from bake.trust import Cluster
from firstboot import certificate
from firstboot.contract import MASTER, WORKER
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.unit


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[cache.Home]:
    fake_keygen.install(monkeypatch)
    yield cache.Home(tmp_path / "cache", tmp_path / "data")
    left = [path for path in (tmp_path / "data").rglob("*") if ".new-" in path.name or ".part" in path.name]
    assert not left


@pytest.fixture
def cluster(home: cache.Home) -> Cluster:
    return trust.open_cluster("home", home, lambda text: None)


def test_the_key_is_made_once_and_told_of_once(home: cache.Home) -> None:
    said: list[str] = []
    first = trust.open_cluster("home", home, said.append)
    assert trust.open_cluster("home", home, said.append).public_key == first.public_key
    assert len(said) == 1
    assert "made the signing key of cluster 'home' in" in said[0]
    assert "k3s-bake cluster export home" in said[0]
    assert first.known_hosts == f"@cert-authority k3s-bake-home {first.public_key}\n"
    assert len(first.public_key.split()) == 2


def test_nothing_is_open_to_others(home: cache.Home, cluster: Cluster) -> None:
    cluster.golden(WORKER)
    cluster.operator()
    cluster.revoke(["golden/worker"])
    for path in [cluster.folder.parent, *cluster.folder.parent.rglob("*")]:
        # Public halves are, as ssh-keygen makes them, but in folders that are not.
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path.name in ("key.pub", "key-cert.pub", "home.lock"), path


def test_golden_is_the_same_until_it_is_revoked(cluster: Cluster) -> None:
    first = cluster.golden(WORKER)
    assert cluster.golden(WORKER) == first
    assert cluster.golden(MASTER) != first
    read = certificate.read(first.certificate)
    assert (read.key_id, read.principals) == ("golden/worker", (WORKER,))
    assert read.authority == cluster.public_key
    cluster.revoke(["golden/worker"])
    second = cluster.golden(WORKER)
    assert second != first
    assert cluster.golden(WORKER) == second
    assert [one.serial for one in cluster.revoked()] == [read.serial]


@pytest.mark.parametrize(("days", "same"), [(303, True), (305, False), (400, False)])
def test_golden_is_made_anew_in_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, days: int, same: bool
) -> None:
    first, now = cluster.golden(WORKER), time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 86400)
    assert (cluster.golden(WORKER) == first) is same


@pytest.mark.parametrize("damaged", ["key", "key.pub", "key-cert.pub"])
def test_a_kept_credential_that_is_damaged_is_made_anew(cluster: Cluster, damaged: str) -> None:
    first = cluster.golden(WORKER)
    (cluster.folder / "golden-worker" / damaged).write_text("")
    second = cluster.golden(WORKER)
    assert second != first
    assert certificate.read(second.certificate).authority == cluster.public_key


def test_a_kept_credential_of_another_authority_is_made_anew(cluster: Cluster) -> None:
    first = cluster.host()
    (cluster.folder / "authority.pub").write_text(fake_keygen.public(b"x" * 32) + "\n")
    home = cache.Home(Path("unused"), cluster.folder.parent.parent)
    other = trust.find_cluster("home", home, lambda text: None)
    assert other.host() != first


def test_the_host_certificate_never_expires_and_is_kept(cluster: Cluster) -> None:
    read = certificate.read(cluster.host().certificate)
    assert (read.expires, read.principals) == (certificate.FOREVER, ("k3s-bake-home",))
    assert cluster.host() == cluster.host()
    assert cluster.issued()[-1].expires is None


def test_each_card_is_another_and_serials_grow(cluster: Cluster) -> None:
    one, two = cluster.card("w1", WORKER), cluster.card("w1", WORKER)
    assert one.key != two.key
    first, second = cluster.issued()
    assert (first.name, first.principal) == ("w1", WORKER)
    assert first.serial < second.serial
    assert certificate.read(two.certificate).serial == second.serial


def test_serials_grow_also_where_the_clock_goes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.card("w1", WORKER)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    cluster.card("w2", WORKER)
    first, second = cluster.issued()
    assert second.serial == first.serial + 1


def test_a_revoked_card_may_be_flashed_again(cluster: Cluster) -> None:
    cluster.card("w1", WORKER)
    cluster.card("w1", WORKER)
    cluster.card("w2", WORKER)
    cluster.revoke(["w1"])
    cluster.revoke(["w1"])  # nothing new
    gone = [one.serial for one in cluster.revoked()]
    assert gone == [one.serial for one in cluster.issued() if one.name == "w1"]
    assert cluster.undelivered() == ["w1"]
    assert certificate.read(cluster.card("w1", WORKER).certificate).serial not in gone
    cluster.delivered(["w1"])
    assert cluster.undelivered() == []


def test_a_name_of_another_operator_is_revoked_for_good(cluster: Cluster) -> None:
    cluster.revoke(["theirs"])
    assert [one.line for one in cluster.revoked()] == ["id: theirs"]
    with pytest.raises(UserError, match="'theirs' is revoked for good"):
        cluster.card("theirs", WORKER)
    with pytest.raises(UserError, match="'golden/worker' is the name of no card"):
        cluster.revoke(["golden/worker"])
    with pytest.raises(UserError, match="of no card"):
        cluster.revoke(["id: x\nserial: 1-9999"])


def test_no_secret_in_what_is_shown(cluster: Cluster) -> None:
    proof = cluster.golden(WORKER)
    assert "PRIVATE" in proof.key
    for shown in (repr(proof), str(proof), f"{[proof]}", repr(cluster), repr(cluster.issued())):
        assert "PRIVATE" not in shown


@pytest.mark.parametrize("name", ["", "Home", "../x", "a/b", "a" * 64, "-s"])
def test_a_name_that_is_no_label_is_refused(home: cache.Home, cluster: Cluster, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a cluster's name"):
        trust.open_cluster(name, home, lambda text: None)
    with pytest.raises(UserError, match="cannot be a node's name"):
        cluster.card(name, WORKER)


def test_the_only_cluster_needs_no_name(home: cache.Home) -> None:
    with pytest.raises(UserError, match="which cluster") as none:
        trust.find_cluster(None, home, print)
    assert "None is known" in none.value.hint
    trust.open_cluster("home", home, lambda text: None)
    assert trust.find_cluster(None, home, print).name == "home"
    trust.open_cluster("barn", home, lambda text: None)
    with pytest.raises(UserError, match="which cluster") as two:
        trust.find_cluster(None, home, print)
    assert "barn, home" in two.value.hint
    with pytest.raises(UserError, match="no cluster 'shed' is known here") as other:
        trust.find_cluster("shed", home, print)
    assert "barn, home" in other.value.hint
    assert not trust.exists("shed", home)


@pytest.mark.parametrize(("path", "mode"), [("authority", 0o640), ("authority", 0o604), (".", 0o770)])
def test_a_key_that_others_can_get_at_is_refused(
    home: cache.Home, cluster: Cluster, path: str, mode: int
) -> None:
    (cluster.folder / path).chmod(mode)
    with pytest.raises(UserError, match="others than you can get at") as refused:
        trust.open_cluster("home", home, print)
    assert refused.value.hint.startswith("chmod ")


@pytest.mark.parametrize(
    "content", [None, "", "ssh-rsa AAAA\n", "ssh-ed25519 AAAA\n", "ssh-ed25519 ?\n", "\xe9"]
)
def test_a_damaged_authority_is_told_and_never_made_anew(
    home: cache.Home, cluster: Cluster, content: str | None
) -> None:
    public = cluster.folder / "authority.pub"
    public.unlink() if content is None else public.write_text(content)
    with pytest.raises(UserError, match=r"authority\.pub is (garbled|not there)") as refused:
        trust.open_cluster("home", home, print)
    assert "ssh-keygen -y" in refused.value.hint
    assert (cluster.folder / "authority").read_text().startswith("PRIVATE")


def test_what_is_left_of_a_cluster_is_not_replaced(home: cache.Home, cluster: Cluster) -> None:
    cluster.card("w1", WORKER)
    for name in ("authority", "authority.pub"):
        (cluster.folder / name).unlink()
    with pytest.raises(UserError, match="is not there"):
        trust.open_cluster("home", home, print)
    assert (cluster.folder / "issued").exists()


@pytest.mark.parametrize("name", ["issued", "revoked"])
@pytest.mark.parametrize(
    "text", ["no\n", "[]\n", '{"name": "x"}\n', "id: a b\n", "serial: 1-9 # x\n", "[" * 9999]
)
def test_garbled_lists_are_told(cluster: Cluster, name: str, text: str) -> None:
    (cluster.folder / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} is garbled"):
        cluster.issued() if name == "issued" else cluster.revoked()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, home: cache.Home) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write to"):
        trust.open_cluster("home", home, print)
    (tmp_path / "data").unlink()


def test_a_full_disk_leaves_the_old_credential(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.golden(WORKER)
    kept = sorted(path.read_text() for path in (cluster.folder / "golden-worker").iterdir())
    cluster.revoke(["golden/worker"])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cluster_store, "write_issued", full)
    with pytest.raises(WorkFailed, match="no space left"):
        cluster.golden(WORKER)
    assert sorted(path.read_text() for path in (cluster.folder / "golden-worker").iterdir()) == kept


def test_what_a_killed_run_left_is_swept(cluster: Cluster) -> None:
    left = cluster.folder / ".new-x"
    left.mkdir()
    (left / "key").write_text("PRIVATE")
    cluster.card("w1", WORKER)
    assert not left.exists()


def test_certificates_cut_anywhere_are_no_certificates() -> None:
    key, authority = fake_keygen.public(b"k" * 32), fake_keygen.public(b"a" * 32)
    text = fake_keygen.certificate(key, authority, Wish("w1", WORKER), 5, 99)
    assert certificate.read(text) == certificate.Certificate(key, 5, "w1", (WORKER,), 99, authority)
    for end in range(0, text.index("bm8gc2lnbmF0dXJl") - 8, 4):  # up to the signature, which is not read
        with pytest.raises(ValueError):
            certificate.read(text[:end])
