"""k3s-bake release"""

import click

from firstboot.contract import is_label
from firstboot.errors import UserError, WorkFailed
from k3s_bake import masters, report
from k3s_bake.cli import operator_options
from k3s_bake.cli.operator_options import cluster_option, master_option


@click.command()
@click.argument("node")
@cluster_option
@master_option
def release(node: str, cluster: str | None, master: str | None) -> None:
    """Let another board join under the name NODE: after a board was swapped, say.

    A master admits one board a name, by its serial number, and refuses a copied card.

    \b
    Examples:
      k3s-bake release home-worker-3
    """
    if not is_label(node):
        raise UserError(f"'{node}' is no node's name", "k3s-bake nodes lists those that are heard.")
    opened = operator_options.found(cluster)
    if masters.ask(opened, "release", {"name": node}, master).get("done") is not True:
        raise WorkFailed("the master's answer makes no sense", "Are both of one version of k3s-bake?")
    report.console().print(report.shown(f"the next board that asks may join as {node}"))
