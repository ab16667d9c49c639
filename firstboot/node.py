"""This node, as its agent changes it: names, keys, K3s's files and unit. Every step can be done again.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import json
import re
import secrets
import socket
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

from firstboot import programs
from firstboot.contract import (
    HOST_CERTIFICATE,
    HOST_KEY,
    K3S_AGENT_TOKEN,
    K3S_CONFIG,
    K3S_PASSWORD,
    K3S_TOKEN,
    NAME,
    is_label,
)
from firstboot.edits import Edit, Write
from firstboot.errors import UserError
from firstboot.snapshot import Probe, Snapshot
from firstboot.token import Grant
from firstboot.tree import FolderTree

Run = Callable[..., Tuple[int, bytes, str]]

_REJECTED = "Node password rejected"
_KEYS = ("node-name", "server", "token-file", "agent-token-file")
_FOUND_OUT = {"token-file", "agent-token-file"}
_AVAHI = "avahi-daemon.service"


class Node:
    """The system in the folder ``root``: ``/``, or a test's own. ``run`` is programs.run."""

    def __init__(self, root: str = "/", run: Run = programs.run) -> None:
        self.root = root
        self._run = run

    # files

    def text(self, path: str) -> str:
        """Of a small file; empty where it cannot be read."""
        try:
            with self.at(path).open(encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read(1 << 20)
        except OSError:
            return ""

    def changed(self, path: str) -> int:
        """When, in seconds since 1970; 0 where the file is not there, or lies in the future."""
        try:
            moment = int(self.at(path).stat().st_mtime)
        except OSError:
            return 0
        return moment if moment <= time.time() else 0

    def read(self, probes: Sequence[Probe]) -> Snapshot:
        return FolderTree(self.root).read(probes)

    def write(self, edits: Sequence[Edit]) -> bool:
        """Whether anything had to change: what is so already is not written again, cards wear out and may be
        full. UserError or WorkFailed where it cannot be done; each is whole or not there."""
        found = self.read([Probe(edit.path, "digest") for edit in edits])
        changes = [edit for edit in edits if not edit.met_by(found.get(edit.path))]
        FolderTree(self.root).apply(changes)
        return bool(changes)

    def try_to_write(self, edit: Edit) -> None:
        """A card that takes no more writes must not stop a node that works."""
        try:
            self.write([edit])
        except UserError as error:
            print(error.message, flush=True)  # noqa: T201 (the journal)

    def at(self, path: str) -> Path:
        return Path(self.root, path.lstrip("/"))

    # who it is

    def brought_name(self) -> str:
        """The name that the card's credential gave; empty where it gave none."""
        name = self.text(NAME).strip()
        return name if is_label(name) else ""

    def is_master_ready_to_serve(self) -> bool:
        return bool(self.text(HOST_KEY) and self.text(HOST_CERTIFICATE))

    def set_name(self, name: str) -> None:
        """As the host's name, now and later."""
        hosts = self.text("/etc/hosts")
        self.write(
            [
                Write("/etc/hostname", f"{name}\n".encode()),
                Write("/etc/hosts", with_hostname(hosts, name).encode("utf-8", "surrogateescape")),
            ]
        )
        if self.root == "/" and socket.gethostname() != name:
            with contextlib.suppress(OSError):  # a container may not
                socket.sethostname(name)
            self.systemctl("try-restart", _AVAHI)  # it announces the host by its name

    # K3s

    def configure_joining(self, grant: Grant, name: str) -> None:
        """What K3s needs to join, the token first: K3s waits for ever for one that is not there."""
        self.make_password()
        keys = {"node-name": name, "server": grant.server, "token-file": K3S_TOKEN}
        edits: List[Edit] = [Write(K3S_TOKEN, f"{grant.token}\n".encode(), 0o600, secret=True)]
        if grant.agent_token:
            keys["agent-token-file"] = K3S_AGENT_TOKEN
            edits.append(Write(K3S_AGENT_TOKEN, f"{grant.agent_token}\n".encode(), 0o600, secret=True))
        text = with_keys(self.text(K3S_CONFIG), keys)
        self.write([*edits, Write(K3S_CONFIG, text.encode("utf-8", "surrogateescape"), 0o600)])

    def is_let_in(self, ca: str, server: str) -> bool:
        """Whether K3s has all that it needs to join that cluster."""
        keys = self.text(K3S_CONFIG).splitlines()
        return bool(ca) and self.text(K3S_TOKEN).startswith(f"K10{ca}::") and _line("server", server) in keys

    def point_at(self, server: str) -> bool:
        """Name K3s another address of its master. False for what is no master's URL."""
        try:
            port_of(server)
        except ValueError:
            return False
        text = with_keys(self.text(K3S_CONFIG), {"server": server})
        self.write([Write(K3S_CONFIG, text.encode("utf-8", "surrogateescape"), 0o600)])
        return True

    def configure_leading(self, name: str) -> None:
        """What a master needs that starts a cluster: a token for agents, which opens nothing else."""
        self.make_password()
        edits: List[Edit] = []
        if not self.text(K3S_AGENT_TOKEN).strip():
            made = secrets.token_hex(16)
            edits.append(Write(K3S_AGENT_TOKEN, f"{made}\n".encode(), 0o600, secret=True))
        text = with_keys(self.text(K3S_CONFIG), {"node-name": name, "agent-token-file": K3S_AGENT_TOKEN})
        edits.append(Write(K3S_CONFIG, text.encode("utf-8", "surrogateescape"), 0o600))
        self.write(edits)

    def make_password(self) -> None:
        """K3s makes it, too, but without making sure that it is on the disk: with another one after a power
        cut the node would be refused for good."""
        if not self.text(K3S_PASSWORD).strip():
            made = secrets.token_hex(16)
            self.write([Write(K3S_PASSWORD, f"{made}\n".encode(), 0o600, secret=True)])

    def k3s_version(self) -> str:
        """Like ``v1.34.9+k3s1``; empty where K3s does not say."""
        code, said, _ = self._run(["/usr/local/bin/k3s", "--version"], most=4096, limit=60)
        found = re.search(r"\bv[0-9][0-9A-Za-z.+-]{0,30}", said.decode("utf-8", "replace"))
        return found.group() if code == 0 and found else ""

    # systemd

    def start(self, unit: str) -> None:
        """Now and at each boot. Without waiting: a master's K3s notifies late."""
        self.systemctl("enable", unit)
        self.systemctl("start", "--no-block", unit)

    def restart(self, unit: str) -> None:
        self.systemctl("restart", "--no-block", unit)

    def is_active(self, unit: str) -> bool:
        return self.systemctl("is-active", unit) == "active"

    def is_starting(self, unit: str) -> bool:
        """A server takes minutes on a small board. One that starts anew again and again is not starting."""
        said = self.systemctl("show", "--property=SubState", "--property=NRestarts", unit)
        values = dict(line.partition("=")[::2] for line in said.splitlines())
        restarts = values.get("NRestarts", "")
        return values.get("SubState") in ("start", "start-pre") and restarts in ("", "0", "1", "2")

    def is_rejected(self, unit: str) -> bool:
        """Whether K3s has logged of late that its node's password is another's."""
        words = ("-u", unit, "-o", "cat", "--no-pager", "-n", "100", "--since", "-2min")
        _, said, _ = self._run(["journalctl", *words], most=1 << 20, limit=30)
        return _REJECTED in said.decode("utf-8", "replace")

    def systemctl(self, *words: str) -> str:
        """What it prints."""
        _, said, _ = self._run(["systemctl", *words], most=65536, limit=60)
        return said.decode("utf-8", "replace").strip()

    def order(self, *command: str) -> None:
        """Where it does not do it, the journal says so, and the node goes on."""
        code, _, complaint = self._run(list(command), most=65536, limit=60)
        if code != 0:
            why = complaint.strip().splitlines()[-1:]
            print(": ".join([" ".join(command), *(why or [f"it ends with {code}"])]), flush=True)  # noqa: T201


def with_hostname(hosts: str, name: str) -> str:
    """/etc/hosts with 127.0.1.1 as this host: sudo and K3s both look their own name up."""
    line = f"127.0.1.1\t{name}"
    changed, count = re.subn(r"^127\.0\.1\.1[ \t].*$", line, hosts, count=1, flags=re.MULTILINE)
    if count:
        return changed
    return hosts + ("" if hosts.endswith("\n") or not hosts else "\n") + line + "\n"


def with_keys(config: str, keys: Mapping[str, str]) -> str:
    """K3s's config.yaml with these keys, one line each and its value as JSON, as the bake writes it.

    ``with-node-id`` goes: the name is this node's own already.
    """
    left = dict(keys)
    lines: List[str] = []
    for line in config.splitlines():
        key = line.partition(":")[0]
        if key not in keys and key != "with-node-id":  # a person's, whatever it is
            lines.append(line)
        elif key in left:
            lines.append(_line(key, left.pop(key)))
    lines += [_line(key, value) for key, value in left.items()]
    return "".join(f"{line}\n" for line in lines)


def keys_of_agent(config: str) -> Dict[str, str]:
    """What the agent has written to K3s's config.yaml; nothing where it has not come so far."""
    keys: Dict[str, str] = {}
    for line in config.splitlines():
        key, _, value = line.partition(": ")
        if key in _KEYS:
            with contextlib.suppress(ValueError):
                keys[key] = str(json.loads(value))
    return keys if keys.keys() & _FOUND_OUT else {}


def _line(key: str, value: str) -> str:
    return f"{key}: {json.dumps(value)}"


def port_of(server: str) -> Tuple[str, int]:
    """Host and port of a master's URL. ValueError for what token.grant_of would not let pass."""
    found = re.fullmatch(r"https://(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", server)
    if found is None:
        raise ValueError("no master's URL")
    return found.group(1) or found.group(2), int(found.group(3))


def answers(server: str, limit: float = 3.0) -> bool:
    """Whether a master's K3s takes connections: cheap enough to be asked often."""
    try:
        with socket.create_connection(port_of(server), limit):
            return True
    except (OSError, ValueError):
        return False
