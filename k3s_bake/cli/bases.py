"""k3s-bake bases"""

import json

import click
from rich.table import Table

from bake import cache, catalogue
from k3s_bake import report


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def bases(as_json: bool) -> None:
    """List the base images that are known by name, and which are in the cache.

    \b
    Examples:
      k3s-bake bases
      k3s-bake image --role worker --base raspios-buster-2021-05
    """
    home = cache.home()
    rows = [(base, catalogue.cached(base, home)) for base in catalogue.load()]
    if as_json:
        click.echo(json.dumps([vars(base) | {"cached": cached} for base, cached in rows], indent=2))
        return
    table = Table("name", "architecture", "cached", "title", box=None, pad_edge=False)
    for base, cached in rows:
        mark = " (default)" if base.name == catalogue.DEFAULT_BASE else ""
        table.add_row(base.name + mark, base.arch, "yes" if cached else "no", base.title)
    report.console().print(table)
