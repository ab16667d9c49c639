"""Cards that come and go, and which node each is for."""

from dataclasses import replace
from pathlib import Path

import pytest

from bake.card import order
from bake.card.devices import Device, Judged, Verdict
from bake.card.insert import Slots
from bake.card.source import Source
from bake.card.stamp import Stampable
from bake.cluster_file import ClusterFile, NodeEntry
from bake.spec import Role, StaticAddress
from firstboot.errors import UserError
from k3s_bake import inserting

pytestmark = pytest.mark.unit

SDB = Judged(Device("sdb", "/dev/sdb", "disk", 32 * 10**9, "8:16"), Verdict.CARD)
SDC = Judged(Device("sdc", "/dev/sdc", "disk", 32 * 10**9, "8:32"), Verdict.CARD)
LOOP = Judged(Device("loop3", "/dev/loop3", "loop", 10**9, "7:3"), Verdict.CARD)
EMPTY = Judged(replace(SDB.device, size=0), Verdict.REFUSED, ("no card is in it",))
DISK = Judged(Device("sda", "/dev/sda", "disk", 10**12, "8:0"), Verdict.REFUSED, ("sda1 is mounted on /",))
DOUBT = Judged(Device("sdd", "/dev/sdd", "disk", 10**12, "8:48"), Verdict.DOUBTFUL, ("it is large",))


def test_a_card_is_offered_until_it_is_taken_and_again_when_it_was_out() -> None:
    there = [DISK, SDB, DOUBT]
    slots = Slots(lambda: there)
    assert slots.ready(only_new=False) == [SDB]
    slots.take(SDB)
    assert slots.ready(only_new=False) == []
    there[1] = EMPTY
    assert slots.ready(only_new=False) == []
    there[1] = SDB
    assert slots.ready(only_new=False) == []  # what is on it may not be known yet
    assert slots.ready(only_new=False) == [SDB]


def test_nobody_asked_nothing_that_was_there_before_is_taken() -> None:
    there = [DISK, SDB]
    slots = Slots(lambda: there)
    assert slots.ready(only_new=True) == []
    there.append(SDC)
    there.append(LOOP)
    assert slots.ready(only_new=True) == []
    assert slots.ready(only_new=True) == [SDC]
    there[1] = EMPTY
    assert slots.ready(only_new=True) == [SDC]
    there[1] = SDB
    slots.ready(only_new=True)
    assert slots.ready(only_new=True) == [SDB, SDC]
    assert slots.ready(only_new=False) == [SDB, SDC, LOOP]


def test_what_is_put_in_and_not_taken_is_told_once() -> None:
    there = [DISK]
    slots = Slots(lambda: there)
    slots.ready(only_new=False)
    assert slots.refused() == []
    there.append(DOUBT)
    slots.ready(only_new=False)
    assert slots.refused() == [DOUBT]
    assert slots.refused() == []


WORKER = Stampable("home", "worker", True, None, "dhcpcd", "", ())
IMAGES = {
    "home-worker.img": WORKER,
    "home-master.img": replace(WORKER, role="master", joins=False),
    "home-w2.img": replace(WORKER, name="w2"),
    "old.img": replace(WORKER, network_manager=None),
    "other.img": replace(WORKER, cluster="other"),
}
M1, W1, W2 = (
    NodeEntry(Role(role), name) for role, name in (("master", "m1"), ("worker", "w1"), ("worker", "w2"))
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With images, of which is known what they say."""
    for name in IMAGES:
        (tmp_path / name).write_bytes(bytes(510) + b"\x55\xaa")
    monkeypatch.chdir(tmp_path)

    def told(source: Source) -> Stampable:
        return IMAGES[source.path.name]

    monkeypatch.setattr(order, "stampable", told)
    return tmp_path


def planned(*nodes: NodeEntry, images: tuple[str, ...] = ()) -> dict[str, str]:
    made = inserting.plan(ClusterFile("home", nodes=nodes), [Path(name) for name in images], use_map=True)
    return {one.name: one.source.path.name for one in made}


def test_each_node_s_own_image_or_its_role_s(folder: Path) -> None:
    assert planned(M1, W1, W2) == {"m1": "home-master.img", "w1": "home-worker.img", "w2": "home-w2.img"}
    assert planned(W1, images=("home-worker.img",)) == {"w1": "home-worker.img"}


@pytest.mark.parametrize(
    ("nodes", "images", "words"),
    [
        ((), (), r"the file has no \[\[node\]\]"),
        ((replace(W1, name=None),), (), r"a \[\[node\]\] has no name"),
        ((replace(M1, join=True),), (), "no image for m1, a master"),
        ((W1,), ("home-master.img",), "no image for w1, a worker"),
        ((W1,), ("other.img",), "other.img is of the cluster 'other'"),
        ((replace(W2, role=Role.MASTER),), (), "home-w2.img is of a worker, and w2 is a master"),
        (
            (replace(W1, address=StaticAddress("10.0.0.2/24", "10.0.0.1")),),
            ("old.img",),
            "10.0.0.2/24 cannot be set there",
        ),
    ],
)
def test_nodes_without_an_image(
    folder: Path, nodes: tuple[NodeEntry, ...], images: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        planned(*nodes, images=images)
