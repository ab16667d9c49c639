"""A node that answers requests: the operator's end of what ``firstboot.remote`` is on the node."""

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from bake.artifacts import Link
from firstboot import wire
from firstboot.errors import UserError, WorkFailed
from k3s_bake.packing import Packing

_ANSWER = 300.0
"""Seconds until a request is answered."""
_CHUNK = 1 << 18
_AGAIN = "Run it again: it goes on where it was."


class Pipe(Protocol):
    """To and from the process there. ConnectionError, and no other error, where it is lost."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Until there is room for more."""

    async def exactly(self, size: int) -> bytes: ...

    def last_words(self) -> str:
        """Of what it complained of; empty where it did not."""

    async def close(self) -> None:
        """Ends what runs there. Never raises."""


class Remote:
    """Made by ``ssh.opened``."""

    def __init__(self, name: str, pipe: Pipe) -> None:
        self.name = name
        self._pipe = pipe
        self._turn = asyncio.Lock()
        self._is_owed = False
        """An answer: one that comes late would be taken for the next request's."""

    async def call(self, verb: str, limit: float = _ANSWER, **values: Any) -> dict[str, Any]:
        """The answer. UserError and WorkFailed as the node says; WorkFailed where it is lost or too slow."""
        async with self._turn:
            self._check()
            return await self._call(verb, limit, values)

    async def put(
        self,
        source: Path | Link | None,
        sha256: str,
        size: int,
        sent: Callable[[int], None],
        *,
        peer: bool = False,
    ) -> None:
        """A large file, to where ``apply`` finds it; what is there already of it does not come again.

        ``sent`` is told each number of bytes. ``peer``: the link leads to another node. WorkFailed for one
        that is not there and has no ``source``.
        """
        async with self._turn:
            self._check()
            if isinstance(source, Link):
                wanted = {"url": source.url, "sha256": sha256, "size": size, "peer": peer}
                await self._fetch(wanted, sent)
            else:
                await self._put(source, sha256, size, sent)

    async def _put(self, path: Path | None, sha256: str, size: int, sent: Callable[[int], None]) -> None:
        there = await self._call("put", _ANSWER, {"sha256": sha256, "size": size, "offset": -1})
        offset = int(there["offset"])
        if path is None and offset < size:
            raise WorkFailed("a file that was kept there is gone")
        packing = await asyncio.to_thread(Packing.of, path, offset) if path else None
        request = {"verb": "put", "sha256": sha256, "size": size, "offset": offset}
        self._send({**request, "packed": packing is not None})
        try:
            if path is not None:
                await self._stream(path, offset, packing, sent)
            await self._answer(_ANSWER)
        except (OSError, TimeoutError) as error:
            raise await self._lost(error) from error

    async def _fetch(self, wanted: Mapping[str, Any], came: Callable[[int], None]) -> None:
        """By the node itself, which tells how much has come before it answers."""
        answer = await self._call("fetch", _ANSWER, wanted)
        while "came" in answer:
            came(int(answer["came"]))
            try:
                answer = await self._answer(_ANSWER)
            except (OSError, TimeoutError) as error:
                raise await self._lost(error) from error

    async def _stream(
        self, path: Path, offset: int, packing: Packing | None, sent: Callable[[int], None]
    ) -> None:
        with path.open("rb") as source:
            source.seek(offset)
            while piece := source.read(_CHUNK):
                there = await asyncio.to_thread(packing.packed, piece) if packing else piece
                begun = time.monotonic()
                self._pipe.write(there)
                await asyncio.wait_for(self._pipe.drain(), _ANSWER)
                if packing:
                    packing.took(len(there), time.monotonic() - begun)
                sent(len(piece))

    async def close(self) -> None:
        """Ends what runs there. Never raises."""
        await self._pipe.close()

    async def _call(self, verb: str, limit: float, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._send({"verb": verb, **values})
            return await self._answer(limit)
        except (OSError, TimeoutError) as error:
            raise await self._lost(error) from error

    def _check(self) -> None:
        if self._is_owed:
            raise WorkFailed("the connection was lost: an answer did not come in time", _AGAIN)

    def _send(self, request: Mapping[str, Any]) -> None:
        self._is_owed = True
        self._pipe.write(wire.packed(request))

    async def _answer(self, limit: float) -> dict[str, Any]:
        head = await asyncio.wait_for(self._pipe.exactly(4), limit)
        size = int.from_bytes(head, "big")
        if size > wire.MOST:
            raise ConnectionResetError("what it answers makes no sense")
        body = await asyncio.wait_for(self._pipe.exactly(size), limit)
        found: dict[str, Any] = json.loads(zlib.decompress(body).decode("utf-8", "surrogatepass"))
        self._is_owed = "came" in found
        if "error" in found:
            kind = UserError if found["code"] == UserError.exit_code else WorkFailed
            raise kind(str(found["error"]), str(found["hint"]))
        return found

    async def _lost(self, error: Exception) -> WorkFailed:
        await asyncio.sleep(0)  # for what it has complained of to arrive
        last = self._pipe.last_words() or str(error) or "it does not answer any more"
        return WorkFailed(f"the connection was lost: {last[:200]}", _AGAIN)
