"""What became of a fleet, for people and programs: states, times, pings. No secret gets here."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bake import manifest
from bake.cache import writing
from k3s_bake import report
from k3s_bake.adopt import Outcome

READY = {True: "Ready", False: "NotReady", None: ""}
"""As Kubernetes calls it."""

_LOGS = 100
"""Runs whose logs are kept."""

_COLOURS = {"joined": "green", "fit": "green", "failed": "red", "pending": "yellow"}


def table(outcomes: Sequence[Outcome]) -> Table:
    """A row a node: how far it is, how long it took, what was changed."""
    made = report.table("node", "role", "login", "state", "kubernetes", "config", "install", "changes")
    for one in outcomes:
        colour = _COLOURS.get(one.phase, "yellow")
        state = one.phase + (f" ({one.reason})" if one.reason else "")
        made.add_row(
            report.shown(one.name or "?"),
            one.candidate.role.value,
            report.shown(one.candidate.login),
            f"[{colour}]{report.shown(state)}[/]",
            READY[one.ready],
            seconds(one.conf),
            seconds(one.inst),
            changes(one),
        )
    return made


def progress(outcomes: Sequence[Outcome]) -> Table:
    """A row a node that is on its way: its phase, for how long, and what was sent to it."""
    made = report.table("node", "login", "phase", "since", "sent")
    for one in outcomes:
        colour = _COLOURS.get(one.phase, "cyan")
        reason = one.error or one.reason
        state = one.phase + (f" ({reason})" if reason else "")
        made.add_row(
            report.shown(one.name or "?"),
            report.shown(one.candidate.login),
            f"[{colour}]{report.shown(state)}[/]",
            "" if one.phase in ("joined", "fit", "failed") else f"{one.lasts:.0f} s",
            f"{one.sent / 1e6:.0f} MB" if one.sent else "",
        )
    return made


def pings(outcomes: Sequence[Outcome]) -> Table | None:
    """Milliseconds from each node (rows) to each other; None where nobody pinged."""
    named = [one for one in outcomes if one.pings]
    if not named:
        return None
    made = report.table("ping (ms)", *(report.shown(one.name) for one in named))
    for one in named:
        row = ["-" if other is one else milliseconds(one.pings.get(other.name)) for other in named]
        made.add_row(report.shown(one.name), *row)
    return made


def troubles(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each thing that a person should know, what failed first."""
    lines = []
    for one in outcomes:
        who = f"{one.name} ({one.candidate.login})" if one.name else str(one.candidate.login)
        if one.error:
            lines.append(f"{who}: {one.error}" + (f"\n    {one.hint}" if one.hint else ""))
        stopped = {one.error}
        notes = [f"{each.message}: {each.remedy}" for each in one.problems if each.message not in stopped]
        notes += [f"'{command}' failed: {complaint}" for command, complaint in one.failed]
        notes += [f"{', '.join(one.pending)} takes effect at the next boot"] if one.pending else []
        lines += [f"{who}: {note}" for note in notes]
    return lines


def common(one: Outcome) -> dict[str, Any]:
    """What every command that acts on nodes says of each in JSON. docs/adopting.md explains it."""
    return {
        "name": one.name,
        "role": one.candidate.role.value,
        "login": str(one.candidate.login),
        "address": one.address,
        "phase": one.phase,
        "reason": one.reason,
        "error": one.error,
        "hint": one.hint,
        "code": one.code,
        "ready": one.ready,
    }


def data(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            **common(one),
            "configuration_seconds": _rounded(one.conf),
            "installation_seconds": _rounded(one.inst),
            "changes": manifest.steps(one.plan) if one.plan else None,
            "problems": [{"code": p.code, "message": p.message, "remedy": p.remedy} for p in one.problems],
            "failed_commands": [{"command": command, "said": said} for command, said in one.failed],
            "pending": list(one.pending),
            "ping_ms": one.pings,
            "timeline": [{"seconds": round(at, 3), "phase": phase} for at, phase in one.timeline],
        }
        for one in outcomes
    ]


def as_json(outcomes: Sequence[Outcome]) -> str:
    """A list with a line for each, which grep finds by its name. (Spaces to make it pretty take as long to
    write as half of the plan to make.)"""
    return "[\n" + ",\n".join(map(json.dumps, data(outcomes))) + "\n]\n"


class Lines:
    """How far each node is, a line at each change: on standard error, and in a file of this run's own."""

    def __init__(self, log: Path, *, quiet: bool = False) -> None:
        """UserError and WorkFailed where ``log`` cannot be made. ``quiet``: nothing on standard error."""
        with writing(log):
            log.touch(0o600)
            for old in sorted(log.parent.glob("*.log"))[:-_LOGS]:  # their names begin with the day
                old.unlink(missing_ok=True)
        self.log: Path | None = log
        """None as soon as it cannot be written any more: that stops no work."""
        self.quiet = quiet
        self._began = time.monotonic()

    def told(self, one: Outcome) -> None:
        state = one.phase + (f" ({one.reason})" if one.reason else "")
        line = f"[{time.monotonic() - self._began:6.1f} s] {one.candidate.login}: {state}\n"
        if not self.quiet:
            sys.stderr.write(report.plain(line))
        self._keep(line)

    def end(self, outcomes: Sequence[Outcome]) -> None:
        """What became of each, with all that was changed."""
        self._keep(as_json(outcomes))

    def _keep(self, text: str) -> None:
        if self.log is None:
            return
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            sys.stderr.write(f"{self.log} is not written any more: {error.strerror}\n")
            self.log = None


def changes(one: Outcome) -> str:
    if one.plan is None:
        return ""
    return str(len(one.plan.steps)) if one.plan.steps else "none"


def seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def milliseconds(took: float | None) -> str:
    return "lost" if took is None else f"{took:.2f}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
