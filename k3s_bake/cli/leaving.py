"""What undo, remove and reset have in common: which nodes, how far each is, and how it ends."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from bake import cluster_file
from k3s_bake import report
from k3s_bake.back import Back, Sure, is_untouched
from k3s_bake.chosen import Chosen, chosen
from k3s_bake.cli.interrupted import Interrupted
from k3s_bake.cli.operator_options import jump_option
from k3s_bake.cli.terminal import Terminal
from k3s_bake.fleet_report import Lines
from k3s_bake.login import asked

F = TypeVar("F", bound=Callable[..., Any])
_PODS = 3
"""That are told by their names; JSON has them all."""
_OPTIONS = (
    click.argument("logins", nargs=-1, metavar="[LOGIN]..."),
    click.option(
        "--file",
        type=click.Path(path_type=Path),
        help="cluster.toml: its [[node]] that have a host; LOGIN is then the name or host of one.",
    ),
    jump_option,
    click.option("--accept-new", is_flag=True, help="Trust hosts that are seen for the first time."),
    click.option("--json", "as_json", is_flag=True, help="For programs."),
)


yes_option = click.option("--yes", is_flag=True, help="Do not ask, whatever will be gone.")


def sure(person: Terminal, *, yes: bool) -> Sure:
    """Asks for a master's name, whose cluster's data will be gone."""

    async def typed(name: str) -> bool:
        return yes or await asked(person.types, f"All data of {name}'s cluster will be gone.", name)

    return typed


def keeper_options(command: F) -> F:
    every = click.option("--all", "every", is_flag=True, help="Every node of --file but --master.")
    master = click.option(
        "--master",
        metavar="LOGIN",
        help="A master that stays: pods are moved, and it forgets the node."
        "  [default: the first of --file that stays]",
    )
    return every(master(command))


def nodes_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def named(
    logins: Sequence[str], file: Path | None, jump: str | None, *, every: bool, master: str | None = None
) -> Chosen:
    """UserError as chosen.chosen, and for a file that cannot be read."""
    return chosen(logins, cluster_file.load(file) if file else None, every=every, master=master, jump=jump)


def run(
    back: Back, work: Coroutine[Any, Any, None], lines: Lines, words: Callable[[Mapping[str, Any]], str]
) -> None:
    """To its end, or until Ctrl-C; ``words`` for what became of a node.

    ``lines`` that are quiet: what is told in the end is JSON.
    """
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        back.interrupt()
        if not lines.quiet:
            report.console(stderr=True).print("interrupted: run it again to go on. So far:")
        _tell(back, words, as_json=lines.quiet)
        raise Interrupted(_so_far(back)) from None
    finally:
        lines.end(back.outcomes)
    _tell(back, words, as_json=lines.quiet)


def _so_far(back: Back) -> str:
    if all(map(is_untouched, back.outcomes)):
        return "Nothing was changed."
    return "Run it again: what is done stays done, and it goes on with the others."


def _tell(back: Back, words: Callable[[Mapping[str, Any]], str], *, as_json: bool) -> None:
    every = back.data()
    if as_json:
        click.echo(json.dumps(every, indent=2))
        return
    for one in every:
        failed = one["error"] + (f"\n    {one['hint']}" if one["hint"] else "")
        report.console().print(report.shown(f"{one['login']}: {failed or words(one)}"))


def pods(answer: Mapping[str, Any]) -> str:
    """A line of its own, where a node's pods have not all gone before it went."""
    if answer["drained"] is not False:
        return ""
    left, why = answer["pods_left"], answer["why_left"]
    told = f": {why}" if why else ""
    if not left:
        return f"\n    not all of its pods could be moved first{told}"
    more = f" and {len(left) - _PODS} more" if len(left) > _PODS else ""
    count = "1 pod" if len(left) == 1 else f"{len(left)} pods"
    return f"\n    {count} stayed, and ended with it{told}: {', '.join(left[:_PODS])}{more}"


def end(back: Back) -> None:
    """Exit code 1 where work failed at some node, 2 where all that failed is for a person to mend."""
    codes = {one.code for one in back.outcomes if one.error}
    if codes:
        raise click.exceptions.Exit(1 if 1 in codes else 2)
