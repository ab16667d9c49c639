"""Whether a secret of a host was to be seen: in any command line or environment, a journal, a console."""

import contextlib
import os
import re
import threading
import time
from types import TracebackType
from urllib.parse import unquote

from rig.hosts import Host
from rig.lan import Lan

_FILES = (
    "/etc/rancher/k3s/token",
    "/etc/rancher/k3s/agent-token",
    "/etc/rancher/node/password",
    "/var/lib/rancher/k3s/server/token",
    "/etc/k3s-bake/join_key",
    "/etc/k3s-bake/host_key",
)
_DATASTORE = "/etc/rancher/k3s/config.yaml.d/k3s-bake-datastore.yaml"
_SHORT = 24
"""Characters: shorter lines of these files are no secret."""


_YOUNG = 2.0
"""Seconds for which a process is looked at: between fork and exec it is still another one."""


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (thousands a second: a Path takes as long again)
        return file.read()


class Watch:
    """Looks at every process of this machine, many times a second."""

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self.typed: set[str] = set()
        """Passwords that a test types: they are secrets, too."""
        self._seen: set[bytes] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        born: dict[str, float] = {}
        while not self._ended.wait(0.05):
            now = time.monotonic()
            born = {name: born.get(name, now) for name in os.listdir("/proc") if name.isdigit()}
            for name in (name for name, at in born.items() if now - at < _YOUNG):
                with contextlib.suppress(OSError):
                    self._seen |= {_read(f"/proc/{name}/cmdline"), _read(f"/proc/{name}/environ")}

    def check(self, hosts: list[Host], more: bytes = b"") -> None:
        """``more``: what else was told somewhere."""
        secrets = self.typed | {line for host in hosts if host.is_on for line in secrets_of(host)}
        time.sleep(0.2)
        told = b"\0".join(self._seen) + more
        for host in hosts:
            told += host.log.read_bytes()
            if host.is_on:
                files = "/boot/k3s-bake-status.txt /etc/issue"
                told += host.run(f"journalctl --no-pager; cat {files}", check=False).encode()
        assert b"k3s-bake" in told
        shown = [secret for secret in secrets if secret.encode() in told]
        assert not shown, f"{len(shown)} secrets were seen"


def secrets_of(host: Host) -> set[str]:
    lines = [line for path in _FILES for line in host.text(path).splitlines()]
    found = passwords_of(host.text(_DATASTORE)) | {
        line.strip() for line in lines if len(line) >= _SHORT and not line.startswith("-----")
    }
    return found | {line.rpartition("::")[2] for line in found if "::" in line}


def passwords_of(datastore: str) -> set[str]:
    """In K3s's endpoint of a database, as it stands there and without the escapes of a URL."""
    found = re.findall("://[^:@]+:(.+)@", datastore)
    return {form for password in found for form in (password, unquote(password))}
