"""How a node is that was started: seen here, and as its master says; and what heals it.

K3s's own 'active' says little: an agent with a wrong token is active, too.
Runs on the node: Python 3.7, standard library only.
"""

import time
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from firstboot import join
from firstboot.contract import NodeConfig
from firstboot.join import Memory, Seen
from firstboot.node import Node
from firstboot.token import Grant, NotAnswered, grant_of

Ask = Callable[[str, str, Dict[str, str]], Dict[str, Any]]
"""Address, verb and request to the answer; raises NotAnswered."""

TOLD_AT_LEAST = 600.0
"""Seconds after which Kubernetes is asked although all seems well: a login on the master."""

_REJECTED_AFTER, _ASK_MOST = 10.0, 10.0
"""Seconds: when K3s's log is first looked at, and the longest time between questions while it starts."""


_LOST_MOST = 60.0
"""The longest time between questions of a node that works, to a master that does not answer."""


class Watcher:
    """``memory`` changes where the master's address has."""

    def __init__(
        self,
        node: Node,
        config: NodeConfig,
        memory: Memory,
        me: Dict[str, str],
        ask: Ask,
        masters: Callable[[], Iterator[str]],
        ready_here: Callable[[str], Optional[bool]],
        answers: Callable[[str], bool],
        now: Callable[[], float] = time.monotonic,
        crowd: float = 0.0,
    ) -> None:
        """``masters`` are addresses heard now, ``ready_here`` what this machine's own Kubernetes says.

        ``crowd``: seconds that the master needs to answer all who came together with this node.
        """
        self.memory = memory
        self._node, self._config, self._me = node, config, me
        self._ask, self._masters, self._ready_here, self._answers = ask, masters, ready_here, answers
        self._now = now
        self._crowd = crowd
        self._well = now()
        """When the node was last Ready, or started."""
        self._granted = now()
        self._asked = float("-inf")
        self._ran = False
        self._ready: Optional[bool] = False
        self._reason = ""
        self._rejected: Optional[float] = None

    def look(self) -> Tuple[str, str]:
        """Phase and reason now. Cheap where all is well."""
        running = self._node.is_active(self._config.unit)
        if self._is_due(running):
            self._ready, self._reason = self._state()
            self._asked = self._now()
        self._ran = running
        if self._ready:
            self._well, self._rejected = self._now(), None
        else:
            self._heal()
        starting = not running and self._node.is_starting(self._config.unit)
        rejected, waited = self._rejected is not None, self._now() - self._well
        seen = Seen(running, self._ready, self._reason, rejected, waited, starting)
        return join.watched(seen, self.memory.joined)

    def _is_due(self, running: bool) -> bool:
        since = self._now() - self._asked
        if running and not self._ran:  # K3s has just come up
            return True
        if not self._ready:
            most = _LOST_MOST if self.memory.joined else _ASK_MOST
            return since >= max(self._crowd, min(most, 1.0 + (self._now() - self._well) / 10))
        return since >= TOLD_AT_LEAST or not running or not self._is_in_reach()

    def _is_in_reach(self) -> bool:
        return self._config.role == "master" or self._answers(self.memory.server)

    # Kubernetes' word

    def _state(self) -> Tuple[Optional[bool], str]:
        """Whether it says that the node is Ready; None with a reason where nobody answers."""
        if self._config.role == "master":
            ready = self._ready_here(self.memory.name)
            return ready, "" if ready is not None else "not-ready"
        reason = "no-master"
        for address in self._addresses():
            try:
                answer = self._ask(address, "status", self._me)
            except NotAnswered as failure:
                reason = failure.reason
                continue
            if answer.get("ca") == self.memory.ca:
                ready = answer.get("ready") is True
                self._follow(address, answer, ready)
                return ready, ""
            reason = str(answer.get("error", "other-cluster"))
        return None, reason

    def _addresses(self) -> Iterator[str]:
        """The master that let the node in, then the others; these are listened for only where it fails."""
        tried = [self.memory.address]
        yield self.memory.address
        for address in self._masters():
            if address not in tried:
                tried.append(address)
                yield address

    def _follow(self, address: str, answer: Dict[str, Any], ready: bool) -> None:
        """To where the master is now, if K3s has lost it: one of several masters is no reason to move."""
        server = str(answer.get("server", ""))
        if ready or address == self.memory.address or self._answers(self.memory.server):
            return
        if self._node.point_at(server):
            self.memory = replace(self.memory, address=address, server=server)
            self._node.restart(self._config.unit)

    # what heals

    def _heal(self) -> None:
        waited = self._now() - self._well
        if waited >= _REJECTED_AFTER and self._config.role == "worker":
            self._heal_password()
        if self._now() - self._granted >= join.RENEWED and self._config.joins and self._ready is False:
            self._granted = self._now()
            self._renew()

    def _heal_password(self) -> None:
        """A card that was flashed again comes with another password under its old name."""
        if not self._node.is_rejected(self._config.unit):
            self._rejected = None
            return
        if self._rejected is None:
            self._rejected = self._now()
        if self._now() - self._rejected >= join.PATIENCE:
            self._rejected = self._now()
            try:
                self._ask(self.memory.address, "rejoin", self._me)
            except NotAnswered as failure:
                self._reason = failure.reason

    def _renew(self) -> None:
        """The token may have expired while K3s could not use it."""
        request = {**self._me, "role": self._config.role}
        try:
            grant: Grant = grant_of(self._ask(self.memory.address, "hand-out", request))
        except NotAnswered as failure:
            self._reason = failure.reason
            return
        if grant.ca == self.memory.ca:
            self._node.configure_joining(grant, self.memory.name)
            self._node.restart(self._config.unit)
