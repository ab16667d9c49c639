"""k3s-bake revoke"""

import click

from firstboot.contract import GOLDEN
from firstboot.errors import WorkFailed
from k3s_bake import masters, report
from k3s_bake.cli import operator_options
from k3s_bake.cli.operator_options import cluster_option, master_option


@click.command()
@click.argument("card")
@cluster_option
@master_option
def revoke(card: str, cluster: str | None, master: str | None) -> None:
    """Have the masters refuse CARD from now on.

    CARD is a node's name, or golden/worker or golden/master for the credential that golden images carry.

    Where no master can be reached it waits for the next command that reaches one, and exits with 1. What was
    signed under this name until now is revoked: a card flashed afterwards may have the name again.

    \b
    Examples:
      k3s-bake revoke home-worker-3
      k3s-bake revoke golden/worker --cluster home
    """
    opened = operator_options.found(cluster)
    console = report.console()
    if card not in {one.name for one in opened.issued()} and not card.startswith(GOLDEN):
        console.print(
            report.shown(
                f"no certificate was made for {card} here: where its card carries the golden one, "
                "revoke golden/worker shuts out all that do"
            )
        )
    opened.revoke([card])
    try:
        took = masters.deliver(opened, master)
    except WorkFailed as failed:
        console.print(report.shown(f"{card} is revoked here, and no master knows it yet: {failed.message}"))
        console.print("It is delivered by the next command that reaches a master, or by this one again.")
        if failed.hint:
            operator_options.say(failed.hint)
        raise click.exceptions.Exit(WorkFailed.exit_code) from failed
    console.print(report.shown(f"{card} is revoked, as {', '.join(took)} knows"))
