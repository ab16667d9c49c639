"""What a person sees of a node: a file on the card's FAT, the login banner, a line on the console; and the
node's memory over power cuts.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, List, Mapping

from firstboot.contract import PHASES, REASONS, STATE, STATUS_BYTES, Announcement, is_address, is_label
from firstboot.edits import Write
from firstboot.errors import UserError, WorkFailed
from firstboot.join import Memory
from firstboot.tree import FolderTree

ISSUE = "/etc/issue"
"""Shown before the login. One file: Buster's agetty has no issue.d."""

_MARK = "k3s-bake: "
_MOST = 64 << 10


def line_of(name: str, phase: str, reason: str) -> str:
    """For the console, and for ``k3s-bake boot``, which reads it there."""
    return f"{_MARK}{name or '?'}: {phase}" + (f" ({reason})" if reason else "")


def text_of(said: Announcement, server: str) -> str:
    """For a person who pulls the card, or stands before the screen."""
    lines = [
        f"{said.name}, a {said.role} of the cluster {said.cluster}",
        f"phase          {said.phase}" + (f" ({said.reason})" if said.reason else ""),
    ]
    if said.reason:
        lines.append(f"               {REASONS[said.reason]}")
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(said.since))
    values = {
        "since": when,
        "address": said.addr,
        "serial number": said.serial,
        "master": server,
        "K3s": said.k3s,
        "configuration": said.conf and f"{said.conf} s",
        "installation": said.inst and f"{said.inst} s",
    }
    lines += [f"{key:14} {value}" for key, value in values.items() if value]
    return "".join(f"{line}\n" for line in lines)


def overwrite(path: Path, text: str) -> None:
    """In place, STATUS_BYTES long: on FAT a rename does not survive a power cut, and cards are stamped there.

    OSError where there is no such place.
    """
    data = text.encode("ascii", "replace")[: STATUS_BYTES - 1].ljust(STATUS_BYTES - 1) + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(handle)


def banner(issue: str, text: str) -> str:
    """/etc/issue with our lines in the place of earlier ones."""
    kept: List[str] = [line for line in issue.splitlines() if not line.startswith(_MARK)]
    while kept and not kept[-1].strip():
        kept.pop()
    plain = text.replace("\\", "/")  # a backslash would be a command to agetty
    return "\n".join([*kept, "", *(_MARK + line for line in plain.splitlines()), "", ""])


def tell(root: str, boot: str, path: str, said: Announcement, server: str) -> List[str]:
    """Leave the text on the FAT (``path`` in the folder ``boot``) and the banner: what could not be written.

    A card that takes no more writes must not stop a node that works.
    """
    text, failures = text_of(said, server), []
    try:
        overwrite(Path(root, boot.lstrip("/"), path), text)
    except OSError as error:
        failures.append(f"{boot}/{path}: {error.strerror}")
    try:
        with Path(root, ISSUE.lstrip("/")).open(encoding="utf-8", errors="surrogateescape") as stream:
            before = stream.read(_MOST)
    except OSError:
        before = ""
    after = banner(before, text)
    if after != before:
        try:
            FolderTree(root).apply([Write(ISSUE, after.encode("utf-8", "surrogateescape"))])
        except (UserError, WorkFailed) as error:
            failures.append(str(error))
    return failures


def memory_file(memory: Memory) -> Write:
    """What ``remembered`` reads."""
    text = json.dumps(asdict(memory), indent=2) + "\n"
    return Write(STATE, text.encode())


def remembered(root: str) -> Memory:
    """What an earlier run left; nothing where that is missing, cut off or garbled."""
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
        with Path(root, STATE.lstrip("/")).open("rb") as stream:
            found: Any = json.loads(stream.read(_MOST).decode("utf-8"))
        if isinstance(found, dict) and _is_sound(found):
            return Memory(**found)
    return Memory()


def _is_sound(found: Mapping[str, Any]) -> bool:
    kinds = {key: type(value) for key, value in asdict(Memory()).items()}
    return (
        {key: type(value) for key, value in found.items()} == kinds
        and found["phase"] in PHASES
        and found["reason"] in ("", *REASONS)
        and (not found["name"] or is_label(found["name"]))
        and (not found["address"] or is_address(found["address"]))
    )
