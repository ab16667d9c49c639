"""k3s-bake cards"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.live import Live
from rich.table import Table

from bake import cache
from bake.card import found, receipt
from bake.card.devices import Device, Judged, Verdict
from bake.card.receipt import Receipt
from firstboot.errors import UserError
from k3s_bake import report

_COLOURS = {Verdict.CARD: "green", Verdict.DOUBTFUL: "yellow", Verdict.REFUSED: "dim"}
_ORDER = list(Verdict)


@click.command()
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, while cards come and go.")
@click.option("--history", is_flag=True, help="What was written to which card instead, the last one last.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def cards(watch: bool, history: bool, as_json: bool) -> None:
    """List the devices that could be written, and why the others are none. Writes nothing.

    Refused is what is mounted, swapped to, write-protected, or what the system stands on in any way. Doubtful
    is what is large, built in, or has another system on it. A loop device is a card, whatever its size.

    \b
    Examples:
      k3s-bake cards
      k3s-bake cards --watch
      k3s-bake cards --history
      k3s-bake cards --json | jq -r '.[] | select(.verdict == "card") | .path'
    """
    if watch and (history or as_json):
        raise UserError("--watch goes with neither --history nor --json", "Leave one of them out.")
    if history:
        _show_history(receipt.history(cache.home()), as_json)
        return
    if watch:
        _watch()
        return
    judged = found.devices()
    if as_json:
        click.echo(json.dumps([_data(one) for one in judged], indent=2))
        return
    report.console().print(_table(judged))


def _show_history(receipts: Sequence[Receipt], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(one) for one in receipts], indent=2))
        return
    made = report.table("written", "name", "what", "card", "image")
    for one in receipts:
        card = " ".join(filter(None, [one.model, one.serial])) or one.device
        what = f"{one.role} of {one.cluster}" if one.name else ""
        cells = (one.written[:16].replace("T", " "), one.name, what, card, Path(one.image).name)
        made.add_row(*map(report.shown, cells))
    report.console().print(made if receipts else "No card was written from here yet.")


def _watch() -> None:
    try:
        with Live(console=report.console(), auto_refresh=False) as live:
            while True:
                live.update(_table(found.devices()), refresh=True)
                time.sleep(1)
    except KeyboardInterrupt:
        return  # how a watch ends


def _table(judged: Sequence[Judged]) -> Table:
    made = report.table("device", "size", "what", "on it", "card?")
    for one in sorted(judged, key=lambda one: (_ORDER.index(one.verdict), one.device.path)):
        words = f"{one.verdict}" + (f": {'; '.join(one.reasons)}" if one.reasons else "")
        made.add_row(
            report.shown(one.device.path),
            f"{one.device.size / 1e9:.1f} GB",
            report.shown(" ".join(filter(None, [one.device.model, one.device.transport]))),
            report.shown(", ".join(_contents(one.device))),
            f"[{_COLOURS[one.verdict]}]{report.shown(words)}[/]",
        )
    return made


def _contents(device: Device) -> list[str]:
    """File systems on it, with their labels."""
    return [" ".join(filter(None, [one.holds, one.label])) for one in device.all() if one.holds]


def _data(one: Judged) -> dict[str, object]:
    return {**asdict(one.device), "verdict": one.verdict.value, "reasons": list(one.reasons)}
