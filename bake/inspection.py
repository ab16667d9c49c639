"""Is an image a node? The plan for it, empty or not, grouped by concern."""

from dataclasses import dataclass
from pathlib import Path

from bake import disk, engine, spec_json
from bake.concerns import first_boot, k3s, record
from bake.engine import Engine
from bake.facts import facts_of
from bake.node import CONCERNS, PROBES, Step, plan
from bake.progress import Progress
from bake.spec import File, K3s, NodeSpec, Role
from firstboot.edits import Write, same_access
from firstboot.errors import UserError
from firstboot.snapshot import File as FoundFile
from firstboot.snapshot import Snapshot


@dataclass(frozen=True)
class Inspection:
    spec: NodeSpec
    recorded: bool
    """Whether the image says itself what it was made to be; if not, it is held against a plain node."""
    missing: dict[str, tuple[Step, ...]]
    """Each concern by name, with what is left to do for it."""
    notes: tuple[tuple[str, str], ...]
    card: str | None = None
    """What a card is called that was given a name when it was written; None: what the image says."""

    @property
    def name(self) -> str:
        return self.card or self.spec.hostname

    @property
    def met(self) -> bool:
        return not any(self.missing.values())


def inspect(image: Path, role: Role, progress: Progress, wanted: Engine = Engine.AUTO) -> Inspection:
    """Hold an image against its own record, or, without one, against a plain node of that role.

    Writes nothing. UserError for what is no card image.
    """
    if not image.is_file():
        raise UserError(f"there is no image {image}", "inspect takes the path of a raw card image.")
    layout = disk.read_disk(image)
    chosen = engine.choose(wanted, image, layout, progress.say)
    with engine.opened(chosen, image, layout, progress.say, readonly=True) as tree:
        found = tree.read(PROBES)
    return compare(found, role)


def compare(found: Snapshot, role: Role) -> Inspection:
    """The same of what was read already. Pure."""
    text = found.text(record.PATH)
    spec = spec_json.loads(text) if text else _plain(found, role)
    todo = plan(spec, found)
    left = [step for step in todo.steps if not is_there(step)]
    missing = {
        concern.name: tuple(step for step in left if step.concern == concern.name) for concern in CONCERNS
    }
    return Inspection(spec, bool(text), missing, todo.notes, first_boot.name_of_card(facts_of(found)))


def _plain(found: Snapshot, role: Role) -> NodeSpec:
    """A node with whatever K3s is there, since none was asked for."""
    there = found.get(k3s.BINARY)
    sha256 = there.sha256 if isinstance(there, FoundFile) else "0" * 64
    return NodeSpec(role=role, k3s=K3s(File("k3s", sha256, 0)))


def is_there(step: Step) -> bool:
    """A secret's content is not in the record: that its file is there, not empty and private must do."""
    edit, found = step.edit, step.before
    if not (isinstance(edit, Write) and edit.secret and isinstance(found, FoundFile) and found.size):
        return False
    return same_access(edit, found)
