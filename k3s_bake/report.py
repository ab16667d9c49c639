"""Plans and results for people: tables and diffs. Secrets never get here: they are shown as such."""

import difflib
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from bake.inspection import Inspection
from bake.manifest import hides
from bake.node import CONCERNS, Plan, Step
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.snapshot import File, Node, Symlink


def console(*, stderr: bool = False) -> Console:
    """The console that all output goes through; colours only in a terminal, as NO_COLOR says."""
    return _Console(stderr=stderr, soft_wrap=True, emoji=False, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for the one place that ends the program


def shown(text: object) -> str:
    """Text from an image or a person, safe in a terminal and in rich's markup: no control character acts."""
    return escape(plain(text))


def plain(text: object) -> str:
    """The same for what goes out without rich, which takes milliseconds for each line."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in str(text))


def plan_table(plan: Plan) -> Table:
    """A row an edit, grouped by concern, notes included."""
    made = table("concern", "change", "path")
    for concern in CONCERNS:
        name = concern.name
        for step in plan.steps:
            if step.concern == concern.name:
                made.add_row(name, _verb(step), shown(step.edit.path))
                name = ""
        for noted, text in plan.notes:
            if noted == concern.name:
                made.add_row(name, "[dim]note[/]", f"[dim]{shown(text)}[/]")
                name = ""
    return made


def timings_table(seconds: Mapping[str, float]) -> Table:
    """A row a part of the work; parts that ran at once each count in full."""
    made = table("part", "seconds")
    for part, took in seconds.items():
        made.add_row(part, f"{took:.3f}")
    return made


def diff(step: Step) -> str:
    """One edit as a unified diff where it is text, else in a line."""
    edit, before = step.edit, step.before
    if isinstance(edit, Write) and not edit.secret and not hides(step):
        old = before.content if isinstance(before, File) and before.content is not None else b""
        lines = difflib.unified_diff(
            _lines(old), _lines(edit.content), f"a{edit.path}" if before else "/dev/null", f"b{edit.path}"
        )
        text = "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        )
        return text + _access(edit, before)
    return f"{_verb(step)} {_described(edit)}{_was(before)}\n"


def inspection_table(inspection: Inspection) -> Table:
    """A row a concern: met, or each thing that is missing."""
    made = table("concern", "state", "what")
    for name, missing in inspection.missing.items():
        if not missing:
            made.add_row(name, "[green]met[/]", "")
        for at, step in enumerate(missing):
            made.add_row("" if at else name, "" if at else "[red]missing[/]", shown(_lack(step)))
    return made


def table(*names: str) -> Table:
    """Paths are folded where a terminal is narrow, never cut."""
    return Table(*(Column(name, overflow="fold") for name in names), box=None, pad_edge=False)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines(keepends=True)


def _verb(step: Step) -> str:
    if isinstance(step.edit, Remove):
        return "remove"
    verb = {Write: "write", Place: "place", Link: "link"}[type(step.edit)]
    return verb if step.before is None else f"{verb} over" if isinstance(step.edit, Place) else "change"


def _described(edit: Edit) -> str:
    if isinstance(edit, Link):
        return f"{edit.path} -> {edit.target}"
    if isinstance(edit, Place):
        return f"{edit.path} {edit.mode:04o} ({edit.size / 1e6:.1f} MB, sha256 {edit.sha256[:12]}...)"
    if isinstance(edit, Write):
        return f"{edit.path} {edit.mode:04o} (secret, or replaces one: not shown)"
    return edit.path


def _was(before: Node | None) -> str:
    return f" (was a link to {before.target})" if isinstance(before, Symlink) else ""


def _access(edit: Write, before: Node | None) -> str:
    """A line where only, or also, mode and owner change."""
    if not isinstance(before, File) or before.mode is None:
        return ""
    was, will = (before.mode, before.owner, before.group), (edit.mode, edit.owner, edit.group)
    if was == will:
        return ""
    return "{}: mode {:04o} {}:{} -> {:04o} {}:{}\n".format(edit.path, *was, *will)


def _lack(step: Step) -> str:
    edit = step.edit
    if isinstance(edit, Remove):
        return f"{edit.path} should not be there"
    if step.before is None:
        return f"{edit.path} is missing"
    if isinstance(edit, Link):
        return f"{edit.path} does not lead to {edit.target}"
    return f"{edit.path} differs"
