"""Which certificates a master's join service refuses: a list that only ever grows.

Runs on the node: Python 3.7, standard library only.
"""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Sequence

from firstboot import certificate
from firstboot.contract import AUTHORITY, REVOKED
from firstboot.edits import Write
from firstboot.errors import WorkFailed
from firstboot.programs import run
from firstboot.tree import FolderTree

_lock = threading.Lock()


def add(lines: Sequence[str], root: str = "/") -> None:
    """``serial: 5`` or ``id: name`` each, as ssh-keygen(1) has them under KEY REVOCATION LISTS.

    Added to what is there, so that the lists of two operators make one. sshd never sees half a list.
    WorkFailed where it cannot be made.
    """
    if not lines:
        return
    with _lock, tempfile.TemporaryDirectory(prefix="k3s-bake-") as folder:
        listed, spec = Path(folder, "revoked"), Path(folder, "spec")
        before = _read(Path(root, REVOKED.lstrip("/")))
        listed.write_bytes(before)
        spec.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        update = ["-u"] if before else []
        authority = os.path.join(root, AUTHORITY.lstrip("/"))  # noqa: PTH118 (a word of a command)
        command = ["ssh-keygen", "-q", "-k", *update, "-f", str(listed), "-s", authority, str(spec)]
        code, _, complaint = run(command, limit=30)
        if code != 0:
            raise WorkFailed(f"ssh-keygen makes no list of what is revoked: {complaint.strip()[-200:]}")
        FolderTree(root).apply([Write(REVOKED, listed.read_bytes())])


def refuses(signed: str, root: str = "/") -> bool:
    """Whether a certificate, in OpenSSH's form, has expired or is revoked by now; or nobody can say."""
    try:
        if certificate.read(signed).expires < time.time():
            return True
    except ValueError:
        return True
    listed = Path(root, REVOKED.lstrip("/"))
    if not _read(listed):
        return False
    with tempfile.NamedTemporaryFile(prefix="k3s-bake-", suffix=".pub") as file:
        file.write(f"{signed.strip()}\n".encode())
        file.flush()
        return run(["ssh-keygen", "-Q", "-f", str(listed), file.name], limit=30)[0] != 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
