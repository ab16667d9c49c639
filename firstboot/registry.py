"""Which board has joined under which name: what this master has let in.

Runs on the node: Python 3.7, standard library only.
"""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Dict, Optional

from firstboot.contract import is_label
from firstboot.edits import Write
from firstboot.errors import WorkFailed
from firstboot.tree import FolderTree

PATH = "/var/lib/k3s-bake/nodes.json"

_SERIAL = re.compile(r"[0-9a-zA-Z]{1,64}")
_MOST = 8 << 20
_MOST_NAMES = 5000
"""More nodes than K3s takes: whoever has a credential that many may use cannot fill the disk with names."""


def _is_same(known: Optional[Dict[str, Any]], serial: str, has_card: bool) -> bool:
    if known is None:
        return False
    return bool(known["serial"] == serial) and (has_card or not known.get("card", False))


def is_serial(text: object) -> bool:
    return isinstance(text, str) and bool(_SERIAL.fullmatch(text))


class Registry:
    """In the file PATH below ``root``; one that is empty or garbled counts as absent."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._lock = threading.Lock()

    def is_known(self, name: str, serial: str, has_card: bool) -> bool:
        """Whether the board has this name, and may have it with what it shows."""
        with self._lock:
            return _is_same(self._read().get(name), serial, has_card)

    def serials(self) -> Dict[str, str]:
        with self._lock:
            return {name: entry["serial"] for name, entry in self._read().items()}

    def admit(self, name: str, serial: str, has_card: bool) -> bool:
        """Give the name to the board, for good. False where another one has it, or where it came with a
        certificate of its own and this one, ``has_card`` False, is one that many have.

        WorkFailed where it cannot be written.
        """
        with self._lock:
            every = self._read()
            known = every.get(name)
            if known and (known.get("card", False) or not has_card):
                return _is_same(known, serial, has_card)
            if known and known["serial"] != serial:
                return False
            if len(every) >= _MOST_NAMES:
                raise WorkFailed(
                    f"{len(every)} names have been given away", f"Look at {PATH}: whose are they?"
                )
            every[name] = {"serial": serial, "since": int(time.time()), "card": has_card}
            self._write(every)
            return True

    def forget(self, name: str) -> None:
        with self._lock:
            every = self._read()
            if every.pop(name, None) is not None:
                self._write(every)

    def _read(self) -> Dict[str, Dict[str, Any]]:
        try:
            with Path(self._root, PATH.lstrip("/")).open("rb") as stream:
                found = json.loads(stream.read(_MOST).decode("utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        good = isinstance(found, dict) and all(
            is_label(name) and isinstance(entry, dict) and is_serial(entry.get("serial"))
            for name, entry in found.items()
        )
        return found if good else {}

    def _write(self, every: Dict[str, Dict[str, Any]]) -> None:
        text = json.dumps(every, indent=1, sort_keys=True) + "\n"
        FolderTree(self._root).apply([Write(PATH, text.encode(), 0o600)])
