"""k3s-bake nodes"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.console import Group, RenderableType
from rich.live import Live

from firstboot import mdns
from firstboot.contract import Announcement
from firstboot.errors import UserError, WorkFailed
from k3s_bake import nodes_table, report

_CHECK = (
    "Check that they are powered on (a first boot takes two minutes to be heard) and in the network of this "
    "machine, that its firewall lets UDP 5353 in, and that the Wi-Fi does not isolate its clients. "
    "The file k3s-bake-status.txt on a card's first partition says how far its node came."
)


@click.command()
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--cluster", metavar="NAME", help="Only nodes of this cluster.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 60),
    default=4.0,
    show_default=True,
    help="How long to listen, each time.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs; with --watch, a line for each change.")
def nodes(watch: bool, cluster: str | None, seconds: float, as_json: bool) -> None:
    """List the nodes that announce themselves in this network: how far they are, and what they wait for.

    What is heard by mDNS is a hint: anyone in the network can say it. Exits with 1 where nothing is heard.

    \b
    Examples:
      k3s-bake nodes
      k3s-bake nodes --watch --cluster home
      k3s-bake nodes --json | jq -r '.[] | select(.phase == "joined") | .addr'
    """
    if not mdns.lan_addresses():
        raise UserError("this machine has no address in a local network", "Connect it to that of the nodes.")
    if watch:
        _watch(cluster, seconds, as_json)
        return
    heard = nodes_table.in_order(_heard(cluster, seconds))
    if as_json:
        click.echo(json.dumps([asdict(node) for node in heard], indent=2))
        raise click.exceptions.Exit(0 if heard else 1)
    if not heard:
        of = f" of cluster {cluster}" if cluster else ""
        raise WorkFailed(f"no node{of} was heard within {seconds:g} seconds", _CHECK)
    report.console().print(_shown(heard))


def _heard(cluster: str | None, seconds: float) -> list[Announcement]:
    return [node for node in mdns.browse(seconds) if cluster in (None, node.cluster)]


def _watch(cluster: str | None, seconds: float, as_json: bool) -> None:
    seen = nodes_table.Seen()
    try:
        # Not refreshed by a thread: browse forks.
        with Live(console=report.console(), auto_refresh=False) as live:
            if not as_json:
                live.update("listening ...", refresh=True)
            while True:
                started = time.monotonic()
                changes = seen.update(_heard(cluster, seconds), time.monotonic())
                if as_json:
                    for change, node in changes:
                        click.echo(json.dumps({"change": change, "node": asdict(node)}))
                else:
                    live.update(_shown(seen.nodes()), refresh=True)
                # The network went away, or is flooded: browse returns at once.
                time.sleep(max(0.0, started + 0.5 - time.monotonic()))
    except KeyboardInterrupt:
        return  # how a watch ends


def _shown(heard: Sequence[Announcement]) -> RenderableType:
    if not heard:
        return f"no node is heard yet\n{_CHECK}"
    told = [report.shown(line) for line in nodes_table.remedies(heard)]
    return Group(nodes_table.table(heard, time.time()), *(["", *told] if told else []))
