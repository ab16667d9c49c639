"""What became of a fleet, as one HTML file that needs no network. No secret gets here."""

import datetime
import itertools
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from bake.render import render
from k3s_bake import fleet_report, report
from k3s_bake.adopt import Outcome

_COLOURS: Mapping[str, str] = {
    "connecting": "#c9d1d9",
    "looking": "#a5d6ff",
    "looked": "#c9d1d9",
    "sending": "#79c0ff",
    "leaving": "#ffc680",
    "changing": "#d2a8ff",
    "rebooting": "#ffa657",
    "asking": "#f2cc60",
    "starting": "#e3b341",
    "joined": "#7ee787",
    "failed": "#ff7b72",
}
_OTHER = "#b1bac4"


def page(outcomes: Sequence[Outcome], cluster: str) -> bytes:
    end = max((one.timeline[-1][0] for one in outcomes if one.timeline), default=0.0) * 1.03 or 1.0
    phases = dict.fromkeys(phase for one in outcomes for _, phase in one.timeline)
    return render(
        "fleet.html.j2",
        title=f"Nodes of the cluster {cluster}",
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=version("k3s-bake"),
        nodes=[_node(one, end) for one in outcomes],
        seconds=end / 1.03,
        legend=[(phase, _COLOURS.get(phase, _OTHER)) for phase in phases],
        pings=_pings([one for one in outcomes if one.pings]),
    )


def _node(one: Outcome, end: float) -> dict[str, Any]:
    kind = {"joined": "well", "failed": "bad"}.get(one.phase, "wait")
    diffs = "".join(report.diff(step) for step in one.plan.steps) if one.plan else ""
    troubles = fleet_report.troubles([one])
    return {
        "name": one.name or str(one.candidate.login),
        "role": one.candidate.role.value,
        "login": str(one.candidate.login),
        "state": one.phase + (f" ({one.reason})" if one.reason else ""),
        "kind": kind,
        "kubernetes": fleet_report.READY[one.ready],
        "conf": fleet_report.seconds(one.conf),
        "inst": fleet_report.seconds(one.inst),
        "changes": fleet_report.changes(one),
        "trouble": " ".join(". ".join(map(str.strip, line.split("\n"))) for line in troubles),
        "parts": list(_parts(one, end)),
        "diff": diffs or "nothing",
    }


def _parts(one: Outcome, end: float) -> list[dict[str, Any]]:
    """What fills its lane of the timeline, in percent of the whole."""
    moments = [*one.timeline, (end, "")]
    return [
        {
            "left": round(start / end * 100, 2),
            "width": round((after - start) / end * 100, 2),
            "phase": phase,
            "title": f"{phase}: {after - start:.1f} s",
            "colour": _COLOURS.get(phase, _OTHER),
        }
        for (start, phase), (after, _) in itertools.pairwise(moments)
    ]


def _pings(named: Sequence[Outcome]) -> dict[str, Any] | None:
    if not named:
        return None
    rows = [
        {
            "name": one.name,
            "cells": [
                "" if other is one else fleet_report.milliseconds(one.pings.get(other.name))
                for other in named
            ],
        }
        for one in named
    ]
    return {"names": [one.name for one in named], "rows": rows}
