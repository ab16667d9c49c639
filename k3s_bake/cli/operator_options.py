"""What the commands of a cluster's operator have in common."""

import click

from bake import cache, trust
from k3s_bake import report

cluster_option = click.option(
    "--cluster", metavar="NAME", help="Of which cluster; not needed where only one is known here."
)
master_option = click.option(
    "--master", metavar="ADDRESS", help="The master to ask, instead of those heard in this network."
)

jump_option = click.option(
    "--jump", metavar="LOGIN", help="Log in through it, as ssh's -J does: pi@gateway, or a,b; none: directly."
)


def say(text: str) -> None:
    """To standard error: what a program reads stays clean."""
    report.console(stderr=True).print(report.shown(text))


def found(name: str | None) -> trust.Cluster:
    """UserError where it is not known here, or none is named and not exactly one known."""
    return trust.find_cluster(name, cache.home(), say)
