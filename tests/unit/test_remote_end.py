"""The operator's end of the talk with a node, whose own end runs beside it in this process."""

import asyncio
import hashlib
import io
import os
import queue
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bake import dpkg
from bake.artifacts import Link
from firstboot import fetch, machine
from firstboot.arriving import PIECE
from firstboot.errors import UserError, WorkFailed
from firstboot.remote import PARTS, Session, _node
from firstboot.snapshot import File
from firstboot.wire import packed, receive, send
from k3s_bake.found import snapshot_of
from k3s_bake.packing import Packing
from k3s_bake.remote import Remote

pytestmark = pytest.mark.unit

BODY = os.urandom(700_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


class Pipes:
    """What is written arrives there; ``cut`` after so many bytes."""

    def __init__(self, root: Path, cut: int = -1) -> None:
        to_node, from_node = os.pipe(), os.pipe()
        self._write, self._read = to_node[1], from_node[0]
        self._left = cut
        self.sent = 0
        ends = os.fdopen(to_node[0], "rb"), os.fdopen(from_node[1], "wb")
        self._node = threading.Thread(target=_serve, args=(root, *ends))
        self._node.start()

    def write(self, data: bytes) -> None:
        if 0 <= self._left < self.sent + len(data):
            data = data[: self._left - self.sent]
            self._send(data)
            os.close(self._write)
            self._write = -1
            raise ConnectionResetError("cut")
        self._send(data)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._write, view) :]
        self.sent += len(data)

    async def drain(self) -> None:
        pass

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = os.read(self._read, size - len(data))
            if not piece:
                raise ConnectionResetError("the connection was cut")
            data += piece
        return data

    def last_words(self) -> str:
        return ""

    async def close(self) -> None:
        if self._write >= 0:
            os.close(self._write)
        self._node.join()
        os.close(self._read)


def _serve(root: Path, stdin: io.BufferedReader, stdout: io.BufferedWriter) -> None:
    with stdin, stdout:
        session = Session(str(root), stdin, lambda answer: send(stdout, answer))
        session._tree._keeps_owners = False
        while (request := receive(stdin)) is not None:
            send(stdout, session.answer(request))


def talk(root: Path, work: Callable[[Remote], Any], cut: int = -1) -> int:
    """Bytes that were sent for it."""

    async def whole() -> int:
        pipes = Pipes(root, cut)
        remote = Remote("pi@h", pipes)
        try:
            await work(remote)
        finally:
            await remote.close()
        return pipes.sent

    return asyncio.run(whole())


class Late:
    """Answers each request, the first too late."""

    def __init__(self) -> None:
        self.written = 0
        self._answers = io.BytesIO(packed({"of": "the first"}) + packed({"of": "the second"}))

    def write(self, data: bytes) -> None:
        self.written += 1

    async def drain(self) -> None:
        pass

    async def exactly(self, size: int) -> bytes:
        if self.written == 1 and self._answers.tell() == 0:
            await asyncio.Event().wait()
        return self._answers.read(size)

    def last_words(self) -> str:
        return ""

    async def close(self) -> None:
        pass


def test_a_late_answer_is_nobody_elses(tmp_path: Path) -> None:
    pipe = Late()
    remote = Remote("pi@h", pipe)

    async def two() -> None:
        with pytest.raises(WorkFailed, match="the connection was lost"):
            await remote.call("state", limit=0.01)
        with pytest.raises(WorkFailed, match="did not come in time"):
            await remote.call("nodes")
        with pytest.raises(WorkFailed, match="did not come in time"):
            await remote.put(tmp_path, SHA256, 1, print)

    asyncio.run(two())
    assert pipe.written == 1


def test_a_file_arrives_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BODY)
    told: list[int] = []

    async def put(remote: Remote) -> None:
        await remote.put(source, SHA256, len(BODY), told.append)

    with pytest.raises(WorkFailed, match="the connection was lost"):
        talk(tmp_path, put, cut=400_000)
    part = tmp_path / PARTS[1:] / SHA256
    there = part.stat().st_size
    assert 0 < there < len(BODY)
    told.clear()
    talk(tmp_path, put)
    assert part.read_bytes() == BODY
    assert sum(told) == len(BODY) - there


def test_a_file_that_compresses_does_so_on_a_slow_line_and_goes_on_where_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = BODY[:100_000] + b"plain text, " * 300_000
    sha256 = hashlib.sha256(body).hexdigest()
    source = tmp_path / "source"
    source.write_bytes(body)
    took = Packing.took
    monkeypatch.setattr(Packing, "took", lambda packing, sent, seconds: took(packing, sent, 1.0))

    async def put(remote: Remote) -> None:
        await remote.put(source, sha256, len(body), lambda sent: None)

    with pytest.raises(WorkFailed, match="the connection was lost"):
        talk(tmp_path, put, cut=270_000)
    part = tmp_path / PARTS[1:] / sha256
    assert body.startswith(part.read_bytes())
    assert part.stat().st_size > 1_000_000
    assert talk(tmp_path, put) < 300_000
    assert part.read_bytes() == body


def test_what_is_compressed_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(BODY)
    assert Packing.of(source, 0) is None
    source.write_bytes(b"plain text, " * 8_000 + BODY)
    assert Packing.of(source, 0) is None, "as K3s: its beginning compresses, and not what the most of it is"
    source.write_bytes(BODY + b"plain text, " * 200_000)
    assert Packing.of(source, 0) is not None
    with monkeypatch.context() as nothing_is_compressed:
        nothing_is_compressed.setattr(zlib, "compress", None)
        assert Packing.of(source, 0) is not None, "samples are taken once for all nodes"
    packing = Packing(1e-8)
    piece = b"plain text, " * 100
    assert packing.packed(piece)[8:] == piece, "nothing is known of the line"
    packing.took(1000, 0.000_001)
    assert packing.packed(piece)[8:] == piece, "a fast line"
    packing.took(1000, 1.0)
    there = packing.packed(piece)
    assert PIECE.unpack(there[:8]) == (len(piece), len(there) - 8)
    assert zlib.decompress(there[8:]) == piece
    assert packing.packed(BODY[:1000])[8:] == BODY[:1000], "it would get larger"


def test_a_file_that_the_node_fetches_is_told_of_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def fetched(
        url: str, place: Path, sha256: str, size: int, told: Callable[[int], None], how: fetch.Patience
    ) -> None:
        asked.put((url, place, sha256, size, how))
        told(3)
        told(4)
        if url.endswith("nothing"):
            raise WorkFailed("x answers it with 404", "Leave out --fetch node.")

    monkeypatch.setattr(fetch, "fetch", fetched)
    came: list[int] = []

    async def put(remote: Remote) -> None:
        await remote.put(Link("https://x/k3s", "k3s", SHA256, 7), SHA256, 7, came.append)
        with pytest.raises(UserError):
            await remote.call("reset")  # of what is no node
        with pytest.raises(WorkFailed) as caught:
            await remote.put(Link("https://x/nothing", "k3s", SHA256, 7), SHA256, 7, came.append)
        assert caught.value.hint == "Leave out --fetch node."

    assert talk(tmp_path, put) < 1000
    assert came == [3, 4, 3, 4]
    place = tmp_path / PARTS[1:] / SHA256
    assert asked.get() == ("https://x/k3s", place, SHA256, 7, fetch.FROM_THE_WEB)


def test_files_that_are_no_text_arrive_as_they_are() -> None:
    file = File(514, 0o644, 0, 0, "", bytes(range(256)) * 2 + "ä".encode())
    there = receive(io.BytesIO(packed({"/file": _node(file)})))
    assert there is not None
    assert snapshot_of(there).get("/file") == file


def test_of_what_is_installed_no_more_is_told_than_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "facts", lambda root: {})
    status = (
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: armhf\nDepends: long\n"
        "Description: long\n Version: no field\n\n"
        "Package: b\nStatus: deinstall ok config-files\nVersion: 2\n\n"
        "Package: c\nStatus: install ok installed\n\n"
    )
    place = tmp_path / "var/lib/dpkg/status"
    place.parent.mkdir(parents=True)
    place.write_text(status)
    session = Session(str(tmp_path), io.BytesIO())
    look = {"verb": "look", "probes": [["/var/lib/dpkg/status", "content"]]}
    told = snapshot_of(session.answer(look)["nodes"]).text("/var/lib/dpkg/status") or ""
    assert dpkg.installed(told) == dpkg.installed(status)
    assert len(dpkg.installed(told)) == 2
    assert "long" not in told
