"""Real database servers, each a process of its own with its data in a folder that is gone with it.

Never the system's service: on a LAN of a test its port is nobody else's. Hosts there get the servers' clients
with all that those load, as their system is another.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig.hosts import Host
from rig.lan import OWN, Lan

USER = "k3s"


class Database(ABC):
    """Off at first, with an empty database and a user of the name k3s."""

    owner = "root"
    port: int

    def __init__(self, folder: Path, lan: Lan | None) -> None:
        self.folder = folder
        self.address = OWN if lan else "127.0.0.1"
        self._inside = ["nsenter", f"--target={lan.init}", "--net", "--"] if lan else []
        if lan is None:  # a service of this machine may have the usual one
            with socket.create_server((self.address, 0)) as free:
                self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"
        shutil.chown(folder, self.owner)
        self._run(self._setup())

    @property
    @abstractmethod
    def url(self) -> str:
        """As cluster.toml has it: without a password."""

    @abstractmethod
    def _setup(self) -> list[str]:
        """The command that makes an empty one in its folder."""

    @abstractmethod
    def _server(self) -> list[str]:
        """The command that runs it."""

    @abstractmethod
    def _client(self) -> list[str]:
        """Of its administrator, by a socket in its folder."""

    def sql(self, statement: str) -> str:
        """Statements come by standard input: there may be a password in them."""
        return self._run(self._client(), statement)

    def start(self) -> "Database":
        as_owner = ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}", "--clear-groups"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, *as_owner, "--pdeathsig=INT", *self._server()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        end = time.monotonic() + 60
        while True:
            try:
                self.sql("SELECT 1;")
                return self
            except AssertionError:
                assert self._process.poll() is None and time.monotonic() < end, self.log.read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT if self.owner == "postgres" else signal.SIGTERM)
            self._process.wait(30)
            self._process = None

    def _run(self, command: Sequence[str], stdin: str = "") -> str:
        as_owner = ["setpriv", f"--reuid={self.owner}", f"--regid={self.owner}", "--clear-groups"]
        done = subprocess.run(
            [*as_owner, *command], input=stdin, capture_output=True, text=True, cwd=self.folder, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Postgres(Database):
    owner, port = "postgres", 5432

    @property
    def url(self) -> str:
        return f"postgres://{USER}@{self.address}:{self.port}/{USER}"

    def _program(self, name: str) -> str:
        return str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))  # of which /usr/bin has few

    def _setup(self) -> list[str]:
        return [self._program("initdb"), "--pgdata=data", "--auth-local=peer", "--auth-host=scram-sha-256"]

    def _server(self) -> list[str]:
        anyone = "host all all 0.0.0.0/0 scram-sha-256\n"
        with (self.folder / "data/pg_hba.conf").open("r+") as rules:
            if anyone not in rules.read():
                rules.write(anyone)
        settings = (f"listen_addresses={self.address}", f"port={self.port}", "fsync=off")
        settings += (f"unix_socket_directories={self.folder}",)
        return [self._program("postgres"), "-D", "data", *(word for one in settings for word in ("-c", one))]

    def _client(self) -> list[str]:
        where = (f"--host={self.folder}", f"--port={self.port}")
        return [self._program("psql"), "-XAtq", "-vON_ERROR_STOP=1", *where, "postgres"]

    def let_in(self, password: str) -> None:
        """The user, by this password from now on."""
        if not self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{USER}';"):
            self.sql(f"CREATE ROLE {USER} LOGIN;")
            self.sql(f"CREATE DATABASE {USER} OWNER {USER};")
        self.sql(f"ALTER ROLE {USER} PASSWORD '{password}';")

    def kept(self) -> list[str]:
        """The names of what K3s keeps there."""
        return self.sql(f"\\c {USER}\nSELECT name FROM kine ORDER BY name;").splitlines()


class MariaDb(Database):
    port = 3306

    @property
    def url(self) -> str:
        return f"mysql://{USER}@tcp({self.address}:{self.port})/{USER}"

    def _setup(self) -> list[str]:
        data = f"--datadir={self.folder}/data"
        return ["mariadb-install-db", "--no-defaults", data, "--user=root", "--skip-test-db"]

    def _server(self) -> list[str]:
        where = (f"--datadir={self.folder}/data", f"--socket={self.folder}/socket")
        net = (f"--bind-address={self.address}", f"--port={self.port}", "--skip-name-resolve")
        return [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            *where,
            *net,
            "--user=root",
            f"--pid-file={self.folder}/pid",
        ]

    def _client(self) -> list[str]:
        return ["mariadb", "--no-defaults", f"--socket={self.folder}/socket", "-NB"]

    def let_in(self, password: str) -> None:
        self.sql(f"CREATE DATABASE IF NOT EXISTS {USER}; CREATE USER IF NOT EXISTS {USER}@'%';")
        self.sql(f"GRANT ALL ON {USER}.* TO {USER}@'%'; ALTER USER {USER}@'%' IDENTIFIED BY '{password}';")

    def kept(self) -> list[str]:
        return self.sql(f"SELECT name FROM {USER}.kine ORDER BY name;").splitlines()


@contextlib.contextmanager
def running(
    kind: type[Postgres | MariaDb], password: str, lan: Lan | None = None
) -> Iterator[Postgres | MariaDb]:
    """One that lets the user in by this password."""
    with tempfile.TemporaryDirectory(prefix="k3s-bake-database-") as folder:
        database = kind(Path(folder), lan)
        database.start()
        try:
            database.let_in(password)
            yield database
        finally:
            database.stop()


def give_clients(host: Host) -> None:
    """To a host that is on: psql and mariadb of this machine, with the libraries they were made for."""
    place = host.path("opt/clients")
    place.mkdir()
    for program in (str(max(Path("/usr/lib/postgresql").glob("*/bin/psql"))), shutil.which("mariadb") or ""):
        name = Path(program).name
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries = re.findall(r"(/\S+) \(0x", said)
        (loader,) = [path for path in libraries if Path(path).name.startswith("ld-")]
        for path in (program, *libraries):
            if not (place / Path(path).name).exists():
                shutil.copy(os.path.realpath(path), place / Path(path).name)
        script = host.path(f"usr/local/bin/{name}")
        loads = f"/opt/clients/{Path(loader).name} --library-path /opt/clients"
        script.write_text(f'#!/bin/sh\nexec {loads} /opt/clients/{name} "$@"\n')
        script.chmod(0o755)
