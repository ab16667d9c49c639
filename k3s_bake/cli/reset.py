"""k3s-bake reset"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from k3s_bake import report
from k3s_bake.adopt import How
from k3s_bake.cli import leaving
from k3s_bake.cli.log import lines_of
from k3s_bake.cli.terminal import Terminal
from k3s_bake.reset import Reset


@click.command()
@leaving.nodes_options
@leaving.keeper_options
@leaving.yes_option
@click.option("--wait/--no-wait", default=True, help="Until each is Ready.  [default: wait]")
@click.option(
    "--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds until Ready."
)
def reset(
    logins: Sequence[str], file: Path | None, every: bool, master: str | None, yes: bool, **given: Any
) -> None:
    """Let nodes begin anew: K3s's state on them is deleted, and they join again as on a first boot.

    For a node whose K3s is broken beyond repair. What adopt, or the card, has brought stays. Of a master that
    started its cluster all of the CLUSTER'S DATA are deleted, and a new cluster begins: its name is to be
    typed, or --yes. Name its workers with it: masters come first, and workers join them. A further master
    needs --master, so that etcd does not count on it; a worker joins the sooner with it.

    A LOGIN is [user@]host[:port], or a Host of ~/.ssh/config. Run it again after anything that stops it.

    \b
    Examples:
      k3s-bake reset pi@10.0.0.3
      k3s-bake reset pi@10.0.0.3 --master pi@10.0.0.2
      k3s-bake reset --file cluster.toml pi-2
      k3s-bake reset --file cluster.toml --all --yes
    """
    found = leaving.named(logins, file, given["jump"], every=every, master=master)
    person, lines = Terminal(), lines_of("reset", quiet=given["as_json"])
    how = How(
        person,
        accept_new=given["accept_new"],
        wait=given["wait"],
        timeout=given["timeout"],
        told=lines.told,
    )
    nodes = Reset(found.nodes, how, found.keeper, leaving.sure(person, yes=yes))
    leaving.run(nodes, nodes.run(), lines, _words)
    if nodes.leads and not lines.quiet:
        report.console(stderr=True).print(report.shown(_others(nodes.leads)))
    leaving.end(nodes)


def _words(answer: Mapping[str, Any]) -> str:
    pods = leaving.pods(answer)
    if answer["ready_seconds"] is None:
        return f"{answer['name']} is reset ({answer['reset_seconds']:.1f} s) and joins by itself{pods}"
    took = f"reset in {answer['reset_seconds']:.1f} s, Ready {answer['ready_seconds']:.1f} s later"
    return f"{answer['name']} is Ready: {took}{pods}"


def _others(leads: Sequence[str]) -> str:
    return (
        f"{', '.join(leads)} leads a new cluster: any other node of the old one cannot join it until"
        " 'k3s-bake reset' has been there, too. Kubectl needs 'k3s-bake kubeconfig' again."
    )
