"""k3s-bake status"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.table import Table

from firstboot.errors import WorkFailed
from k3s_bake import masters, report
from k3s_bake.cli import operator_options
from k3s_bake.cli.operator_options import cluster_option, master_option

_APART = 60.0
"""Seconds: certificates bear more, people wonder."""


@click.command()
@cluster_option
@master_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(cluster: str | None, master: str | None, as_json: bool) -> None:
    """Say what Kubernetes knows of the cluster's nodes, as a master tells it: no kubectl is needed.

    Only who has the cluster's signing key is told. 'k3s-bake nodes' shows those on their way, too. Exits with
    1 where a node is not Ready.

    \b
    Examples:
      k3s-bake status
      k3s-bake status --cluster home --json | jq -r '.nodes[] | select(.ready | not) | .name'
    """
    answer = masters.ask(operator_options.found(cluster), "status", {}, master)
    nodes = answer.get("nodes")
    if not isinstance(nodes, list):
        raise WorkFailed("the master answers, and its Kubernetes does not", "It may be starting: try again.")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        report.console().print(_table(nodes))
        behind = abs(time.time() - float(answer.get("time") or time.time()))
        if behind > _APART:
            report.console().print(f"The clocks of the master and of this machine are {behind:.0f} s apart.")
    raise click.exceptions.Exit(0 if all(node.get("ready") for node in nodes) else 1)


def _table(nodes: Sequence[Mapping[str, Any]]) -> Table:
    made = report.table("node", "state", "roles", "K3s", "address", "serial number")
    for node in nodes:
        state = "[green]Ready[/]" if node.get("ready") else "[red]NotReady[/]"
        roles = ", ".join(map(str, node.get("roles") or ["worker"]))
        told = (roles, node.get("k3s", ""), node.get("address", ""), node.get("serial", ""))
        made.add_row(report.shown(node.get("name", "?")), state, *map(report.shown, told))
    return made
