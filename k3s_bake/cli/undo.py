"""k3s-bake undo and remove"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from firstboot.errors import UserError
from k3s_bake import report, ssh
from k3s_bake.cli.terminal import Terminal
from k3s_bake.login import Login

Step = Callable[[ssh.Remote], Any]
_accept_new = click.option("--accept-new", is_flag=True, help="Trust hosts that are seen for the first time.")
_as_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_logins = click.argument("logins", nargs=-1, required=True, metavar="LOGIN...")


@click.command()
@_logins
@_accept_new
@_as_json
def undo(logins: Sequence[str], accept_new: bool, as_json: bool) -> None:
    """Make machines what they were before they were adopted: K3s gone, each file put back.

    What a person has changed since is left alone, and named. The cluster still lists the node, as NotReady:
    'k3s-bake remove' first takes it out. A LOGIN is [user@]host[:port], or a Host of ~/.ssh/config.

    \b
    Examples:
      k3s-bake undo pi@10.0.0.3
      k3s-bake undo pi@10.0.0.3 pi@10.0.0.4 --json
    """

    async def one(remote: ssh.Remote) -> dict[str, Any]:
        return await remote.call("undo")

    named = [Login.parse(text) for text in logins]
    _end(asyncio.run(_all(named, one, Terminal(), accept_new)), as_json, _undone)


@click.command()
@_logins
@click.option("--master", required=True, metavar="LOGIN", help="A master of its cluster, which forgets it.")
@_accept_new
@_as_json
def remove(logins: Sequence[str], master: str, accept_new: bool, as_json: bool) -> None:
    """Take nodes out of their cluster: pods moved, K3s stopped and its data deleted, the node forgotten.

    The files that make a node stay: 'k3s-bake adopt' takes it in again, 'k3s-bake undo' takes them away.
    A LOGIN is [user@]host[:port], or a Host of ~/.ssh/config.

    \b
    Examples:
      k3s-bake remove pi@10.0.0.3 --master pi@10.0.0.2
    """
    _end(asyncio.run(_removed(logins, master, accept_new)), as_json, _gone)


async def _removed(logins: Sequence[str], master: str, accept_new: bool) -> dict[str, Any]:
    named, person = [Login.parse(text) for text in logins], Terminal()
    try:
        keeper = await ssh.opened(Login.parse(master), person, accept_new=accept_new)
    except UserError as error:
        raise type(error)(f"{master}: {error.message}", error.hint) from error

    async def one(remote: ssh.Remote) -> dict[str, Any]:
        name = str((await remote.call("state"))["name"])
        if not name:
            raise UserError("no agent of ours has run there", "Is it a node at all?")
        drained = (await keeper.call("drain", name=name))["drained"]
        await remote.call("leave")  # before it is forgotten, or it would come again
        if not (await keeper.call("forget_node", name=name))["done"]:
            raise UserError(f"its master did not forget {name}", f"k3s kubectl delete node {name}, there.")
        return {"name": name, "drained": drained}

    try:
        return await _all(named, one, person, accept_new)
    finally:
        await keeper.close()


async def _all(logins: Sequence[Login], step: Step, person: Terminal, accept_new: bool) -> dict[str, Any]:
    """By login: the answer, or the error. One that fails stops no other."""

    async def one(login: Login) -> dict[str, Any]:
        try:
            remote = await ssh.opened(login, person, accept_new=accept_new)
            try:
                return dict(await step(remote))
            finally:
                await remote.close()
        except UserError as error:
            return {"error": error.message, "hint": error.hint, "code": error.exit_code}

    answers = await asyncio.gather(*(one(login) for login in logins))
    return dict(zip(map(str, logins), answers, strict=True))


def _end(answers: dict[str, Any], as_json: bool, words: Callable[[dict[str, Any]], str]) -> None:
    if as_json:
        click.echo(json.dumps(answers, indent=2))
    else:
        for login, answer in answers.items():
            told = f"{answer['error']}\n    {answer['hint']}" if "error" in answer else words(answer)
            report.console().print(report.shown(f"{login}: {told}"))
    codes = {answer["code"] for answer in answers.values() if "error" in answer}
    if codes:
        raise click.exceptions.Exit(1 if 1 in codes else 2)


def _undone(answer: dict[str, Any]) -> str:
    left = "".join(f"\n    left alone, changed since: {path}" for path in answer["left"])
    return f"{len(answer['back'])} paths put back; K3s is gone; what the kernel is told takes a restart{left}"


def _gone(answer: dict[str, Any]) -> str:
    pods = "" if answer["drained"] else "; not all of its pods could be moved first"
    return f"{answer['name']} is out of the cluster{pods}"
