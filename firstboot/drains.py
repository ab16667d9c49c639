"""On a master: nodes whose pods go elsewhere, side by side. Each begins at once, and is asked after.

Runs on the node: Python 3.7, standard library only.
"""

import threading
from typing import Any, Dict, List, Sequence, Tuple

from firstboot import kubernetes
from firstboot.kubernetes import Drained


class Drains:
    def __init__(self) -> None:
        self._begun: Dict[str, Tuple[threading.Thread, List[Drained]]] = {}

    def cordon(self, names: Sequence[str]) -> Dict[str, Any]:
        """Before the first is drained: or its pods went to one that is about to be."""
        return {"done": kubernetes.cordon(names)}

    def begin(self, name: str) -> Dict[str, Any]:
        told: List[Drained] = []
        # Nobody waits for it where the operator goes away: kubectl ends by itself.
        thread = threading.Thread(target=lambda: told.append(kubernetes.drain(name)), daemon=True)
        self._begun[name] = (thread, told)
        thread.start()
        return {}

    def ended(self, name: str) -> Dict[str, Any]:
        """``ended``, and then what kubernetes.Drained has."""
        thread, told = self._begun[name]
        if thread.is_alive():
            return {"ended": False}
        return {"ended": True, **(told[0] if told else Drained(False))._asdict()}
