"""Cards, written and read back, and what becomes of those that fail."""

import errno
import gzip
import lzma
import os
import threading
import time
from pathlib import Path

import pytest
import zstandard
from cards import BLOCK, MIB, StandIn, card, flash, image, with_map
from hypothesis import given
from hypothesis import strategies as st

from bake import bmap
from bake.card.feed import Feed, Stopped
from bake.card.flash import Flash, Job
from bake.card.source import PIECE, Source
from bake.card.target import Target
from bake.card.write import Phase
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.unit


def opened(path: Path) -> Target:
    return Target(os.open(path, os.O_RDWR), path)


@pytest.mark.parametrize("size", [512, BLOCK, MIB + 512, PIECE, PIECE + BLOCK, 3 * PIECE + 1536])
def test_all_of_an_image(tmp_path: Path, size: int) -> None:
    source = Source(image(tmp_path / "w.img", size))
    target = card(tmp_path / "card", size + 2 * MIB)
    (job,) = flash(source, opened(target))
    assert job.error is None
    assert job.done
    assert target.read_bytes()[:size] == source.path.read_bytes()
    assert set(target.read_bytes()[max(size, MIB) :]) == {0xEE}  # what is beyond it is nobody's business
    assert (job.state.written, job.state.verified) == (size, size)


def test_only_what_the_block_map_names(tmp_path: Path) -> None:
    path = image(tmp_path / "w.img", 12 * MIB)
    source = Source(with_map(path, (0, BLOCK), (2 * MIB, 3 * MIB), (4 * MIB, 10 * MIB)))
    target = card(tmp_path / "card", 12 * MIB)
    (job,) = flash(source, opened(target))
    assert job.error is None
    written, whole = target.read_bytes(), path.read_bytes()
    assert written[:BLOCK] == whole[:BLOCK]
    assert set(written[BLOCK:MIB]) == {0}  # emptied first: an old table could be there
    assert set(written[MIB : 2 * MIB]) == {0xEE}
    assert written[2 * MIB : 3 * MIB] == whole[2 * MIB : 3 * MIB]
    assert written[4 * MIB : 10 * MIB] == whole[4 * MIB : 10 * MIB]
    assert set(written[10 * MIB :]) == {0xEE}
    assert job.state.written == source.to_write == BLOCK + 7 * MIB


def test_the_order_in_which_a_card_becomes_valid(tmp_path: Path) -> None:
    """Each step is on the card before the next: what a power cut leaves is never a part of it that boots."""
    source = Source(image(tmp_path / "w.img", 2 * PIECE))
    target = StandIn(card(tmp_path / "card", 8 * PIECE))
    (job,) = flash(source, target)
    assert job.done
    assert target.did[:2] == [("write", 0, True), ("flush", 0, False)]
    content = [at for at, (what, _, zeros) in enumerate(target.did) if what == "write" and not zeros]
    first = [at for at in content if target.did[at][1] == 0]
    assert first == [content[-1]], "the first block is the last that is written"
    assert target.did[first[0] - 1][0] == target.did[first[0] + 1][0] == "flush"
    assert len(target.did) == first[0] + 2


def test_a_map_that_was_not_made_with_the_image(tmp_path: Path) -> None:
    """By another tool, of the file's holes say: it would leave out zeros that mean something."""
    path = with_map(image(tmp_path / "w.img", 4 * MIB), (0, MIB))
    (tmp_path / "w.img.manifest.json").write_text("{}")
    said: list[str] = []
    source = Source(path, say=said.append)
    assert source.to_write == 4 * MIB
    assert "was not made with this image" in said[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [b"", b"x" * 511, b"x" * 4096])
def test_what_is_no_image_of_a_card(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / "w.img"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match="has no partition table"):
        Source(path)


def test_an_image_that_is_not_what_its_block_map_says(tmp_path: Path) -> None:
    path = with_map(image(tmp_path / "w.img", 6 * MIB), (0, 2 * MIB), (4 * MIB, 6 * MIB))
    with path.open("r+b") as stream:
        stream.seek(5 * MIB)
        stream.write(b"changed")
    source = Source(path)
    target = card(tmp_path / "card", 8 * MIB)
    (job,) = flash(source, opened(target))
    assert job.error is not None
    assert "is not what its block map says" in job.error.message
    assert not any(target.read_bytes()[:512])
    (job,) = flash(Source(path, use_map=False), opened(target))
    assert job.error is None


def test_an_image_of_another_size_than_its_map_s(tmp_path: Path) -> None:
    path = with_map(image(tmp_path / "w.img", 4 * MIB), (0, 4 * MIB))
    os.truncate(path, 3 * MIB)
    with pytest.raises(UserError, match="has 3145728 bytes, and its block map is of one of 4194304"):
        Source(path)


def test_an_image_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = image(tmp_path / "w.img", 4 * PIECE)
    source = Source(path)
    os.truncate(path, 2 * PIECE)
    (job,) = flash(source, opened(card(tmp_path / "card", 5 * PIECE)))
    assert job.error is not None
    assert "changed while it was read" in job.error.message


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("size", [PIECE, 2 * PIECE + 512])
def test_packed_images(tmp_path: Path, pack: object, size: int) -> None:
    plain = image(tmp_path / "w.img", size)
    packed = tmp_path / "w.img.packed"
    packed.write_bytes(pack(plain.read_bytes()))  # type: ignore[operator]
    targets = [card(tmp_path / name, size + MIB) for name in ("a", "b")]
    source = Source(packed)
    for job, target in zip(flash(source, *map(opened, targets)), targets, strict=True):
        assert job.error is None
        assert target.read_bytes()[:size] == plain.read_bytes()
    assert source.size == size
    packed.write_bytes(packed.read_bytes()[:-2000])
    try:
        (job,) = flash(Source(packed), opened(targets[0]))
    except UserError as error:  # so small a one is looked at whole
        assert "cut off or damaged" in error.message
        return
    assert job.error is not None
    assert "cut off or damaged" in job.error.message
    assert not any(targets[0].read_bytes()[:512])


def test_a_packed_image_that_is_larger_than_the_card(tmp_path: Path) -> None:
    packed = tmp_path / "w.img.gz"
    packed.write_bytes(gzip.compress(image(tmp_path / "w.img", 3 * PIECE).read_bytes()))
    (job,) = flash(Source(packed), opened(card(tmp_path / "card", 2 * PIECE)))
    assert job.error is not None
    assert "the image has more than the 8388608 bytes of the card" in job.error.message


FAULTS = {
    "a bad block": ("write", errno.EIO, "cannot write at byte 5242880: Input/output error", "another reader"),
    "pulled out": ("write", errno.ENODEV, "cannot write at byte 5242880: No such device", "pulled out"),
    "unreadable": ("read", errno.EIO, "cannot read at byte 5242880: Input/output error", "worn out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_card_that_fails_and_one_that_does_not(tmp_path: Path, fault: str) -> None:
    verb, number, message, hint = FAULTS[fault]
    source = Source(image(tmp_path / "w.img", 4 * PIECE))
    bad, good = (StandIn(card(tmp_path / name, 5 * PIECE)) for name in ("bad", "good"))
    bad.fails_at[verb, 5] = number
    failed, well = flash(source, bad, good)
    assert failed.error is not None
    assert failed.error.message == message
    assert hint in failed.error.hint
    assert failed.state.phase is Phase.FAILED
    assert not any(bad.path.read_bytes()[:512])
    assert well.done
    assert good.path.read_bytes()[: 4 * PIECE] == source.path.read_bytes()
    bad.fails_at.clear()
    (again,) = flash(Source(source.path), bad)
    assert again.done


@pytest.mark.parametrize("byte", [0, 511, 4096, 5 * MIB, 4 * PIECE - 1])
def test_a_bit_that_flips_between_writing_and_reading(tmp_path: Path, byte: int) -> None:
    source = Source(image(tmp_path / "w.img", 4 * PIECE))
    target = StandIn(card(tmp_path / "card", 5 * PIECE), block=False)
    target.flips.add(byte)
    (job,) = flash(source, target)
    assert job.error is not None
    assert "read back as" in job.error.message
    assert not any(target.path.read_bytes()[:512])
    assert [one.name for one in threading.enumerate() if "_fill" in one.name] == [], (
        "nobody reads it any more"
    )


@pytest.mark.parametrize("real", [6 * PIECE, 4 * PIECE, PIECE])
def test_a_card_that_is_smaller_than_it_says(tmp_path: Path, real: int) -> None:
    """Larger than the image or not: a node would fill it one day."""
    source = Source(image(tmp_path / "w.img", 2 * PIECE))
    target = StandIn(card(tmp_path / "card", 8 * PIECE))
    target.real_size = real
    (job,) = flash(source, target)
    assert job.error is not None
    assert job.error.message == "it does not keep what is written near its end"
    assert job.state.written == 0


def test_writes_that_do_less_than_they_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(
        "bake.card.target.os.pwritev", lambda handle, parts, at: real(handle, [parts[0][:70_000]], at)
    )
    source = Source(image(tmp_path / "w.img", PIECE + 512))
    target = card(tmp_path / "card", 2 * PIECE)
    (job,) = flash(source, opened(target))
    assert job.done
    assert target.read_bytes()[: PIECE + 512] == source.path.read_bytes()


def test_interrupted(tmp_path: Path) -> None:
    source = Source(image(tmp_path / "w.img", 4 * PIECE))
    target = StandIn(card(tmp_path / "card", 5 * PIECE))
    reached, go = threading.Event(), threading.Event()
    plain = target.write

    def slow(at: int, data: memoryview) -> None:
        if at >= PIECE:
            reached.set()
            go.wait(20)
        plain(at, data)

    target.write = slow  # type: ignore[method-assign]
    job = Job(target)
    with Flash(source, [job]):
        assert reached.wait(20)
        threading.Timer(0.1, go.set).start()
    assert job.error is not None
    assert "interrupted" in job.error.message
    assert not any(target.path.read_bytes()[:512])


# the feed


def test_a_card_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    source = Source(image(tmp_path / "w.img", 16 * PIECE))
    hangs, fast = (StandIn(card(tmp_path / name, 17 * PIECE), block=False) for name in ("hangs", "fast"))
    go = threading.Event()
    plain = hangs.write

    def stuck(at: int, data: memoryview) -> None:
        if PIECE < at < 3 * PIECE:
            go.wait(60)
        plain(at, data)

    hangs.write = stuck  # type: ignore[method-assign]
    jobs = [Job(hangs), Job(fast)]
    with Flash(source, jobs) as running:
        while not jobs[1].done:
            running.wait(0.1)
        assert hangs.path.read_bytes()[2 * PIECE] == 0xEE  # it is still there
        go.set()
        while running.wait(5):
            pass
    assert [job.error for job in jobs] == [None, None]
    for target in (hangs, fast):
        assert target.path.read_bytes()[: 16 * PIECE] == source.path.read_bytes()


def test_the_image_is_read_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(image(tmp_path / "w.img", 3 * PIECE))
    read: list[int] = []
    real = os.preadv
    monkeypatch.setattr(
        "bake.card.source.os.preadv", lambda handle, parts, at: read.append(at) or real(handle, parts, at)
    )
    feed = Feed(source, 3, threading.Event())
    reader = threading.Thread(target=feed.run)
    reader.start()
    given = [feed.pieces(number) for number in range(3)]
    for _ in range(3):
        assert len({next(pieces)[0] for pieces in given}) == 1
    for pieces in given:
        assert next(pieces, None) is None
    reader.join()
    assert read == [0, PIECE, 2 * PIECE]


def test_what_cannot_be_read_is_told_to_all(tmp_path: Path) -> None:
    path = image(tmp_path / "w.img", 3 * PIECE)
    source = Source(path)
    os.truncate(path, PIECE)
    feed = Feed(source, 2, threading.Event())
    feed.run()
    for number in range(2):
        with pytest.raises(WorkFailed, match="changed while it was read"):
            list(feed.pieces(number))


def test_nobody_reads_on_when_all_is_to_stop(tmp_path: Path) -> None:
    stop = threading.Event()
    feed = Feed(Source(image(tmp_path / "w.img", 4 * PIECE)), 1, stop)
    stop.set()
    feed.run()
    with pytest.raises(Stopped):
        next(feed.pieces(0))


def test_what_a_card_that_was_left_behind_is_writing_stays_as_it_is(tmp_path: Path) -> None:
    source = Source(image(tmp_path / "w.img", 24 * PIECE))
    feed = Feed(source, 2, threading.Event())
    reader = threading.Thread(target=feed.run)
    reader.start()
    slow, fast = feed.pieces(0), feed.pieces(1)
    at, piece = next(slow)
    for _ in range(9):
        next(fast)
    while feed._free:  # until every buffer has been read to once more
        time.sleep(0.01)
    whole = source.path.read_bytes()
    assert piece == whole[at : at + len(piece)]
    assert len(list(fast)) == 15
    reader.join()
    assert [(at, bytes(piece)) for at, piece in slow] == [
        (at, whole[at : at + PIECE]) for at in range(PIECE, 24 * PIECE, PIECE)
    ]


def test_a_card_that_fails_before_it_takes_anything_holds_up_nobody(tmp_path: Path) -> None:
    source = Source(image(tmp_path / "w.img", 24 * PIECE))
    bad, good = (StandIn(card(tmp_path / name, 25 * PIECE)) for name in ("bad", "good"))
    bad.fails_at["write", 0] = errno.EIO
    failed, well = flash(source, bad, good)
    assert failed.error is not None
    assert well.done


def test_a_card_that_hangs_when_all_is_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its open file stays open: under its number something else would be written to."""
    monkeypatch.setattr("bake.card.flash._PATIENCE", 0.2)
    source = Source(image(tmp_path / "w.img", 4 * PIECE))
    target = StandIn(card(tmp_path / "card", 5 * PIECE))
    reached, go = threading.Event(), threading.Event()
    plain = target.read_into

    def stuck(at: int, data: memoryview) -> None:
        if at == PIECE:
            reached.set()
            go.wait(60)
        plain(at, data)

    target.read_into = stuck  # type: ignore[method-assign]
    job = Job(target)
    with Flash(source, [job]):
        assert reached.wait(20)
    assert job.error is not None
    target.close()
    os.fstat(target.handle)
    go.set()
    assert job.ended.wait(20)
    assert not any(target.path.read_bytes()[:512])
    target.close()
    with pytest.raises(OSError):
        os.fstat(target.handle)


def test_what_a_card_is_found_to_be_when_it_is_done_becomes_its_error(tmp_path: Path) -> None:
    def full(job: Job) -> None:
        raise WorkFailed("no room for a receipt")

    source = Source(image(tmp_path / "w.img", PIECE))
    job = Job(opened(card(tmp_path / "card", 2 * PIECE)))
    with Flash(source, [job], full) as running:
        while running.wait(5):
            pass
    assert job.error is not None
    assert job.error.message == "no room for a receipt"


# the block map


@given(st.sets(st.integers(0, 40), min_size=1), st.integers(1, BLOCK))
def test_what_document_writes_is_what_parse_reads(blocks: set[int], tail: int) -> None:
    size = 41 * BLOCK + tail
    ranges: list[bmap.Range] = []
    for block in sorted({0, *blocks}):
        start, end = block * BLOCK, (block + 1) * BLOCK
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    sums = [(one, f"{number:064x}") for number, one in enumerate(ranges)]
    assert bmap.parse(bmap.document(size, sums)) == bmap.BlockMap(size, sums)


@given(st.text(max_size=200))
def test_what_is_no_block_map(text: str) -> None:
    with pytest.raises(ValueError):
        bmap.parse(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<ImageSize> 16384", "<ImageSize> 16385"),
        ("sha256", "sha1"),
        ("> 0-0 <", "> 1-1 <"),
        ("> 2-2 <", "> 0-2 <"),
        ("> 2-2 <", "> two <"),
        ("</bmap>", ""),
    ],
)
def test_garbled_block_maps(before: str, after: str) -> None:
    text = bmap.document(16384, [((0, 4096), "0" * 64), ((8192, 12288), "1" * 64)])
    assert before in text
    changed = text.replace(before, after)
    with pytest.raises(ValueError):
        bmap.parse(changed)
