"""Nodes that run, over SSH: logging in, and a Python there that carries requests out. asyncssh's only door.

One login and one execution a node, whatever is asked of it: ``firstboot.remote`` answers for as long as it
is asked. Nothing secret is on a command line; what is known of hosts is ``~/.ssh``'s, as for ssh itself.
"""

import asyncio
import contextlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncssh

from firstboot import remote
from firstboot.errors import UserError, WorkFailed
from k3s_bake import carry
from k3s_bake.login import Login, Person, asked

_KNOWN_HOSTS = Path("~/.ssh/known_hosts")
_CONNECT, _LOGIN, _ANSWER = 15.0, 30.0, 300.0
"""Seconds: until a host answers, until it lets us in, until a request is answered."""
_ALIVE, _MISSED = 10.0, 3
"""Seconds between signs of life, and how many may be missed until a connection counts as lost."""
_CHUNK = 1 << 18
_COMPLAINT = 4096


class Remote:
    """A node that answers requests: made by ``opened``."""

    def __init__(self, name: str, connection: asyncssh.SSHClientConnection, process: Any) -> None:
        self.name = name
        self._connection = connection
        self._process = process
        self._complaint = ""
        self._turn = asyncio.Lock()
        self._listener = asyncio.create_task(self._hear_complaints())

    async def call(self, verb: str, limit: float = _ANSWER, **values: Any) -> dict[str, Any]:
        """The answer. UserError and WorkFailed as the node says; WorkFailed where it is lost or too slow."""
        async with self._turn:
            return await self._call(verb, limit, values)

    async def put(self, path: Path | None, sha256: str, size: int, sent: Callable[[int], None]) -> None:
        """A large file, to where ``apply`` finds it; what is there already of it is not sent again.

        ``sent`` is told each number of bytes. WorkFailed for one that is not there and has no ``path`` here.
        """
        async with self._turn:
            there = await self._call("put", _ANSWER, {"sha256": sha256, "size": size, "offset": -1})
            offset = int(there["offset"])
            if path is None and offset < size:
                raise WorkFailed("a file that was kept there is gone")
            self._send({"verb": "put", "sha256": sha256, "size": size, "offset": offset})
            try:
                if path is not None:
                    await self._stream(path, offset, sent)
                await self._answer(_ANSWER)
            except (OSError, asyncssh.Error, TimeoutError) as error:
                raise await self._lost(error) from error

    async def _stream(self, path: Path, offset: int, sent: Callable[[int], None]) -> None:
        with path.open("rb") as source:
            source.seek(offset)
            while piece := source.read(_CHUNK):
                self._process.stdin.write(piece)
                await asyncio.wait_for(self._process.stdin.drain(), _ANSWER)
                sent(len(piece))

    async def close(self) -> None:
        """Ends what runs there. Never raises."""
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            self._process.stdin.write_eof()
        self._listener.cancel()
        self._process.close()
        self._connection.close()
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            await asyncio.wait_for(self._connection.wait_closed(), 3)

    async def _call(self, verb: str, limit: float, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            self._send({"verb": verb, **values})
            return await self._answer(limit)
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise await self._lost(error) from error

    def _send(self, request: Mapping[str, Any]) -> None:
        self._process.stdin.write(remote.packed(request))

    async def _answer(self, limit: float) -> dict[str, Any]:
        head = await asyncio.wait_for(self._exactly(4), limit)
        size = int.from_bytes(head, "big")
        if size > remote.MOST:
            raise ConnectionResetError("what it answers makes no sense")
        body = await asyncio.wait_for(self._exactly(size), limit)
        found: dict[str, Any] = json.loads(zlib.decompress(body).decode("utf-8", "surrogatepass"))
        if "error" in found:
            kind = UserError if found["code"] == UserError.exit_code else WorkFailed
            raise kind(str(found["error"]), str(found["hint"]))
        return found

    async def _exactly(self, size: int) -> bytes:
        try:
            data: bytes = await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the connection was cut") from error
        return data

    async def _hear_complaints(self) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            while piece := await self._process.stderr.read(_COMPLAINT):
                self._complaint = (self._complaint + piece.decode(errors="replace"))[-_COMPLAINT:]

    async def _lost(self, error: Exception) -> WorkFailed:
        await asyncio.sleep(0)
        last = self._complaint.strip().splitlines()[-1:] or [str(error) or "it does not answer any more"]
        return WorkFailed(
            f"the connection was lost: {last[0][:200]}", "Run it again: it goes on where it was."
        )


async def opened(login: Login, person: Person, *, accept_new: bool = False) -> Remote:
    """Log in and start Python there, as root. UserError and WorkFailed with one line that says why not."""
    connection = await _connected(login, person, accept_new)
    try:
        process = await _started(login, connection, person)
        process.stdin.write(carry.program())
        return Remote(str(login), connection, process)
    except BaseException:
        connection.close()
        raise


async def _connected(login: Login, person: Person, accept_new: bool) -> asyncssh.SSHClientConnection:
    client = _Client(login, person)
    for _ in range(2):
        try:
            return await asyncssh.connect(
                login.host,
                **{key: value for key, value in (("port", login.port), ("username", login.user)) if value},
                client_factory=lambda: client,
                connect_timeout=_CONNECT,
                login_timeout=_LOGIN,
                keepalive_interval=_ALIVE,
                keepalive_count_max=_MISSED,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            await _learn(login, client, person, accept_new, error)
        except asyncssh.PermissionDenied as error:
            raise UserError(
                "the login was refused",
                "Is the user right? ssh-copy-id puts your key there; a password is asked for in a terminal.",
            ) from error
        except (TimeoutError, asyncssh.ConnectionLost) as error:
            raise WorkFailed(
                "SSH does not answer", "Is it on, and SSH too? Is a firewall between?"
            ) from error
        except asyncssh.Error as error:
            raise WorkFailed(f"SSH failed: {error.reason[:200]}") from error
        except OSError as error:
            raise _unreachable(error) from error
    raise WorkFailed("its host key changes from one moment to the next", "Do two hosts have that address?")


def _unreachable(error: OSError) -> WorkFailed:
    if isinstance(error, ConnectionRefusedError):
        return WorkFailed("the connection was refused", "Is SSH on there? sudo systemctl enable --now ssh")
    words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return WorkFailed(f"it cannot be reached: {words[:200]}", "Is it on, and is the address right?")


class _Client(asyncssh.SSHClient):
    """Remembers a host's unknown key; asks for a password where no key is taken."""

    def __init__(self, login: Login, person: Person) -> None:
        self.seen: tuple[str, int, asyncssh.SSHKey] | None = None
        self.is_changed = False
        self._login = login
        self._person = person
        self._asked = 0

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.seen = host, port, key
        known = _KNOWN_HOSTS.expanduser()
        if known.is_file():
            self.is_changed = bool(asyncssh.read_known_hosts(str(known)).match(host, addr, port)[0])
        return False

    async def password_auth_requested(self) -> str | None:
        self._asked += 1
        if self._asked > 3:
            return None
        return await asked(self._person.password, f"{self._login}'s password")


async def _learn(
    login: Login, client: _Client, person: Person, accept_new: bool, error: asyncssh.HostKeyNotVerifiable
) -> None:
    """A host's key that is new, where the person trusts it. UserError where not, or where it has changed."""
    if client.seen is None:
        raise WorkFailed(f"its host key cannot be checked: {error.reason[:200]}") from error
    host, port, key = client.seen
    place = host if port == 22 else f"[{host}]:{port}"
    if client.is_changed:
        raise UserError(
            "its host key has changed", f"If it was set up anew: ssh-keygen -R '{place}'. Else it is another."
        ) from error
    trusted = accept_new or await asked(person.trusts, place, key.get_fingerprint())
    if not trusted:
        raise UserError(
            "its host key is not known here", f"'{login.command}' once, or --accept-new"
        ) from error
    known = _KNOWN_HOSTS.expanduser()
    known.parent.mkdir(mode=0o700, exist_ok=True)
    with known.open("a", encoding="utf-8") as file:
        file.write(f"{place} {key.export_public_key('openssh').decode().strip()}\n")


async def _started(login: Login, connection: asyncssh.SSHClientConnection, person: Person) -> Any:
    """Python, as root: by sudo where the login is another's, with a password only where sudo wants one."""
    python = carry.command()
    user = connection.get_extra_info("username")
    if user == "root":
        process, why = await _run(connection, python)
    else:
        process, why = await _run(connection, f"sudo -n -- {python}")
        if process is None and "password" in why:
            password = await asked(person.password, f"sudo password of {user} at {login.host}")
            if password is None:
                raise UserError(
                    f"sudo wants a password of {user}",
                    "Run it in a terminal, which asks; or allow it without.",
                )
            process, why = await _run(connection, f"sudo -k -S -p '' -- {python}", password)
    if process is None:
        raise carry.trouble(user, why)
    return process


async def _run(
    connection: asyncssh.SSHClientConnection, command: str, password: str | None = None
) -> tuple[Any, str]:
    """The process, once it is ready; else None and what it complained of."""
    process = await connection.create_process(command, encoding=None)
    if password is not None:
        process.stdin.write(f"{password}\n".encode())
    complaint = ""
    ready = asyncio.create_task(process.stdout.readline())
    heard = asyncio.create_task(process.stderr.readline())
    with contextlib.suppress(TimeoutError, asyncssh.Error, OSError):
        async with asyncio.timeout(_LOGIN):
            while not (ready.done() and heard.done()):
                await asyncio.wait({ready, heard}, return_when=asyncio.FIRST_COMPLETED)
                if ready.done() and ready.result() == carry.READY.encode():
                    heard.cancel()
                    return process, ""
                if ready.done():
                    await asyncio.wait({heard})
                if heard.done() and (line := heard.result().decode(errors="replace")):
                    complaint += line
                    if "try again" in line:  # and sudo waits for another one
                        break
                    heard = asyncio.create_task(process.stderr.readline())
                elif heard.done():
                    await ready
    ready.cancel()
    heard.cancel()
    process.close()
    return None, complaint
