"""The first-boot agent: its zip, its unit, what it is told, and what it proves itself with.

The credential lies on the FAT partition, in a file that is there and full-sized from the beginning, so that a
card is given its own by overwriting it. The agent moves it to where only root can read it.
"""

from collections.abc import Iterator

from bake.concerns import Note, record
from bake.facts import NodeFacts
from bake.render import render
from bake.spec import NodeSpec, Role
from firstboot.contract import (
    AGENT,
    CONFIG,
    CREDENTIAL,
    CREDENTIAL_BYTES,
    HOST_CERTIFICATE,
    HOST_KEY,
    JOIN_CERTIFICATE,
    JOIN_KEY,
    KNOWN_HOSTS,
    NAME,
    STATUS,
    STATUS_BYTES,
    UNIT,
    Credential,
    NodeConfig,
    known_hosts,
)
from firstboot.credential import credential_files
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import File, Probe

_UNITS = "/etc/systemd/system"
_UNIT_FILE = f"{_UNITS}/{UNIT}"
_STARTED = f"{_UNITS}/multi-user.target.wants/{UNIT}"
_NEEDED = {"python3": "runs the agent", "openssh-client": "asks the master"}
_BLANK = b" " * (CREDENTIAL_BYTES - 1) + b"\n"

PROBES = (
    Probe(AGENT, "digest"),
    *(Probe(path) for path in (_UNIT_FILE, _STARTED, CONFIG, KNOWN_HOSTS)),
    *(Probe(path, "digest") for path in (JOIN_KEY, HOST_KEY, HOST_CERTIFICATE)),
    Probe(NAME),
    Probe(JOIN_CERTIFICATE),  # no secret: it says until when it is good
    *(Probe(f"/boot{middle}/{path}") for middle in ("", "/*") for path in (CREDENTIAL, STATUS)),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if spec.first_boot is None:
        for path in (_STARTED, _UNIT_FILE, AGENT, CONFIG, KNOWN_HOSTS, _on_card(facts, CREDENTIAL)):
            yield Remove(path)
        return
    for package, what in _NEEDED.items():
        if not facts.has(package):
            raise UserError(
                f"the image has no {package}, which {what}", "Use another base, or --no-agent and --server."
            )
    agent = spec.first_boot.agent
    yield Place(AGENT, agent.sha256, agent.size)
    yield Write(_UNIT_FILE, render("k3s-bake.service.j2"))
    yield Link(_STARTED, _UNIT_FILE)
    yield Write(CONFIG, _config(spec, facts).to_json().encode())
    yield Write(KNOWN_HOSTS, known_hosts(spec.cluster, spec.first_boot.authority).encode())
    yield from _card(spec, facts)


def secrets(facts: NodeFacts) -> Iterator[str]:
    """The files that hold one now."""
    path = _on_card(facts, CREDENTIAL)
    found = facts.found.get(path)
    if isinstance(found, File) and (found.content or b"").strip():
        yield path
    if facts.exists(JOIN_KEY):
        yield JOIN_KEY


def name_of_card(facts: NodeFacts) -> str | None:
    """None where its credential names none, or none is left: the agent has taken it."""
    node = facts.found.get(_on_card(facts, CREDENTIAL))
    credential = Credential.from_bytes(node.content or b"") if isinstance(node, File) else None
    return credential.name if credential else None


def _card(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    credential, status = _on_card(facts, CREDENTIAL), _on_card(facts, STATUS)
    if not _is_full_sized(facts, status, STATUS_BYTES):
        yield Write(status, b" " * (STATUS_BYTES - 1) + b"\n")
    if facts.live:
        if spec.name:  # of one that its card brought along it is the later word
            yield Remove(NAME)
        yield from credential_files(spec.credential or Credential())  # nothing, of a stand-in
    elif facts.exists(JOIN_KEY):
        yield Note(f"{JOIN_KEY} is there: this system has booted and keeps the credential that it has")
    elif spec.credential is not None:
        yield Write(credential, spec.credential.to_bytes(), secret=True)
    else:
        yield Note("without a credential no master lets it in: the card is to be given its own")
        is_ours = "credential" in record.earlier_secrets(facts)
        if is_ours or not _is_full_sized(facts, credential, CREDENTIAL_BYTES):
            yield Write(credential, _BLANK)


def _config(spec: NodeSpec, facts: NodeFacts) -> NodeConfig:
    return NodeConfig(
        cluster=spec.cluster,
        role=spec.role,
        name=spec.name,
        joins=spec.role is Role.WORKER or spec.join,
        master=spec.master,
        boot=facts.boot,
        not_before=_not_before(spec, facts),
        network_manager=facts.network_manager,
    )


def _not_before(spec: NodeSpec, facts: NodeFacts) -> str | None:
    """The later of this bake's day and an earlier bake's: no node goes back behind either."""
    try:
        before = NodeConfig.from_json(facts.text(CONFIG) or "").not_before
    except UserError:
        before = None
    day = spec.not_before.isoformat() if spec.not_before else None
    return max((one for one in (day, before) if one), default=None)


def _is_full_sized(facts: NodeFacts, path: str, size: int) -> bool:
    found = facts.found.get(path)
    return isinstance(found, File) and found.size == size


def _on_card(facts: NodeFacts, path: str) -> str:
    return f"{facts.boot}/{path}"
