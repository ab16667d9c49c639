"""k3s-bake flash"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bake import cache
from bake.card import choice, order, receipt
from bake.card.devices import Judged, Verdict
from bake.card.flash import Interrupted
from bake.card.source import Source
from firstboot.errors import UserError
from k3s_bake import flashing, report
from k3s_bake import labels as card_labels
from k3s_bake.cli.values import address_values
from k3s_bake.flashing import Order, Result


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("cards", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CARD...")
@click.option("--name", multiple=True, help="Of the node that a card becomes. Repeat, once for each card.")
@click.option("--address", help="Static address with prefix, of a single card: 10.0.0.3/24.")
@click.option("--gateway", help="For --address.")
@click.option("--dns", multiple=True, help="For --address. Repeat for more.")
@click.option("--interface", help="For --address.  [default: eth0]")
@click.option(
    "--again", is_flag=True, help="Take a name that an earlier card has: it is gone, or is this one."
)
@click.option(
    "--stamp/--no-stamp", default=True, help="Give each card its own name and credential.  [default: give]"
)
@click.option(
    "--bmap/--no-bmap", default=True, help="Leave out free blocks, by the image's block map.  [default: do]"
)
@click.option("--yes", is_flag=True, help="Do not ask, where it is plain that it is a card.")
@click.option("--force", is_flag=True, help="Write also what may be no card; replace a file.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Folder for a label of each card: text and SVG."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def flash(
    image: Path,
    cards: tuple[Path, ...],
    name: tuple[str, ...],
    again: bool,
    stamp: bool,
    bmap: bool,
    yes: bool,
    force: bool,
    labels: Path | None,
    as_json: bool,
    **address: Any,
) -> int:
    """Write IMAGE to each CARD, all at once, read it back, and make each card a node of its own.

    CARD is a device that 'k3s-bake cards' lists, or a new file, to look at what a card would hold. The image
    may be packed (.xz, .gz, .zst, .zip). Without --name, cards are numbered: home-worker-1, home-worker-2.

    Before all of it is written and read back nothing boots from a card. Only opening the devices may take
    sudo, which is asked for then: do not run all of this as root.

    Exits with 1 where a card failed; the others are good then.

    \b
    Examples:
      k3s-bake flash home-worker.img /dev/sdX
      k3s-bake flash home-worker.img /dev/sdX /dev/sdY --name w1 --name w2
      k3s-bake flash home-worker.img /dev/sdX --name w3 --address 10.0.0.13/24 --gateway 10.0.0.1
      k3s-bake flash home-worker.img card.img --name w1
    """
    _refuse_root()
    home = cache.home()
    source = Source(image, use_map=bmap)
    what = order.stampable(source)
    given = address_values(address)
    more = asdict(given["address"]) if given else {}
    if (name or more) and stamp:
        order.require(what, source)
    if not stamp:
        if name or more:
            raise UserError("--no-stamp gives a card no name", "Leave one of them out.")
        what = None
    if more and len(cards) > 1:
        raise UserError("--address is for one card", "Flash them one after the other.")
    named = (
        order.names(what, name, len(cards), receipt.history(home), again=again) if what else [""] * len(cards)
    )
    say = report.console(stderr=True).print
    wanted = Order(source, what, cards, named, home, lambda line: say(report.shown(line)), more, force)
    chosen = flashing.look(wanted)
    if what:
        order.cluster_of(what, home, wanted.say)
    _ask(wanted, chosen, yes)
    results = flashing.write(wanted, chosen)
    _show(results, wanted, labels, as_json)
    codes = [result.error.exit_code for result in results if result.error]
    return max(codes, default=0) if Interrupted.exit_code in codes else min(1, len(codes))


def _refuse_root() -> None:
    """The cluster's keys are in the home of a person, not of root."""
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "0") != "0" and "K3S_BAKE_HOME" not in os.environ:
        raise UserError(
            "flash does not run as root: the cluster's keys are in your own home",
            "Run it without sudo: it asks for what it needs to open the cards.",
        )


def _ask(wanted: Order, chosen: Sequence[Judged], yes: bool) -> None:
    """UserError where nobody is there to be asked, click.Abort where it is not wanted."""
    if not chosen:
        return
    _print_cards(wanted, chosen)
    doubtful = [one for one in chosen if one.verdict is Verdict.DOUBTFUL]
    if doubtful and not wanted.force:
        _ask_for_names(doubtful)
        return
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody is there to be asked", "--yes writes without asking.")
    click.confirm(f"Erase {'it' if len(chosen) == 1 else 'them'}?", abort=True, err=True)


def _ask_for_names(doubtful: Sequence[Judged]) -> None:
    for one in doubtful:
        if not sys.stdin.isatty():
            raise UserError(
                f"{one.device.path} may be no card: {'; '.join(one.reasons)}",
                "--force writes it all the same.",
            )
        typed = click.prompt(
            f"{one.device.path} may be no card. Type {one.device.name} to erase it", err=True
        )
        if typed.strip() != one.device.name:
            raise click.Abort


def _print_cards(wanted: Order, chosen: Sequence[Judged]) -> None:
    table = report.table("device", "size", "what", "on it", "becomes", "doubts")
    names = dict(zip(wanted.paths, wanted.names, strict=True))
    for path, one in zip(wanted.devices, chosen, strict=True):
        cells = [
            *choice.words(one.device).values(),
            names[path] or wanted.source.path.name,
            "; ".join(one.reasons),
        ]
        table.add_row(*map(report.shown, cells))
    report.console(stderr=True).print(table)


def _show(results: Sequence[Result], wanted: Order, folder: Path | None, as_json: bool) -> None:
    if folder:
        card_labels.write(folder, [result.receipt for result in results if result.receipt])
    if as_json:
        click.echo(json.dumps([_data(result) for result in results], indent=2))
        return
    console = report.console()
    for result in results:
        if result.error:
            console.print(f"[red]{report.shown(result.path)}: {report.shown(result.error.message)}[/]")
            console.print(f"  [bold]hint:[/] {report.shown(result.error.hint)}")
        elif result.receipt:
            what = (
                f"is {result.name}, a {result.receipt.role} of {result.receipt.cluster}"
                if result.name
                else "is written"
            )
            seconds = sum(result.receipt.seconds.values())
            console.print(f"{report.shown(result.path)} {what}: written and read back in {seconds:.1f} s")
    if wanted.devices and not any(result.error for result in results):
        console.print("Next: put them into their Pis, power these, and watch: k3s-bake nodes --watch")


def _data(result: Result) -> dict[str, Any]:
    error = result.error
    return {
        "device": str(result.path),
        "name": result.name,
        "error": error.message if error else "",
        "hint": error.hint if error else "",
        "receipt": asdict(result.receipt) if result.receipt else None,
    }
