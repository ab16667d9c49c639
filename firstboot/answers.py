"""What a master answers to whom: the verbs of its join service, carried out as root.

Runs on the node: Python 3.7, standard library only.
"""

import re
import socket
import time
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    List,
    Mapping,
    Optional,
    Set,
    Tuple,
)

from firstboot import kubernetes, revocations
from firstboot.asker import Asker, Refused, texts
from firstboot.contract import MASTER, OPERATOR, WORKER, is_label
from firstboot.kept import Kept
from firstboot.kubernetes import KubernetesNode
from firstboot.registry import Registry, is_serial

_REUSED = 600.0
"""Seconds for which one token is handed out: a hundred cards may ask at once. It is good for an hour."""

_SEEN = 3.0
"""Seconds for which what Kubernetes said holds, its silence, too."""

_VERSION = 60.0
"""Seconds for which K3s's version holds: it may be updated while this runs."""

_PATIENCE = 20.0
"""Seconds that an asker may wait for K3s, which takes a minute to start on a Pi: asked again later, it would
have been ready for some time."""

_WAITING = 4
"""Askers who wait: each is a login, of some 10 MB. Who finds no place asks again."""

_LINE = re.compile(r"(?:serial: [0-9]{1,20}|id: [!-~]{1,80})(?: # [!-~]{1,80})?")

Answer = Dict[str, Any]


class Answers:
    """One for all who ask, at once or not."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._registry = Registry(root)
        self._version = Kept(lambda: kubernetes.version() or None, _VERSION, _SEEN)
        self._nodes = Kept(kubernetes.nodes, _SEEN, _SEEN)
        self._token = Kept(self._new_token, _REUSED, _SEEN)
        self._up = Kept(lambda: kubernetes.is_up() or None, _SEEN, 0.3)
        self._waiting: Set[str] = set()
        self._minted: List[str] = []
        self._verbs: Dict[str, Callable[[Asker, Mapping[str, Any]], Answer]] = {
            "hand-out": self._hand_out,
            "status": self._status,
            "rejoin": self._rejoin,
            "kubeconfig": self._kubeconfig,
            "revoke": self._revoke,
            "release": self._release,
        }

    def answer(self, verb: str, asker: Asker, request: Mapping[str, Any]) -> Answer:
        """A refusal is an answer: ``{"error": code}``."""
        try:
            allowed = VERBS.get(verb, frozenset())
            if not asker.principals & allowed:
                raise Refused("not-allowed")
            # sshd looks when a connection begins, and that may be long ago.
            if asker.certificate and revocations.refuses(asker.certificate, self._root):
                raise Refused("credential-refused")
            return self._verbs[verb](asker, request)
        except Refused as refusal:
            return {"error": refusal.reason, **refusal.more}

    # for nodes

    def _hand_out(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        name, serial = _identity(asker, request)
        role = request.get("role")
        if role not in ("worker", "master"):
            raise Refused("bad-answer")
        if role == "master" and MASTER not in asker.principals:
            raise Refused("not-allowed")
        self._wait_for_k3s(name)
        server_token = kubernetes.server_token()
        if server_token is None:
            raise Refused("not-ready")
        ours = self._version.get() or ""
        if _is_newer(str(request.get("k3s", "")), ours):
            raise Refused("newer-than-master")
        token = server_token if role == "master" else self._token.get()
        if token is None:
            raise Refused("not-ready")
        if name == socket.gethostname() or not self._registry.admit(name, serial, asker.has_card):
            raise Refused("name-taken")
        agents = {"agent_token": kubernetes.agent_password() or ""} if role == "master" else {}
        return {"token": token, **agents, **self._here(asker, server_token)}

    def _status(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        if OPERATOR in asker.principals:
            return self._all_nodes()
        name, _ = _identity(asker, request)
        server_token = kubernetes.server_token()
        found = self._nodes.get()
        if server_token is None or found is None:
            raise Refused("not-ready")
        here = [node for node in found if node.name == name]
        return {
            "known": bool(here),
            "ready": any(node.ready for node in here),
            **self._here(asker, server_token),
        }

    def _rejoin(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        name, serial = _identity(asker, request)
        if not self._registry.is_known(name, serial, asker.has_card):
            raise Refused("name-taken")
        self._delete(name)
        return {"done": True}

    def _wait_for_k3s(self, name: str) -> None:
        """Refused where it does not come up; ``waited`` says that the asker need not back off."""
        if self._up.get():
            return
        if name in self._waiting or len(self._waiting) >= _WAITING:
            raise Refused("not-ready")
        self._waiting.add(name)
        try:
            end = time.monotonic() + _PATIENCE
            while not self._up.get():
                if time.monotonic() >= end:
                    raise Refused("not-ready", {"waited": True})
                time.sleep(0.3)
        finally:
            self._waiting.discard(name)

    def _here(self, asker: Asker, server_token: str) -> Answer:
        return {
            "server": kubernetes.url(asker.address),
            "ca": server_token[3:67],
            "k3s": self._version.get() or "",
            "time": int(time.time()),
        }

    # for operators

    def _all_nodes(self) -> Answer:
        found = self._nodes.get()
        if found is None:
            raise Refused("not-ready")
        serials = self._registry.serials()
        nodes = [{**node._asdict(), "serial": serials.get(node.name, "")} for node in found]
        return {"nodes": nodes, "time": int(time.time())}

    def _kubeconfig(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        server = kubernetes.url(asker.address)
        text = kubernetes.kubeconfig(server)
        if text is None:
            raise Refused("not-ready")
        return {"kubeconfig": text, "server": server}

    def _revoke(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        """The list first: whatever else fails, the certificates are refused from now on."""
        lines, names = texts(request.get("lines")), texts(request.get("names"))
        if not all(map(_LINE.fullmatch, lines)) or not all(map(is_label, names)):
            raise Refused("bad-answer")
        revocations.add(lines, self._root)
        self._drop_tokens()
        for name in names:
            self._registry.forget(name)
        failed = [name for name in names if not kubernetes.delete_node(name)]
        self._nodes.drop()
        if failed:
            raise Refused("not-ready")
        return {"done": True}

    def _release(self, asker: Asker, request: Mapping[str, Any]) -> Answer:
        name = request.get("name")
        if not isinstance(name, str) or not is_label(name):
            raise Refused("bad-answer")
        self._delete(name)
        self._registry.forget(name)
        return {"done": True}

    # parts

    def _delete(self, name: str) -> None:
        """A node that is Ready is somebody's."""
        self._nodes.drop()
        found: Optional[List[KubernetesNode]] = self._nodes.get()
        if found is None:
            raise Refused("not-ready")
        if any(node.ready for node in found if node.name == name):
            raise Refused("name-taken")
        if not kubernetes.delete_node(name):
            raise Refused("not-ready")
        self._nodes.drop()

    def _new_token(self) -> Optional[str]:
        """For agents alone: one that expires where K3s can make such, else the agents' own."""
        version = self._version.get()
        server_token = kubernetes.server_token()
        if version is None or server_token is None:
            return None
        if kubernetes.can_create_tokens(version):
            made = kubernetes.create_token(version)
            if made is not None:
                self._minted.append(made.partition("::")[2].partition(".")[0])
            return made
        password = kubernetes.agent_password()
        return password and f"{server_token[:67]}::node:{password}"

    def _drop_tokens(self) -> None:
        """Best effort: they end within the hour anyway."""
        old: List[str] = []

        def take() -> None:
            old.extend(self._minted)
            self._minted.clear()

        self._token.drop(take)
        for identity in old:
            kubernetes.delete_token(identity)


VERBS: Dict[str, FrozenSet[str]] = {
    "hand-out": frozenset((WORKER, MASTER)),
    "status": frozenset((WORKER, MASTER, OPERATOR)),
    "rejoin": frozenset((WORKER, MASTER)),
    "kubeconfig": frozenset((OPERATOR,)),
    "revoke": frozenset((OPERATOR,)),
    "release": frozenset((OPERATOR,)),
}
"""Each verb, and which principals may use it."""


def _identity(asker: Asker, request: Mapping[str, Any]) -> Tuple[str, str]:
    """Name and serial number. A card's own certificate is for its name alone, a golden one for any."""
    name, serial = request.get("name"), request.get("serial")
    if not isinstance(name, str) or not is_label(name) or not is_serial(serial):
        raise Refused("bad-answer")
    if asker.has_card and asker.key_id != name:
        raise Refused("wrong-name")
    return name, str(serial)


def _is_newer(theirs: str, ours: str) -> bool:
    """Kubernetes takes no kubelet newer than its API. Versions that say nothing pass."""
    found, own = kubernetes.numbers(theirs), kubernetes.numbers(ours)
    return found is not None and own is not None and found > own
