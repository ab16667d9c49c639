"""Logging in, where asyncssh's connection is a stand-in: who is asked for what, and how failures are told."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firstboot.errors import UserError, WorkFailed
from k3s_bake import carry, ssh
from k3s_bake.cli.terminal import Terminal
from k3s_bake.login import Login, Nobody, behind

pytestmark = pytest.mark.unit

WRONG = b"Sorry, try again.\n"


class Stream:
    def __init__(self, lines: Sequence[bytes], waits: bool = False) -> None:
        self._lines = list(lines)
        self._waits = waits

    async def readline(self) -> bytes:
        if not self._lines and self._waits:
            await asyncio.Event().wait()
        return self._lines.pop(0) if self._lines else b""

    read = readexactly = lambda self, size: self.readline()


class Process:
    """What sudo starts where it wants the password ``right``; None: where it wants none."""

    def __init__(self, command: str, right: str | None) -> None:
        self.stdin = self
        self.written: list[bytes] = []
        self._right = right
        refused = right is not None and command.startswith("sudo -n")
        self.stdout = Stream([] if refused else [carry.READY.encode()], waits=not refused)
        self.stderr = Stream([b"sudo: a password is required\n"] if refused else [], waits=not refused)

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self._right is not None and len(self.written) == 1:
            is_right = data == f"{self._right}\n".encode()
            self.stdout = Stream([carry.READY.encode()] if is_right else [], waits=True)
            self.stderr = Stream([] if is_right else [WRONG], waits=True)

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        pass


class Connection:
    def __init__(self, right: str | None = None, fails: Exception | None = None) -> None:
        self._right = right
        self._fails = fails

    def get_extra_info(self, name: str) -> str:
        return "pi"

    async def create_process(self, command: str, encoding: None) -> Process:
        if self._fails:
            raise self._fails
        return Process(command, self._right)

    def is_closed(self) -> bool:
        return False

    def close(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass


class Person(Nobody):
    """Answers in turn, and notes what it was asked."""

    def __init__(self, *answers: str | None) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, bool]] = []

    def password(self, what: str, wrong: bool = False) -> str | None:
        self.asked.append((what, wrong))
        return self._answers.pop(0)


def log_in(
    monkeypatch: pytest.MonkeyPatch, login: Login, person: Any, connected: Callable[..., Connection]
) -> None:
    async def connect(host: str, **options: Any) -> Connection:
        return connected()

    async def whole() -> None:
        remote = await ssh.opened(login, person)
        await remote.close()

    monkeypatch.setattr(ssh.asyncssh, "connect", connect)
    asyncio.run(whole())


def test_a_wrong_sudo_password_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    login = Login("10.0.0.3", "pi", 2222, ())
    what = "sudo password of pi at 10.0.0.3:2222"
    person = Person("wrong", "right")
    log_in(monkeypatch, login, person, lambda: Connection("right"))
    assert person.asked == [(what, False), (what, True)]
    for answers in (("wrong", "wrong, too"), ("wrong", None)):
        with pytest.raises(UserError, match="the sudo password of pi is wrong"):
            log_in(monkeypatch, login, Person(*answers), lambda: Connection("right"))
    with pytest.raises(UserError, match="sudo wants a password of pi"):
        log_in(monkeypatch, login, Person(None), lambda: Connection("right"))


def test_a_new_hosts_key_is_taken_in_the_login_that_shows_it_once_the_host_has_proved_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # asyncssh makes an address of an address by it.
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (host, 0))])
    first, other = (ssh.asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2))
    logins: list[bool] = []

    async def log_in_at(host: str, key: Any, end: Exception | None = None) -> None:
        async def connect(name: str, *, client_factory: Callable[[], Any], **_: Any) -> Connection:
            logins.append(client_factory().validate_host_public_key(name, "", 22, key))
            if not logins[-1]:
                raise ssh.asyncssh.HostKeyNotVerifiable("not trusted")
            if end is not None:
                raise end
            return Connection()

        monkeypatch.setattr(ssh.asyncssh, "connect", connect)
        remote = await ssh.opened(Login(host, "pi", None, ()), Nobody(), accept_new=True)
        await remote.close()

    known = tmp_path / ".ssh/known_hosts"
    with pytest.raises(WorkFailed, match="does not answer"):  # before it has signed anything
        asyncio.run(log_in_at("10.0.0.3", other, ssh.asyncssh.ConnectionLost("cut off")))
    assert not known.exists()
    asyncio.run(log_in_at("10.0.0.3", first))
    asyncio.run(log_in_at("10.0.0.3", first))
    assert logins == [True, True, True]
    with pytest.raises(UserError, match="host key has changed"):
        asyncio.run(log_in_at("10.0.0.3", other))
    with pytest.raises(UserError, match="the login was refused"):
        asyncio.run(log_in_at("10.0.0.4", other, ssh.asyncssh.PermissionDenied("no")))
    assert [line.split()[0] for line in known.read_text().splitlines()] == ["10.0.0.3", "10.0.0.4"]


def test_where_known_hosts_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As ssh does: a host that another file knows is not new. A line that somebody left open is ended."""
    monkeypatch.setenv("HOME", str(tmp_path))
    # asyncssh makes an address of an address by it.
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: [(2, 1, 6, "", (host, 0))])
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host 10.0.0.3 10.0.0.4\n  UserKnownHostsFile ~/.ssh/lab\n")
    first, other = (ssh.asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2))
    line = f"10.0.0.3 {first.export_public_key('openssh').decode().strip()}"
    (tmp_path / ".ssh/lab").write_text(line)

    def shows(host: str, key: Any) -> Any:
        client = ssh._Client(Login(host, "pi"), Nobody(), accept_new=True)
        client.trusted = client.validate_host_public_key(host, "", 22, key)  # type: ignore[attr-defined]
        client.remember()
        return client

    usual = f"10.0.0.3 {other.export_public_key('openssh').decode()}"
    (tmp_path / ".ssh/known_hosts").write_text(usual)
    assert shows("10.0.0.3", first).trusted
    impostor = shows("10.0.0.3", other)
    assert not impostor.trusted, "the usual file does not count for it"
    assert impostor.is_changed
    assert shows("10.0.0.4", other).trusted
    assert shows("10.0.0.5", other).trusted
    assert [one.split()[0] for one in (tmp_path / ".ssh/lab").read_text().splitlines()] == [
        "10.0.0.3",
        "10.0.0.4",
    ]
    assert (tmp_path / ".ssh/known_hosts").read_text().startswith(f"{usual}10.0.0.5 ")
    (tmp_path / ".ssh/known_hosts").unlink()
    (tmp_path / ".ssh/known_hosts").mkdir()
    with pytest.raises(UserError, match="known_hosts cannot be written: Is a directory"):
        shows("10.0.0.6", other)


@pytest.mark.parametrize("jumps", [("pi@a", "pi@b"), ("a:1", "a:2"), ("none", "a"), ("a,b", "b")])
def test_no_password_goes_to_another_machine_of_the_same_address(
    monkeypatch: pytest.MonkeyPatch, jumps: tuple[str, str]
) -> None:
    """Behind jump hosts two have one address: what the terminal remembers is of one of them."""
    sudo, own = [], []
    for jump in jumps:
        person = Person("right")
        log_in(monkeypatch, behind("pi@10.0.0.3", jump), person, lambda: Connection("right"))
        sudo.append(person.asked[0][0])
        client = ssh._Client(behind("pi@10.0.0.3", jump), person)
        person._answers.append("x")
        asyncio.run(client.password_auth_requested())
        own.append(person.asked[1][0])
    assert sudo[0] != sudo[1]
    assert own[0] != own[1]


def test_another_port_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for port in (2221, 2222):
        person = Person("right")
        log_in(monkeypatch, Login("gate", "pi", port, ()), person, lambda: Connection("right"))
        asked += person.asked
    assert asked[0] != asked[1]


def test_a_jump_of_the_configuration_is_part_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for gate in (None, "gate"):
        monkeypatch.setattr(ssh, "_configured", lambda login, gate=gate: gate if login.host == "n" else None)
        person = Person("right")
        log_in(monkeypatch, Login("n", "pi"), person, lambda: Connection("right"))
        asked.append(person.asked[0][0])
    assert asked == ["sudo password of pi at n", "sudo password of pi at n through gate"]


def test_a_wrong_password_is_forgotten_where_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    terminal = Terminal()
    what = "sudo password of pi at 10.0.0.3"
    terminal._given[what] = "wrong"
    with pytest.raises(UserError, match="the sudo password of pi is wrong"):
        log_in(monkeypatch, Login("10.0.0.3", "pi", None, ()), terminal, lambda: Connection("right"))
    assert what not in terminal._given


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssh.asyncssh.ChannelOpenError(1, "Session refused"), "Session refused"),
        (ssh.asyncssh.ConnectionLost("Connection lost"), "Connection lost"),
        (BrokenPipeError(), "the connection was lost"),
    ],
)
def test_what_fails_after_the_login_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    login = Login("10.0.0.3", "pi", None, ())
    with pytest.raises(WorkFailed, match=f"it lets us in, but runs nothing: {words}") as caught:
        log_in(monkeypatch, login, Nobody(), lambda: Connection(fails=error))
    assert caught.value.hint

    def lost(process: Process, data: bytes) -> None:
        raise error

    monkeypatch.setattr(Process, "write", lost)
    with pytest.raises(WorkFailed, match=f"it lets us in, but runs nothing: {words}"):
        log_in(monkeypatch, login, Nobody(), Connection)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssh.asyncssh.ConfigParseError("Config line 3: x"), "~/.ssh/config: Config line 3: x"),
        (UnicodeError("label empty"), "it cannot be reached: label empty"),
    ],
)
def test_what_is_no_error_of_ssh_s_is_told_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    """With ``--jump none`` nobody has read the configuration before."""

    def connected() -> Connection:
        raise error

    with pytest.raises(UserError) as caught:
        log_in(monkeypatch, replace(Login("h"), jump=()), Nobody(), connected)
    assert caught.value.message == words
    assert caught.value.hint
