"""k3s-bake flash"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bake import cache, cluster_file
from bake.card import choice, claim, order
from bake.card.devices import Judged, Verdict
from bake.card.flash import Interrupted
from bake.card.source import Source
from bake.card.stamp import Stampable
from bake.cluster_file import ClusterFile
from firstboot.addresses import StaticAddress
from firstboot.errors import UserError
from k3s_bake import flashing, inserting, report
from k3s_bake import labels as card_labels
from k3s_bake.cli.values import address_values
from k3s_bake.flashing import Order, Result


@click.command()
@click.argument("image", type=click.Path(path_type=Path), required=False)
@click.argument("cards", nargs=-1, type=click.Path(path_type=Path, readable=False), metavar="CARD...")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="cluster.toml: a card for each [[node]], as you put them in.",
)
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
    image: Path | None,
    cards: tuple[Path, ...],
    file: Path | None,
    labels: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Write IMAGE to each CARD, all at once, read it back, and make each card a node of its own.

    CARD is a device that 'k3s-bake cards' lists, or a new file, to look at what a card would hold. The image
    may be packed (.xz, .gz, .zst, .zip). Without --name, cards are numbered: home-worker-1, home-worker-2.

    Before all of it is written and read back nothing boots from a card. Only opening the devices may take
    sudo, which is asked for then: do not run all of this as root.

    With --file it asks for one card after the other, for each node that has none yet: from the images named,
    or from those that 'k3s-bake image' has made in this folder.

    Exits with 1 where a card failed; the others are good then.

    \b
    Examples:
      k3s-bake flash home-worker.img /dev/sdX
      k3s-bake flash home-worker.img /dev/sdX /dev/sdY --name w1 --name w2
      k3s-bake flash home-worker.img /dev/sdX --name w3 --address 10.0.0.13/24 --gateway 10.0.0.1
      k3s-bake flash home-worker.img card.img --name w1
      k3s-bake flash --file cluster.toml
    """
    _refuse_root()
    if labels:
        card_labels.make_folder(labels)
    if file:
        paths = [path for path in (image, *cards) if path]
        results = _by_file(cluster_file.load(file), paths, given)
    elif image is None or not cards:
        raise UserError("which image, and to which card?", "Like: k3s-bake flash home-worker.img /dev/sdX")
    else:
        results = iter(_by_name(image, cards, given))
    return _finish(results, labels, as_json)


def _finish(results: Iterator[Result], labels: Path | None, as_json: bool) -> int:
    """Tell each as soon as it is known; the exit code. Ctrl-C ends it, and what is done by then is told."""
    every: list[Result] = []
    interrupted = False
    try:
        for result in results:
            every.append(result)
            if not as_json:
                _show(result)
    except KeyboardInterrupt:
        interrupted = True
        _say("interrupted; the cards that are done are good.")
    if labels:
        card_labels.write(labels, [result.receipt for result in every if result.receipt])
    if as_json:
        click.echo(json.dumps([_data(result) for result in every], indent=2))
    elif any(one.receipt and one.receipt.name and one.path.is_block_device() for one in every):
        _say("Next: put the cards into their Pis, power these, and watch: k3s-bake nodes --watch")
    codes = [result.error.exit_code for result in every if result.error]
    if interrupted or Interrupted.exit_code in codes:
        return Interrupted.exit_code
    # With --file a card that failed is followed by another for the same node.
    failed = {result.name or result.path for result in every if result.error}
    return 1 if failed - {result.name for result in every if result.receipt} else 0


def _by_file(file: ClusterFile, images: Sequence[Path], given: Mapping[str, Any]) -> Iterator[Result]:
    if given["name"] or address_values(given):
        hint = "Leave such options out with --file."
        raise UserError("the file names the nodes, and their addresses", hint)
    if given["force"] or not given["stamp"]:
        raise UserError(
            "--force and --no-stamp do not go with --file", "It takes plain cards, and stamps each."
        )
    if any(path.is_block_device() for path in images):
        raise UserError("with --file the cards are asked for", "Name images alone, or none.")
    if not given["yes"]:
        _require_person()
    home, planned = cache.home(), inserting.plan(file, images, use_map=given["bmap"])
    order.cluster_of(planned[0].what, home, _say)
    return inserting.go(planned, home, None if given["yes"] else _confirm, again=given["again"])


def _by_name(image: Path, cards: Sequence[Path], given: Mapping[str, Any]) -> list[Result]:
    home, source = cache.home(), Source(image, use_map=given["bmap"], say=_say)
    address = address_values(given).get("address")
    what = _stampable(source, given, address)
    if address and len(cards) > 1:
        raise UserError(
            "--address is for one card", "Flash them one after the other, or --file cluster.toml."
        )
    for card in cards:
        _check_path(card)
    with ExitStack() as stack:
        names: Sequence[str] = [""] * len(cards)
        if what:
            wanted = order.check_names(what, given["name"], len(cards))
            order.cluster_of(what, home, _say)
            names = stack.enter_context(claim.names(what, wanted, len(cards), home, again=given["again"]))
        more = asdict(address) if address else {}
        made = Order(source, what, cards, names, home, _say, more, given["force"])
        chosen = flashing.look(made)
        _ask(made, chosen, given["yes"])
        return flashing.write(made, chosen)


def _check_path(card: Path) -> None:
    try:
        card.stat()
    except FileNotFoundError:
        if Path("/dev", card).is_block_device():
            raise UserError(
                f"{card} is not there, and /dev/{card} is a device", f"Do you mean /dev/{card}?"
            ) from None
    except OSError as error:
        raise UserError(
            f"{str(card)[:80]}: {error.strerror}", "'k3s-bake cards' lists the cards there are."
        ) from error


def _stampable(source: Source, given: Mapping[str, Any], address: StaticAddress | None) -> Stampable | None:
    if not given["stamp"]:
        if given["name"] or address:
            raise UserError("--no-stamp gives a card no name and no address", "Leave one of them out.")
        return None
    what = order.stampable(source)
    if given["name"] or address:
        order.require(what, source, address)
    if what is None:
        _say(f"{source.path} has no place for a name and a credential: it is written as it is.")
    return what


def _say(line: str) -> None:
    report.console(stderr=True).print(report.shown(line))


def _confirm(question: str) -> bool:
    """UserError where nobody is there to be asked."""
    _require_person()
    try:
        return click.confirm(question, err=True)
    except click.Abort as error:  # Ctrl-C, or the end of the input
        raise _Declined("nothing was written to it") from error


def _require_person() -> None:
    if not sys.stdin.isatty():
        raise UserError("nobody is there to be asked", "--yes writes without asking.")


class _Declined(UserError):
    """By the person who was asked."""

    exit_code = Interrupted.exit_code


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
    if not _confirm(f"Erase {'it' if len(chosen) == 1 else 'them'}?"):
        raise _Declined("nothing was written")


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
            raise _Declined("nothing was written", f"{typed.strip()} is not {one.device.name}.")


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


def _show(result: Result) -> None:
    console, path = report.console(), report.shown(result.path)
    if result.error:
        console.print(f"[red]{path}: {report.shown(result.error.message)}[/]")
        console.print(f"  [bold]hint:[/] {report.shown(result.error.hint)}")
    elif result.receipt:
        made = result.receipt
        what = f" is {made.name}, a {made.role} of {made.cluster}" if made.name else ""
        console.print(f"{path}{what}: written and read back in {sum(made.seconds.values()):.1f} s")


def _data(result: Result) -> dict[str, Any]:
    error = result.error
    return {
        "device": str(result.path),
        "name": result.name,
        "error": error.message if error else "",
        "hint": error.hint if error else "",
        "receipt": asdict(result.receipt) if result.receipt else None,
    }
