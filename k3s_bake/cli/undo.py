"""k3s-bake undo and remove"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from firstboot.errors import UserError
from k3s_bake.adopt import How
from k3s_bake.cli import leaving
from k3s_bake.cli.interrupted import Interrupted
from k3s_bake.cli.log import lines_of
from k3s_bake.cli.terminal import Terminal
from k3s_bake.remove import Remove
from k3s_bake.undo import Undo


@click.command()
@leaving.nodes_options
@leaving.yes_option
def undo(
    logins: Sequence[str], file: Path | None, jump: str | None, accept_new: bool, as_json: bool, yes: bool
) -> None:
    """Make machines what they were before they were adopted: K3s gone, each file put back.

    What a person has changed since is left alone, and named. The cluster still lists the node, as NotReady,
    until 'k3s-bake remove' takes it out, before or afterwards. Of a master that began its cluster all of the
    CLUSTER'S DATA are deleted: its name is to be typed, or --yes.

    A LOGIN is [user@]host[:port], or a Host of ~/.ssh/config; without one, every node of --file is meant.

    \b
    Examples:
      k3s-bake undo pi@10.0.0.3
      k3s-bake undo pi@10.0.0.3 pi@10.0.0.4 --json
      k3s-bake undo --file cluster.toml --yes
      k3s-bake undo --file cluster.toml pi-2
    """
    nodes = leaving.named(logins, file, jump, every=bool(file and not logins)).nodes
    if not (logins or yes):
        _ask(f"Undo all {len(nodes)}: {', '.join(one.name or str(one.login) for one in nodes)}?")
    lines = lines_of("undo", quiet=as_json)
    person = Terminal()
    how = How(person, accept_new=accept_new, told=lines.told)
    back = Undo(nodes, how, leaving.sure(person, yes=yes))
    leaving.run(back, back.run(), lines, _undone)
    leaving.end(back)


@click.command()
@leaving.nodes_options
@leaving.keeper_options
def remove(
    logins: Sequence[str],
    file: Path | None,
    jump: str | None,
    accept_new: bool,
    as_json: bool,
    every: bool,
    master: str | None,
) -> None:
    """Take nodes out of their cluster: pods moved, K3s stopped and its data deleted, the node forgotten.

    The data are all that K3s has there, volumes of its local-path storage included.
    The files that make a node stay: 'k3s-bake adopt' takes it in again, 'k3s-bake undo' takes them away.
    A node that is undone already, or that cannot be reached any more and is NotReady, is forgotten all the
    same: LOGIN may be its name in the cluster then.
    A LOGIN is [user@]host[:port], or a Host of ~/.ssh/config.

    \b
    Examples:
      k3s-bake remove pi@10.0.0.3 --master pi@10.0.0.2
      k3s-bake remove --file cluster.toml pi-2 pi-3
      k3s-bake remove home-a1b2c3 --master pi@10.0.0.2
    """
    found = leaving.named(logins, file, jump, every=every, master=master)
    if found.keeper is None:
        raise UserError("which master forgets them?", "--master names one that stays.")
    lines = lines_of("remove", quiet=as_json)
    nodes = Remove(found.nodes, How(Terminal(), accept_new=accept_new, told=lines.told), found.keeper)
    leaving.run(nodes, nodes.run(), lines, _gone)
    leaving.end(nodes)


def _ask(question: str) -> None:
    """UserError where nobody is there, or does not want it."""
    if not sys.stdin.isatty():
        raise UserError("nobody is there to be asked whether all are meant", "--yes, or name some of them.")
    try:
        is_meant = click.confirm(question, err=True)
    except click.Abort:
        raise Interrupted("Nothing was changed.") from None
    if not is_meant:
        raise UserError("nothing was changed")


def _undone(answer: Mapping[str, Any]) -> str:
    listed = _listed(answer)
    if not (answer["back"] or answer["left"]):
        return f"nothing to put back: it was never adopted, or is as it was already{listed}"
    left = "".join(f"\n    left alone, changed since: {path}" for path in answer["left"])
    count = len(answer["back"])
    return f"{count} paths put back; K3s is gone; what the kernel is told takes a restart{left}{listed}"


def _listed(answer: Mapping[str, Any]) -> str:
    if answer["still_listed"] is False:
        return ""
    which = (
        "its cluster still lists it"
        if answer["still_listed"]
        else "if its cluster goes on, it still lists it"
    )
    forget = f"'k3s-bake remove {answer['login']} --master LOGIN' has it forgotten"
    return f"\n    {which}, as {answer['name']}, NotReady before long: {forget}"


def _gone(answer: Mapping[str, Any]) -> str:
    told = f"{answer['name']} is out of the cluster"
    if answer["untouched"]:
        told += f"; the machine itself was not touched: {answer['untouched']}"
    return told + leaving.pods(answer)
