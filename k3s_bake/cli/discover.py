"""k3s-bake discover"""

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import asdict

import click
from rich.table import Table

from firstboot import mdns
from firstboot.errors import UserError, WorkFailed
from k3s_bake import report
from k3s_bake.discover import Neighbour, addresses, names, neighbours, read_macs, scan

_LISTEN = 4.0


@click.command()
@click.option(
    "--network", "networks", multiple=True, metavar="CIDR", help="Instead of this machine's own. Repeat."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 30),
    default=1.5,
    show_default=True,
    help="For each address to answer.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def discover(networks: tuple[str, ...], seconds: float, as_json: bool) -> None:
    """List what could become a node, or is one: who announces itself, and who answers at the port of SSH.

    Every address of this machine's local networks is tried, once. Raspberry Pis are known by their MAC
    address. Exits with 1 where nobody answers.

    \b
    Examples:
      k3s-bake discover
      k3s-bake discover --network 10.0.0.0/24
      k3s-bake discover --json | jq -r '.[] | select(.pi and .node == null) | .address'
    """
    wanted = [_network(text) for text in networks] or mdns.lan_networks()
    if not wanted:
        raise UserError("this machine has no address in a local network", "--network names one.")
    hosts = addresses(wanted, mdns.lan_addresses())
    report.console(stderr=True).print(f"trying {len(hosts)} addresses, and listening for {_LISTEN:.0f} s ...")
    heard = mdns.browse(_LISTEN)  # before there are threads: it forks
    ssh, named = asyncio.run(_asked(hosts, seconds))
    found = neighbours(ssh, named, read_macs(), heard)
    if as_json:
        click.echo(json.dumps([_data(one) for one in found], indent=2))
        raise click.exceptions.Exit(0 if found else 1)
    if not found:
        raise WorkFailed(
            "nobody answers",
            "Is SSH on there? A file called ssh on the boot partition turns it on. Are they in this network?",
        )
    report.console().print(_table(found))
    if any(one.ssh and one.node is None for one in found):
        report.console().print("Next: k3s-bake adopt --master USER@ADDRESS --worker USER@ADDRESS")


async def _asked(hosts: Sequence[str], seconds: float) -> tuple[dict[str, str], dict[str, str]]:
    ssh = await scan(hosts, seconds)
    return ssh, await names(ssh, 2 * seconds)


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError as error:
        raise UserError(f"--network {text} is none: {error}", "Like 10.0.0.0/24.") from error


def _table(found: Sequence[Neighbour]) -> Table:
    made = report.table("address", "name", "what", "ssh")
    for one in found:
        what = "Raspberry Pi" if one.is_pi else ""
        if one.node:
            node = one.node
            what = f"{node.name}, a {node.role} of {node.cluster}: {node.phase}"
            what += f" ({node.reason})" if node.reason else ""
        made.add_row(*map(report.shown, (one.address, one.name, what, one.ssh)))
    return made


def _data(one: Neighbour) -> dict[str, object]:
    return {**asdict(one), "pi": one.is_pi}
