"""The node's end of an adoption: requests come in on standard input, answers go out on standard output.

After a ``put`` the file's bytes follow; before the answer to a ``fetch`` others tell how much has come.
Nothing of a request is on a command line, and nothing stays behind but what was asked for. Runs on the node:
Python 3.7, standard library only.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, Sequence

# Carried, what is imported as a module is compiled when it is used, and not before: see firstboot.carried.
from firstboot import (
    arriving,
    clock,
    contract,
    drains,
    edits,
    kubernetes,
    leave,
    machine,
    node,
    reach,
    registry,
)
from firstboot.before import Before
from firstboot.errors import UserError, WorkFailed
from firstboot.programs import run
from firstboot.snapshot import File, Folder, Probe, Symlink
from firstboot.snapshot import Node as Found
from firstboot.tree import FolderTree
from firstboot.wire import receive, send

PARTS = "/var/lib/k3s-bake/parts"
"""Root's alone: large files on their way, by their sha256."""

_PATIENCE = 120.0

Answer = Dict[str, Any]


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Until the input ends."""
    os.umask(0o077)
    session = Session("/", stdin, lambda answer: send(stdout, answer))
    while True:
        request = receive(stdin)
        if request is None:
            return
        send(stdout, session.answer(request))


class Session:
    """The verbs. ``root`` is ``/``, or a test's own folder; ``tell`` sends what goes before an answer."""

    def __init__(self, root: str, stdin: BinaryIO, tell: Callable[[Answer], None] = lambda _: None) -> None:
        self._root = root
        self._stdin = stdin
        self._tell = tell
        modeless = machine.modeless(Path("/proc/mounts").read_text(encoding="utf-8", errors="replace"))
        self._parts = Path(root, PARTS[1:])
        self._tree = FolderTree(root, modeless, parts=str(self._parts))
        self._before = Before(root, self._tree)
        self._drains: Optional[drains.Drains] = None
        self._verbs: Dict[str, Callable[..., Answer]] = {
            "look": self._look,
            "put": self._put,
            "fetch": self._fetch,
            "offer": self._offer,
            "set_clock": self._set_clock,
            "apply": self._apply,
            "state": self._state,
            "nodes": self._nodes,
            "cordon": lambda names: self._draining.cordon(names),
            "drain": lambda name: self._draining.begin(name),
            "drained": lambda name: self._draining.ended(name),
            "forget_node": self._forget_node,
            "ping": self._ping,
            "reach": self._reach,
            "call_all": self._call_all,
            "reboot": self._reboot,
            "undo": self._undo,
            "leave": self._leave,
            "reset": self._reset,
            "begin": self._begin,
        }

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """What went wrong is an answer, too: ``error``, ``hint`` and ``code``."""
        values = dict(request)
        verb = values.pop("verb")
        try:
            return self._verbs[verb](**values)
        except UserError as error:
            return {"error": error.message, "hint": error.hint, "code": error.exit_code}
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
            return {"error": what, "hint": "", "code": WorkFailed.exit_code}

    def _look(self, probes: Sequence[Sequence[str]]) -> Answer:
        found = self._tree.read([Probe(path, read) for path, read in probes])
        nodes = {path: _node(found.get(path)) for path in found}
        packages = nodes.get(machine.PACKAGES, {})
        if packages.get("content"):
            packages["content"] = machine.packages(packages["content"])
        return {"nodes": nodes, "machine": machine.facts(self._root)}

    def _put(self, sha256: str, size: int, offset: int, packed: bool = False) -> Answer:
        """``offset`` -1 asks how many bytes are there already; else the bytes from there on follow.

        ``packed``: in pieces.
        """
        place = Path(self._parts, sha256)
        if offset < 0:
            there = place.stat().st_size if place.is_file() else 0
            return {"offset": there if there <= size else 0}
        arriving.keep(self._stdin, place, sha256, size, offset, packed)
        return {}

    def _fetch(self, url: str, sha256: str, size: int, peer: bool = False) -> Answer:
        from firstboot.fetch import FROM_PEERS, FROM_THE_WEB, fetch

        place = Path(self._parts, sha256)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        patience = FROM_PEERS if peer else FROM_THE_WEB
        try:
            fetch(url, place, sha256, size, lambda came: self._tell({"came": came}), patience)
        except WorkFailed:
            if peer and place.exists():
                place.unlink()  # nobody vouches for what has come: it is not gone on with
            raise
        return {}

    def _offer(self, sha256: str, address: str) -> Answer:
        from firstboot.offer import offer

        return {"port": offer(Path(self._parts, sha256), sha256, address)}

    def _set_clock(self, now: float, joined: bool) -> Answer:
        """To the operator's time, where NTP does not keep it: ``set`` says whether. ``joined``: not back."""
        moment = clock.corrected(time.time(), int(now), joined)
        if moment is None or clock.is_synchronised():
            return {"set": False}
        try:
            clock.set_clock(moment)
        except OSError as error:
            raise WorkFailed(
                f"its clock is wrong, and cannot be set: {error.strerror}", "timedatectl there shows more."
            ) from error
        run(["hwclock", "--systohc"], limit=20)  # it is read at the next boot, where the board has one
        here = node.Node(self._root)
        if here.text(clock.KEPT):  # so is this at the next boot
            here.try_to_write(edits.Write(clock.KEPT, clock.kept(moment)))
        return {"set": True}

    def _apply(
        self,
        changes: Sequence[Mapping[str, Any]],
        first: Sequence[Sequence[str]],
        then: Sequence[Sequence[str]],
        keep: Sequence[str] = (),
        paths: Sequence[str] = (),
        left: Sequence[str] = (),
    ) -> Answer:
        """Edits between commands; those that fail are told, and hold up nothing. Files at ``keep`` stay.

        ``paths`` are what the commands are for, and ``left`` those that only a boot makes good: whoever comes
        after a run that was cut off finds them among the machine's facts.
        """
        wanted = [edits.from_json(change) for change in changes]
        places = {edit.sha256 for edit in wanted if isinstance(edit, edits.Place)}
        failed = _run_all(first)
        kept = [self._copied(path) for path in keep]
        self._before.remember(wanted)
        if paths:
            self._note_unfinished(paths)
        self._tree.apply(wanted, {sha256: str(Path(self._parts, sha256)) for sha256 in places})
        self._drop_parts(kept)
        failed += _run_all(then)
        if paths:
            self._note_unfinished(left)
        return {"failed": failed}

    def _note_unfinished(self, paths: Sequence[str]) -> None:
        place = machine.UNFINISHED
        note = edits.Write(place, json.dumps(list(paths)).encode(), 0o600)
        self._tree.apply([note if paths else edits.Remove(place)])

    def _copied(self, path: str) -> str:
        """The sha256 of a file that is among the parts now; empty where there is none."""
        source = Path(self._root, path[1:])
        if not source.is_file():
            return ""
        sha256 = arriving.sha256_of(source)
        self._tree.apply([edits.Place(f"{PARTS}/{sha256}", sha256, 0, 0o600)], {sha256: str(source)})
        return sha256

    def _drop_parts(self, kept: Sequence[str]) -> None:
        for path in self._parts.glob("*"):
            if path.name not in kept:
                path.unlink()
        if self._parts.is_dir() and not any(self._parts.iterdir()):
            self._parts.rmdir()

    def _state(self, lines: int = 0, unit: str = "") -> Answer:
        """The agent's memory; of a ``unit`` whether it is active, and the last ``lines`` of its log."""
        found = machine.state(self._root) or {}
        keys = ("name", "phase", "reason", "since", "conf", "inst", "server")
        told = {key: found.get(key, "") for key in keys}
        log = machine.log(unit, lines) if lines else []
        active = bool(unit) and node.Node(self._root).is_active(unit)
        return {**told, "boot_id": machine.boot_id(self._root), "active": active, "log": log}

    def _nodes(self) -> Answer:
        found = kubernetes.nodes()
        nodes = None if found is None else [one._asdict() for one in found]
        return {"nodes": nodes, "serials": registry.Registry(self._root).serials()}

    @property
    def _draining(self) -> "drains.Drains":
        if self._drains is None:
            self._drains = drains.Drains()
        return self._drains

    def _forget_node(self, name: str) -> Answer:
        """On a master: another board may have the name."""
        registry.Registry(self._root).forget(name)
        return {"done": kubernetes.delete_node(name)}

    def _ping(self, addresses: Sequence[str]) -> Answer:
        from concurrent.futures import ThreadPoolExecutor  # brings logging along: for who needs it

        with ThreadPoolExecutor(16) as pool:
            return {"milliseconds": dict(zip(addresses, pool.map(machine.ping, addresses)))}

    def _reach(self, **values: Any) -> Answer:
        return reach.try_out(**values)

    def _call_all(self, places: Sequence[Sequence[Any]]) -> Answer:
        return {"failed": reach.call_all([(str(host), int(port)) for host, port in places])}

    def _reboot(self) -> Answer:
        run(["systemctl", "reboot", "--no-block"], limit=20)
        return {}

    def _leave(self) -> Answer:
        """K3s and its agent off and gone, files of ours left where they are."""
        leave.stop()
        leave.remove(self._root)
        return {}

    def _reset(self) -> Answer:
        """As after its bake or adoption, K3s and the agent off."""
        config = contract.NodeConfig.from_json(node.Node(self._root).text(contract.CONFIG))
        self._tree.apply([edits.Write(machine.RESETTING, b"", 0o600)])
        leave.stop(for_good=False)
        leave.clear(self._root, leads=not config.joins)
        return {}

    def _begin(self) -> Answer:
        self._tree.apply([edits.Remove(machine.RESETTING)])
        leave.begin()
        return {}

    def _undo(self) -> Answer:
        """All as it was before the first adoption, as far as nobody has changed it since."""
        if not self._before.is_known():  # never adopted, or back already
            return {"back": [], "left": []}
        leave.stop()
        back, left = self._before.undo()
        leave.remove(self._root)
        self._before.forget()
        self._note_unfinished(())
        node.Node(self._root).set_name(Path(self._root, "etc/hostname").read_text(encoding="utf-8").strip())
        run(["systemctl", "daemon-reload"], limit=60)
        return {"back": back, "left": left}


def _run_all(commands: Sequence[Sequence[str]]) -> List[List[str]]:
    """Those that failed, each with what it said."""
    failed = []
    for command in commands:
        code, _, complaint = run(command, limit=_PATIENCE)
        if code != 0:
            failed.append([" ".join(command), complaint.strip()[-500:]])
    return failed


def _node(found: Optional[Found]) -> Dict[str, Any]:
    """As JSON: ``snapshot_of`` of the operator's side reads it."""
    data: Dict[str, Any] = {"kind": type(found).__name__}
    if isinstance(found, File):
        # Texts, mostly; what is none survives, too, and costs less than all in Base64.
        content = None if found.content is None else found.content.decode("utf-8", "surrogateescape")
        data.update(vars(found), content=content)
    elif isinstance(found, (Folder, Symlink)):
        data.update(vars(found))
    return data
