"""What goes of a node that begins anew, and what stays."""

from pathlib import Path
from typing import List, Set

import pytest

from firstboot import leave
from firstboot.contract import JOIN_KEY, K3S_DATASTORE, K3S_PASSWORD, K3S_TOKEN, NAME, STATE
from firstboot.errors import WorkFailed

pytestmark = pytest.mark.unit

DATA = "var/lib/rancher/k3s"
IMAGE = f"{DATA}/agent/images/k3s-airgap-images-arm.tar"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in (JOIN_KEY, NAME, K3S_TOKEN, K3S_PASSWORD, STATE, "/etc/rancher/k3s/config.yaml"):
        put(tmp_path, path[1:])
    for path in (
        IMAGE,
        f"{DATA}/agent/client.key",
        f"{DATA}/server/db/state.db",
        f"{DATA}/server/token",
        "var/lib/kubelet/a/b",
    ):
        put(tmp_path, path)
    (tmp_path / DATA / "data").mkdir()
    (tmp_path / DATA / "link").symlink_to("data")
    return tmp_path


def put(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("x")


def files(root: Path) -> Set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_what_it_was_given_stays(root: Path) -> None:
    given = {JOIN_KEY[1:], NAME[1:], "etc/rancher/k3s/config.yaml", IMAGE}
    leave.clear(str(root), leads=True)
    assert files(root) == {*given, K3S_TOKEN[1:]}
    leave.clear(str(root))
    assert files(root) == given
    leave.clear(str(root))
    assert files(root) == given


def test_what_opens_a_datastore_elsewhere_stays(root: Path) -> None:
    opens = {K3S_TOKEN[1:], K3S_PASSWORD[1:], f"{DATA}/server/token", K3S_DATASTORE[1:]}
    for path in opens:
        put(root, path)
    leave.clear(str(root))
    assert files(root) == {JOIN_KEY[1:], NAME[1:], "etc/rancher/k3s/config.yaml", IMAGE, *opens}


def test_data_on_another_disk_go_and_the_way_there_stays(root: Path, tmp_path: Path) -> None:
    (root / DATA).rename(root / "disk")
    (root / DATA).symlink_to(root / "disk")
    leave.clear(str(root))
    assert (root / DATA).is_symlink()
    assert [path.name for path in (root / DATA).iterdir()] == ["agent"]
    assert (root / IMAGE).exists()


def test_a_file_where_a_folder_should_be(root: Path) -> None:
    leave.remove(str(root))
    for path in (f"{DATA}/agent", "run/k3s"):
        put(root, path)
    leave.clear(str(root))
    assert files(root) == {"etc/rancher/k3s/config.yaml"}


def test_what_people_have_put_there_stays(root: Path) -> None:
    paths = ("storage/pvc-1/a", "server/manifests/mine.yaml", "server/db/snapshots/1")
    theirs = {f"{DATA}/{path}" for path in paths}
    for path in theirs:
        put(root, path)
    leave.clear(str(root), leads=True)
    assert theirs < files(root)
    leave.remove(str(root))
    assert not theirs & files(root)


def test_data_behind_a_link_go_with_the_node(root: Path) -> None:
    (root / DATA).rename(root / "disk")
    (root / DATA).symlink_to(root / "disk")
    leave.remove(str(root))
    assert not any(path.startswith("disk") for path in files(root))


def mounted(monkeypatch: pytest.MonkeyPatch, *places: object) -> None:
    text = "".join(f"x {str(place).replace(' ', chr(92) + '040')} tmpfs rw 0 0\n" for place in places)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: text)


@pytest.mark.parametrize("for_good", [False, True])
def test_only_mounts_below_the_data_are_taken_away(monkeypatch: pytest.MonkeyPatch, for_good: bool) -> None:
    """The data themselves may be somebody's disk: without it K3s would begin on the card."""
    ran: List[str] = []
    monkeypatch.setattr(leave, "run", lambda command, **_: ran.append(command[-1]) or (0, b"", ""))
    data, theirs = "/var/lib/rancher/k3s", "/var/lib/rancher/k3s/storage"
    mounted(monkeypatch, data, f"{data}/a b", f"{data}-old", "/run/k3s/b", theirs, "/run/netns/cni-1", "/")
    leave.stop(for_good=for_good)
    gone = ["/run/netns/cni-1", *([theirs] if for_good else []), "/run/k3s/b", f"{data}/a b"]
    assert [one for one in ran if one.startswith(("/run/", "/var/"))] == gone


def test_what_is_mounted_still_is_not_emptied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / DATA).rename(root / "disk")
    (root / DATA).symlink_to(root / "disk")
    before = files(root)
    mounted(monkeypatch, root / "disk/agent/volume")
    with pytest.raises(WorkFailed, match="is mounted there still"):
        leave.clear(str(root))
    with pytest.raises(WorkFailed, match="is mounted there still"):
        leave.remove(str(root))
    assert files(root) == before
    mounted(
        monkeypatch, root / "disk", root / "disk/storage/a"
    )  # a disk of their own, which clear leaves alone
    leave.clear(str(root))
