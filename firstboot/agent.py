"""The agent: from power-on to a node that has joined, and then the one who says how it is.

It only ever waits or goes on: what it cannot do now it tries again; should it fail, systemd starts it anew.
Runs on the node: Python 3.7, standard library only.
"""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from firstboot import board, clock, credential, join, kubernetes, mdns, status, token
from firstboot.contract import (
    CONFIG,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    JOIN_UNIT,
    KNOWN_HOSTS,
    STATUS,
    Announcement,
    NodeConfig,
    seconds_text,
)
from firstboot.edits import Write
from firstboot.join import Ask, Memory, Start, Try, View
from firstboot.node import Node, answers
from firstboot.token import Grant, NotAnswered, Trust
from firstboot.voice import Voice
from firstboot.watcher import Watcher

_HURRIED, _LOST, _CALM = 0.5, 5.0, 30.0
"""Seconds between looks at a node that starts, at one that has lost its master, and at one that is well."""

_KEPT = 40.0
"""Seconds for which what was heard holds: where packets get lost, not each round hears everybody; and it
outlasts a question that nobody answers."""

_LIMIT = 60.0
"""Seconds for an answer: a hundred may ask at once, and a Pi takes half a second for each."""


class Agent:
    def __init__(self, node: Node, config: NodeConfig) -> None:
        self._node = node
        self._config = config
        self._memory = status.remembered(node.root)
        self._board = board.read(node.root)
        self._k3s = node.k3s_version()
        self._began = time.monotonic()
        self._voice = Voice(node)
        self._said: Optional[Announcement] = None
        self._listened = self._crowd = 0.0
        self._heard: Dict[str, Tuple[Announcement, float]] = {}
        self._trust = Trust(config.cluster, JOIN_KEY, JOIN_CERTIFICATE, KNOWN_HOSTS)

    def run(self) -> None:
        """For as long as the node lives."""
        self._check()
        self._set_floor()
        self._become_someone()
        self._serve()
        if not self._config.joins:
            self._node.configure_leading(self._memory.name)
        elif not (self._memory.joined and self._node.is_let_in(self._memory.ca, self._memory.server)):
            was_let_in = bool(self._memory.ca)  # and K3s may run already, with what was true then
            self._join()
            if was_let_in:
                self._node.restart(self._config.unit)
        self._start()
        self._watch()

    def stop(self) -> None:
        self._voice.stop()

    # steps

    def _check(self) -> None:
        self._tell("checking")
        while True:
            self._board = board.read(self._node.root)
            if not self._board.reason:
                return
            self._tell("blocked", self._board.reason)
            time.sleep(_CALM)

    def _set_floor(self) -> None:
        """No certificate is made or looked at in a time before the bake."""
        self._tell("clock")
        floor = clock.floor(self._node.text(clock.KEPT), self._config.not_before)
        if time.time() < floor:
            self._set_clock(floor)

    def _become_someone(self) -> None:
        while not credential.take(self._node, self._config) and self._config.joins:
            self._tell("blocked", "no-credential")
            time.sleep(_CALM)
        name = self._memory.name if self._memory.ca or self._memory.joined else ""
        name = name or board.name_of(self._config, self._node.brought_name(), self._board.serial)
        self._memory = replace(self._memory, name=name)
        self._node.set_name(name)

    def _serve(self) -> None:
        """A master's join service waits for the host key, which has come with the credential."""
        if self._config.role == "master" and self._node.is_master_ready_to_serve():
            self._node.systemctl("start", "--no-block", JOIN_UNIT)

    def _join(self) -> None:
        """Until a master has let the node in."""
        tries: Dict[str, Try] = {}
        while True:
            view = self._view(tries)
            step = join.next_step(view)
            if isinstance(step, Start):
                self._let_in(step, time.monotonic() - tries[step.address].asked)
                return
            if isinstance(step, Ask):
                if self._memory.phase in ("clock", "searching"):
                    self._tell("asking")
                self._crowd = join.crowd(view)
                time.sleep(self._crowd * random.random())  # noqa: S311 (no secret)
                tries.update(self._asked(step, tries))
            else:
                self._tell(step.phase, step.reason)
                self._listen(view, step.seconds)

    def _let_in(self, step: Start, age: float) -> None:
        """``age`` of the grant, in seconds."""
        grant = step.grant
        moment = clock.corrected(time.time(), grant.time + int(age), self._memory.joined)
        if moment is not None:
            self._set_clock(moment)
        self._node.configure_joining(grant, self._memory.name)
        self._memory = replace(self._memory, address=step.address, server=grant.server, ca=grant.ca)

    def _start(self) -> None:
        if not self._memory.conf:
            self._memory = replace(self._memory, conf=seconds_text(time.monotonic() - self._began))
        self._tell("starting")
        self._node.start(self._config.unit)

    # asking

    def _view(self, tries: Dict[str, Try]) -> View:
        now = time.monotonic()
        network = bool(mdns.lan_addresses())
        heard = [one for one, when in self._heard.values() if when > now - _KEPT]
        return View(
            now, self._config, self._memory, self._board.serial, network, heard, tries, self._listened
        )

    def _listen(self, view: View, seconds: float) -> None:
        """A round, which a master ends that can be asked now."""

        def enough(heard: List[Announcement]) -> bool:
            now = replace(view, heard=heard, now=time.monotonic())
            return bool(join.due_of(now, join.candidates(now)))

        begun = time.monotonic()
        heard = mdns.browse(seconds, enough=enough)
        now = time.monotonic()
        self._heard = {key: kept for key, kept in self._heard.items() if kept[1] > now - _KEPT}
        self._heard.update({one.addr: (one, now) for one in heard})
        self._voice.check()
        if not enough(heard):
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
        self._listened += time.monotonic() - begun

    def _asked(self, step: Ask, tries: Mapping[str, Try]) -> Dict[str, Try]:
        def one(address: str) -> Try:
            said = step.masters[address]
            try:
                grant = self._hand_out(address)
            except NotAnswered as failure:
                now, chance = time.monotonic(), random.random()  # noqa: S311 (no secret)
                return join.failed(tries.get(address), said, failure.reason, now, chance, failure.waited)
            return join.granted(said, grant, time.monotonic())

        with ThreadPoolExecutor(len(step.masters)) as pool:
            return dict(zip(step.masters, pool.map(one, step.masters)))

    def _hand_out(self, address: str) -> Grant:
        return token.grant_of(self._ask(address, "hand-out", {**self._me(), "role": self._config.role}))

    def _ask(self, address: str, verb: str, request: Mapping[str, str]) -> Dict[str, Any]:
        return token.ask(address, verb, {**request, "k3s": self._k3s}, self._trust, _LIMIT)

    def _me(self) -> Dict[str, str]:
        return {"name": self._memory.name, "serial": self._board.serial}

    def _masters(self) -> Iterator[str]:
        """Addresses of the cluster's masters that are heard now."""
        self._voice.check()
        heard = mdns.browse(join.ROUND)  # a whole round: the first to speak may be a stranger
        yield from (one.addr for one in heard if self._is_master(one))
        if self._config.master:
            yield self._config.master

    def _is_master(self, one: Announcement) -> bool:
        ours = (one.cluster, one.role) == (self._config.cluster, "master")
        return ours and one.addr not in ("", self._memory.address)

    # after the start

    def _watch(self) -> None:
        started = time.monotonic()
        watcher = Watcher(
            self._node,
            self._config,
            self._memory,
            self._me(),
            self._ask,
            self._masters,
            kubernetes.is_ready,
            answers,
            crowd=self._crowd,
        )
        while True:
            phase, reason = watcher.look()
            if phase == "joined" and not self._memory.joined:
                spent = seconds_text(time.monotonic() - started)
                watcher.memory = replace(watcher.memory, joined=True, inst=spent)
            kept = watcher.memory
            self._memory = replace(self._memory, joined=kept.joined, inst=kept.inst)
            self._memory = replace(self._memory, address=kept.address, server=kept.server)
            self._tell(phase, reason)
            self._voice.check()
            time.sleep(_HURRIED if phase != "joined" else _LOST if reason else _CALM)

    # telling

    def _tell(self, phase: str, reason: str = "") -> None:
        """On the console, in the network, on the card: where it is news."""
        memory = self._memory
        if (phase, reason) != (memory.phase, memory.reason) or not memory.since:
            memory = replace(memory, phase=phase, reason=reason, since=int(time.time()))
        said = self._announcement(memory)
        if memory == self._memory and said == self._said:
            return
        self._memory = memory
        if self._said is None or (said.phase, said.reason) != (self._said.phase, self._said.reason):
            _print(status.line_of(said.name, phase, reason))
        self._said = said
        self._node.try_to_write(status.memory_file(memory))
        for failure in status.tell(self._node.root, self._config.boot, STATUS, said, memory.server):
            _print(failure)
        self._voice.say(said)

    def _announcement(self, memory: Memory) -> Announcement:
        addresses = mdns.lan_addresses()
        name = memory.name or board.name_of(self._config, self._node.brought_name(), self._board.serial)
        return Announcement(
            self._config.cluster,
            self._config.role,
            name,
            memory.phase,
            memory.reason,
            addresses[0] if addresses else "",
            self._board.serial,
            self._k3s,
            memory.since,
            memory.conf,
            memory.inst,
        )

    def _set_clock(self, moment: int) -> None:
        try:
            clock.set_clock(moment)
        except OSError as error:  # a container may not
            _print(f"the clock cannot be set: {error.strerror}")
            return
        if self._node.text(clock.KEPT):  # fake-hwclock itself never goes back, and the power may be cut
            self._node.try_to_write(Write(clock.KEPT, clock.kept(moment)))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (the journal, and the console)


def main() -> int:
    """Until systemd says that it is enough. UserError for a configuration that is not there or garbled."""
    node = Node()
    agent = Agent(node, NodeConfig.from_json(node.text(CONFIG)))

    def end(number: int, frame: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        agent.run()
    finally:
        agent.stop()
    return 0
