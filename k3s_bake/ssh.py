"""Nodes that run, over SSH: logging in, and a Python there that carries requests out. asyncssh's only door.

One login and one execution a node, whatever is asked of it: ``firstboot.remote`` answers for as long as it
is asked. Nothing secret is on a command line; what is known of hosts is ``~/.ssh``'s, as for ssh itself.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import asyncssh

from firstboot.errors import UserError, WorkFailed
from k3s_bake import carry, known_hosts, sudo, unreached
from k3s_bake.jumps import Jumps, way
from k3s_bake.login import Login, Person, asked
from k3s_bake.remote import Remote

__all__ = ["Jumps", "Remote", "opened"]

_CONNECT, _LOGIN = 15.0, 30.0
"""Seconds: until a host answers, until it lets us in."""
_ALIVE, _MISSED = 10.0, 3
"""Seconds between signs of life, and how many may be missed until a connection counts as lost."""
_COMPLAINT = 4096


class _Pipe:
    """A process over a connection, as Remote's Pipe."""

    def __init__(self, process: Any, behind: contextlib.AsyncExitStack) -> None:
        """``behind``: closed at the end, too."""
        self._process = process
        self._behind = behind
        self._complaint = ""
        self._listener = asyncio.create_task(self._hear_complaints())

    def write(self, data: bytes) -> None:
        with _as_connection_error():
            self._process.stdin.write(data)

    async def drain(self) -> None:
        with _as_connection_error():
            await self._process.stdin.drain()

    async def exactly(self, size: int) -> bytes:
        with _as_connection_error():
            data: bytes = await self._process.stdout.readexactly(size)
        return data

    def last_words(self) -> str:
        return "".join(self._complaint.strip().splitlines()[-1:])

    async def close(self) -> None:
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            self._process.stdin.write_eof()
        self._listener.cancel()
        self._process.close()
        await self._behind.aclose()

    async def _hear_complaints(self) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            while piece := await self._process.stderr.read(_COMPLAINT):
                self._complaint = (self._complaint + piece.decode(errors="replace"))[-_COMPLAINT:]


@contextlib.contextmanager
def _as_connection_error() -> Iterator[None]:
    try:
        yield
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the connection was cut") from error
    except asyncssh.Error as error:
        raise ConnectionResetError(error.reason) from error


@contextlib.contextmanager
def _as_failed() -> Iterator[None]:
    """What goes wrong after the login, in one line."""
    try:
        yield
    except (asyncssh.Error, OSError) as error:
        why = error.reason if isinstance(error, asyncssh.Error) else str(error)
        raise WorkFailed(
            f"it lets us in, but runs nothing: {why[:200] or 'the connection was lost'}",
            "Does its sshd allow sessions (MaxSessions)? If it restarts: run it again.",
        ) from error


async def opened(
    login: Login, person: Person, *, accept_new: bool = False, jumps: Jumps | None = None
) -> Remote:
    """Log in and start Python there, as root. UserError and WorkFailed with one line that says why not.

    ``jumps``: those that others go through, too; else it has its own.
    """

    async def connect(host: Login, tunnel: Any) -> asyncssh.SSHClientConnection:
        between = hosts[: hosts.index(host)] if host in hosts else hosts
        return await _connected(replace(host, jump=between), person, accept_new, tunnel)

    async with contextlib.AsyncExitStack() as stack:
        shared = jumps if jumps is not None else await stack.enter_async_context(Jumps())
        hosts = await asyncio.to_thread(way, login, _configured)
        connection = await connect(login, await shared.through(hosts, connect))
        stack.push_async_callback(_closed, connection)
        process = await _started(replace(login, jump=hosts), connection, person)
        with _as_failed():
            process.stdin.write(carry.program())
        return Remote(str(login), _Pipe(process, stack.pop_all()))


async def _closed(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
        await asyncio.wait_for(connection.wait_closed(), 3)


async def _remembered(
    client: "_Client", connection: asyncssh.SSHClientConnection
) -> asyncssh.SSHClientConnection:
    try:
        client.remember()
    except UserError:
        await _closed(connection)
        raise
    return connection


def _configured(login: Login) -> str | None:
    """The ProxyJump of ~/.ssh/config."""
    found = _options(login).tunnel
    return str(found) if found else None


def _options(login: Login) -> asyncssh.SSHClientConnectionOptions:
    given = _named(login) | {"config": ()}  # the default, which is to read it
    try:
        return asyncssh.SSHClientConnectionOptions(host=login.host, client_keys=None, **given)
    except ValueError as error:
        raise _misconfigured(error) from error


def _known(login: Login) -> list[str]:
    """Files of known hosts that ~/.ssh/config names."""
    found = _options(login).known_hosts
    return [str(name) for name in found] if isinstance(found, list) else []


def _misconfigured(error: ValueError) -> UserError:
    """asyncssh's ConfigParseError is one, too."""
    return UserError(f"~/.ssh/config: {error}", "ssh -G HOST shows what ssh makes of it.")


def _named(login: Login) -> dict[str, Any]:
    """What a person has said: the rest is the configuration's."""
    return {key: value for key, value in (("port", login.port), ("username", login.user)) if value}


async def _connected(
    login: Login, person: Person, accept_new: bool, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    client = _Client(login, person, accept_new)
    for _ in range(2):
        try:
            connection = await asyncssh.connect(
                login.host,
                **_named(login),
                tunnel=tunnel,
                client_factory=lambda: client,
                connect_timeout=_CONNECT,
                login_timeout=_LOGIN,
                keepalive_interval=_ALIVE,
                keepalive_count_max=_MISSED,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            await _learn(login, client, person, error)
        except asyncssh.PermissionDenied as error:
            client.remember()
            raise UserError(
                "the login was refused",
                "Is the user right? ssh-copy-id puts your key there; a password is asked for in a terminal.",
            ) from error
        except (TimeoutError, asyncssh.ConnectionLost) as error:
            raise unreached.silent() from error
        except asyncssh.ChannelOpenError as error:
            is_forbidden = error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
            raise unreached.not_forwarded(is_forbidden, error.reason) from error
        except asyncssh.Error as error:
            raise WorkFailed(f"SSH failed: {error.reason[:200]}") from error
        except (OSError, UnicodeError) as error:  # the second of a name that is none in DNS
            raise unreached.unreachable(error) from error
        except ValueError as error:
            raise _misconfigured(error) from error
        else:
            return await _remembered(client, connection)
    raise WorkFailed("its host key changes from one moment to the next", "Do two hosts have that address?")


class _Client(asyncssh.SSHClient):
    """Remembers a host's unknown key; asks for a password where no key is taken."""

    def __init__(self, login: Login, person: Person, accept_new: bool = False) -> None:
        self.seen: tuple[str, int, asyncssh.SSHKey] | None = None
        self.is_changed = False
        self._login, self._person = login, person
        self._accept_new = accept_new
        self._is_new = False
        self._asked = 0

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.seen = host, port, key
        known = known_hosts.files(_known(self._login))
        trusted = asyncssh.read_known_hosts(known).match(host, addr, port)[0] if known else ()
        self.is_changed = bool(trusted) and key not in trusted
        self._is_new = self._accept_new and not trusted
        return self._is_new or key in trusted  # learned a moment ago, by another login to the same host

    def remember(self) -> None:
        """A key that was taken unseen: the host has proved by now that it is its own."""
        if self.seen is not None and self._is_new:
            host, port, key = self.seen
            known_hosts.add(_known(self._login), host, port, key.export_public_key("openssh").decode())
            self._is_new = False

    async def password_auth_requested(self) -> str | None:
        self._asked += 1
        if self._asked > 3:
            return None
        return await asked(
            self._person.password, f"{self._login}'s password{self._login.through}", self._asked > 1
        )


async def _learn(login: Login, client: _Client, person: Person, error: asyncssh.HostKeyNotVerifiable) -> None:
    """A host's key that is new, where the person trusts it. UserError where not, or where it has changed."""
    if client.seen is None:
        raise WorkFailed(f"its host key cannot be checked: {error.reason[:200]}") from error
    host, port, key = client.seen
    place = known_hosts.place_of(host, port)
    if client.is_changed:
        raise UserError(
            "its host key has changed", f"If it was set up anew: ssh-keygen -R '{place}'. Else it is another."
        ) from error
    if not await asked(person.trusts, place, key.get_fingerprint()):
        hint = f"'{login.command}' once, or --accept-new"
        raise UserError("its host key is not known here", hint) from error
    known_hosts.add(_known(login), host, port, key.export_public_key("openssh").decode())


async def _started(login: Login, connection: asyncssh.SSHClientConnection, person: Person) -> Any:
    """Python, as root: by sudo where the login is another's, with a password only where sudo wants one."""
    python = carry.command()
    user = connection.get_extra_info("username")
    if user == "root":
        process, why = await _run(connection, python)
    else:
        process, why = await _run(connection, f"sudo -n -- {python}")
        if process is None and "password" in why:
            command = f"sudo -k -S -p '' -- {python}"
            process, why = await sudo.asking(login, user, person, partial(_run, connection, command))
    if process is None:
        raise carry.trouble(user, why)
    return process


async def _run(
    connection: asyncssh.SSHClientConnection, command: str, password: str | None = None
) -> tuple[Any, str]:
    """The process, once it is ready; else None and what it complained of."""
    with _as_failed():
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
                    if sudo.WRONG in line:
                        break
                    heard = asyncio.create_task(process.stderr.readline())
                elif heard.done():
                    await ready
    ready.cancel()
    heard.cancel()
    process.close()
    return None, complaint
