"""Which device a path names, which node a card becomes, and what is kept of it."""

import gzip
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cards import image
from hypothesis import given
from hypothesis import strategies as st

from bake.cache import Home
from bake.card import choice, claim, order, receipt, stamp
from bake.card.devices import Device, Judged, Verdict
from bake.card.receipt import Receipt
from bake.card.source import Source
from bake.card.stamp import Stampable
from bake.card.target import Target
from bake.card.write import Phase, State
from firstboot.contract import CREDENTIAL_BYTES, Credential
from firstboot.errors import UserError, WorkFailed
from k3s_bake.cards_table import seconds_left
from k3s_bake.labels import write as write_labels

pytestmark = pytest.mark.unit

WHAT = Stampable(
    "home", "worker", True, None, "dhcpcd", "@cert-authority ...", ((5_000_000, CREDENTIAL_BYTES),)
)
CARD = Device("sdb", "/dev/sdb", "disk", 32 * 10**9, "8:16", model="Reader", serial="1", removable=True)
DONE = Receipt(
    "2026-11-26T03:00:00Z", "/dev/sdb", "Reader", "1", 32, "w.img", 16, "ab", 8, True, {"writing": 1.0}
)
W1 = replace(DONE, cluster="home", role="worker", name="w1", certificate=7)


def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "cache", tmp_path / "data")


# names


def test_names_that_are_given_and_an_image_s_own() -> None:
    assert order.check_names(WHAT, ["w1", "w2"], 2) == ["w1", "w2"]
    assert order.check_names(WHAT, [], 2) == []
    named = replace(WHAT, name="w1")
    assert order.check_names(named, [], 1) == ["w1"]
    with pytest.raises(UserError, match="the image is of w1 alone"):
        order.check_names(named, [], 2)


def test_names_that_are_not_given_are_numbered_past_those_that_were(tmp_path: Path) -> None:
    for one in (replace(W1, name="home-worker-2"), replace(W1, name="home-worker-1", cluster="other")):
        receipt.keep(one, home(tmp_path))
    with claim.names(WHAT, [], 3, home(tmp_path), again=False) as names:
        assert names == ["home-worker-1", "home-worker-3", "home-worker-4"]
        with claim.names(WHAT, [], 1, home(tmp_path), again=False) as more:
            assert more == ["home-worker-5"]
    with claim.names(WHAT, [], 1, home(tmp_path), again=False) as names:
        assert names == ["home-worker-1"]


def test_a_name_that_a_card_has_or_that_is_being_given(tmp_path: Path) -> None:
    receipt.keep(W1, home(tmp_path))
    with (
        pytest.raises(UserError, match="w1 is the name of a card that was written on 2026-11-26"),
        claim.names(WHAT, ["w1"], 1, home(tmp_path), again=False),
    ):
        pass
    with claim.names(WHAT, ["w1"], 1, home(tmp_path), again=True) as names:
        assert names == ["w1"]
        with (
            pytest.raises(UserError, match="another k3s-bake is writing a card for w1"),
            claim.names(WHAT, ["w1"], 1, home(tmp_path), again=True),
        ):
            pass


@pytest.mark.parametrize(
    ("given_names", "cards", "words"),
    [
        (["w1"], 2, "1 --name for 2 cards"),
        (["w2", "w2"], 2, "w2 is given to two cards"),
        (["W_2"], 1, "'W_2' cannot be a node's name"),
    ],
)
def test_names_that_cannot_be(given_names: list[str], cards: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        order.check_names(WHAT, given_names, cards)


def test_a_master_that_starts_a_cluster_is_one_card() -> None:
    master = replace(WHAT, role="master", joins=False)
    assert order.check_names(master, [], 1) == ["home-master"]
    with pytest.raises(UserError, match="is one card"):
        order.check_names(master, ["m1", "m2"], 2)


def test_a_packed_image_without_its_manifest(tmp_path: Path) -> None:
    packed = tmp_path / "w.img.gz"
    packed.write_bytes(gzip.compress(bytes(510) + b"\x55\xaa"))
    with pytest.raises(UserError, match=r"w.img.gz is packed and has no manifest beside it"):
        order.stampable(Source(packed))


# what a manifest says


def test_a_manifest_s_record(tmp_path: Path) -> None:
    path = tmp_path / "w.img.manifest.json"
    assert stamp.of_manifest(path) is None
    path.write_text(json.dumps({"card": asdict(WHAT)}))
    assert stamp.of_manifest(path) == WHAT
    path.write_text(json.dumps({"card": None}))
    assert stamp.of_manifest(path) is None


@pytest.mark.parametrize(
    "card",
    [
        {},
        [],
        asdict(WHAT) | {"credential": [[5_000_000, 10]]},
        asdict(WHAT) | {"credential": [[0, CREDENTIAL_BYTES]]},
        asdict(WHAT) | {"credential": "here"},
        asdict(WHAT) | {"cluster": "../x"},
        asdict(WHAT) | {"role": "king"},
        asdict(WHAT) | {"more": 1},
    ],
)
def test_a_manifest_that_is_garbled(tmp_path: Path, card: object) -> None:
    path = tmp_path / "w.img.manifest.json"
    path.write_text(json.dumps({"card": card}))
    with pytest.raises(UserError, match="is garbled"):
        stamp.of_manifest(path)


@given(st.data())
def test_a_stamp_changes_its_place_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Wherever it lies, in however many pieces."""
    path = image(tmp_path_factory.mktemp("card") / "card", 1 << 20)
    cut = data.draw(st.integers(1, CREDENTIAL_BYTES - 1))
    at, then = data.draw(st.integers(0, 400_000)), data.draw(st.integers(500_000, 1_000_000))
    where = ((at, cut), (then, CREDENTIAL_BYTES - cut))
    target = Target(os.open(path, os.O_RDWR), path)
    with pytest.raises(WorkFailed, match="no place for a credential"):
        stamp.put(target, where, Credential())
    for a, size in where:
        target.overwrite(a, b" " * size)
    before = path.read_bytes()
    given_credential = Credential("w1", "key", "certificate")
    stamp.put(target, where, given_credential)
    target.close()
    after = path.read_bytes()
    assert b"".join(after[a : a + size] for a, size in where) == given_credential.to_bytes()
    restored = bytearray(after)
    for a, size in where:
        restored[a : a + size] = before[a : a + size]
    assert restored == before


# devices


def test_a_device_that_was_swapped_after_it_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "card"
    path.write_bytes(bytes(4096))
    target = Target(os.open(path, os.O_RDWR), path)
    target.number = CARD.number
    target.size = CARD.size
    judged = Judged(CARD, Verdict.CARD)
    choice.check_opened([target], [judged], [judged])
    for now in (
        [],
        [Judged(replace(CARD, serial="2"), Verdict.CARD)],
        [Judged(replace(CARD, size=1), Verdict.CARD)],
        [Judged(replace(CARD, number="8:32"), Verdict.CARD)],
    ):
        with pytest.raises(UserError, match="is another card now"):
            choice.check_opened([target], [judged], now)
    with pytest.raises(UserError, match="sdb1 is mounted"):
        choice.check_opened([target], [judged], [Judged(CARD, Verdict.REFUSED, ("sdb1 is mounted on /",))])
    target.size -= 1
    with pytest.raises(UserError, match="is another card now"):
        choice.check_opened([target], [judged], [judged])


def test_a_card_that_is_too_small() -> None:
    choice.check_size(CARD, CARD.size)
    choice.check_size(CARD, None)
    with pytest.raises(UserError, match=r"/dev/sdb has 32.0 GB, and the image needs 32.0 GB"):
        choice.check_size(CARD, CARD.size + 1)


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere", "/etc/passwd"])
def test_what_is_no_block_device(path: str) -> None:
    with pytest.raises(UserError):
        choice.choose([Path(path)], [Judged(CARD, Verdict.CARD)], Path("w.img"))


# receipts


def test_receipts_are_kept_and_read_in_order(tmp_path: Path) -> None:
    kept = [
        receipt.keep(one, home(tmp_path)) for one in (replace(W1, written="2026-12-01T00:00:00Z"), W1, DONE)
    ]
    (kept[0].parent / "garbled.json").write_text("{")
    (kept[0].parent / "other.json").write_text('{"format": 99}')
    (kept[0].parent / "five.json").write_text("5")
    (kept[0].parent / "mixed.json").write_text(json.dumps({"format": 1, **asdict(W1), "written": 5}))
    found = receipt.history(home(tmp_path))
    assert [one.written for one in found] == [W1.written, W1.written, "2026-12-01T00:00:00Z"]
    assert {one.name for one in found} == {"w1", ""}
    assert receipt.named(found, "home")["w1"].written.startswith("2026-12")
    assert kept[0].parent.stat().st_mode & 0o077 == 0


def test_nothing_was_flashed_yet(tmp_path: Path) -> None:
    assert receipt.history(home(tmp_path)) == []


def test_labels(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels", [W1, DONE])
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["w1.svg", "w1.txt"]
    assert (tmp_path / "labels/w1.txt").read_text() == "w1\nworker of home\n2026-11-26  7\n"
    svg = (tmp_path / "labels/w1.svg").read_text()
    assert ">w1</text>" in svg
    assert ">worker of home</text>" in svg
    assert 'font-size="52"' in svg
    write_labels(tmp_path / "labels", [replace(W1, name="home-worker-10")])
    assert 'font-size="41"' in (tmp_path / "labels/home-worker-10.svg").read_text()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write labels"):
        write_labels(tmp_path / "file", [W1])


# what is left to do


def test_the_time_left_counts_reading_back() -> None:
    state = State(Phase.VERIFYING, written=100, verified=50, seconds={"writing": 10.0, "verifying": 1.0})
    assert seconds_left(state, 100) == pytest.approx(1.0)
    state = State(Phase.VERIFYING, written=100, verified=0, seconds={"writing": 10.0})
    assert seconds_left(state, 100) == pytest.approx(10.0)
    assert seconds_left(State(Phase.DONE, 100, 100), 100) is None
    assert seconds_left(State(Phase.WRITING), 100) is None
    assert seconds_left(state, None) is None
