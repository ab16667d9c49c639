"""k3s-bake cluster"""

import datetime
import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from bake import cache, cluster_export, cluster_store
from bake.trust import Cluster
from firstboot import certificate
from k3s_bake import report
from k3s_bake.cli import operator_options


@click.group()
def cluster() -> None:
    """The clusters whose signing keys are here, and their cards.

    \b
    Examples:
      k3s-bake cluster show
      k3s-bake cluster export home home.k3s-bake
    """


@cluster.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """List the clusters that are known here.

    \b
    Example:
      k3s-bake cluster list
    """
    every = [operator_options.found(name) for name in cluster_store.names(cache.home())]
    if as_json:
        rows = [{"name": one.name, "authority": certificate.fingerprint(one.public_key)} for one in every]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "authority", "cards", "revoked", box=None, pad_edge=False)
    for one in every:
        cards = {issued.name for issued in one.issued() if "/" not in issued.name}
        names = {revoked.name for revoked in one.revoked()}
        table.add_row(one.name, certificate.fingerprint(one.public_key), str(len(cards)), str(len(names)))
    report.console().print(table if every else "none yet: the first bake of a cluster makes its key")


@cluster.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(name: str | None, as_json: bool) -> None:
    """Tell of a cluster: its authority, what was signed, what is revoked; never a secret.

    \b
    Example:
      k3s-bake cluster show home --json
    """
    one = operator_options.found(name)
    if as_json:
        click.echo(json.dumps(_data(one), indent=2))
    else:
        _print(one)


@cluster.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE.")
def export(name: str, file: Path, force: bool) -> None:
    """Write all of a cluster to FILE: for a second operator, or to keep.

    It holds the signing key and is not encrypted: whoever has it can let nodes into the cluster, and get what
    its masters give their operator.

    \b
    Example:
      k3s-bake cluster export home home.k3s-bake
    """
    cluster_export.write(operator_options.found(name), file, force=force)
    report.console().print(
        report.shown(f"{file} holds the signing key of '{name}': keep it as you keep keys")
    )


@cluster.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def import_(file: Path) -> None:
    """Take in a cluster that 'cluster export' wrote.

    Where it is here already, by the same authority, what was signed and revoked elsewhere is added.

    \b
    Example:
      k3s-bake cluster import home.k3s-bake
    """
    one = cluster_export.read(file, cache.home(), operator_options.say)
    report.console().print(report.shown(f"'{one.name}' is here: {certificate.fingerprint(one.public_key)}"))


def _data(one: Cluster) -> dict[str, object]:
    return {
        "name": one.name,
        "folder": str(one.folder),
        "authority": certificate.fingerprint(one.public_key),
        "public_key": one.public_key,
        "signing_key_here": (one.folder / cluster_store.AUTHORITY).exists(),
        "issued": [asdict(issued) for issued in one.issued()],
        "revoked": [asdict(revoked) for revoked in one.revoked()],
        "undelivered": one.undelivered(),
    }


def _print(one: Cluster) -> None:
    console = report.console()
    console.print(report.shown(f"{one.name}: {certificate.fingerprint(one.public_key)}, in {one.folder}"))
    if not (one.folder / cluster_store.AUTHORITY).exists():
        console.print("the signing key is not here: ssh's agent signs")
    gone = {(revoked.name, revoked.serial) for revoked in one.revoked()}
    table = Table("name", "serial", "may", "expires", "state", box=None, pad_edge=False)
    for issued in one.issued():
        revoked = gone & {(issued.name, issued.serial), (issued.name, None)}
        state = "[red]revoked[/]" if revoked else ""
        row = (report.shown(issued.name), str(issued.serial), report.shown(issued.principal))
        table.add_row(*row, _day(issued.expires), state)
    known = {issued.name for issued in one.issued()}
    for name in sorted(name for name, _ in gone if name not in known):
        table.add_row(report.shown(name), "", "", "", "[red]revoked[/]")
    console.print(table)
    if waiting := one.undelivered():
        console.print(report.shown(f"no master knows yet that it is revoked: {', '.join(waiting)}"))


def _day(expires: int | None) -> str:
    if expires is None:
        return "never"
    return datetime.datetime.fromtimestamp(expires, datetime.UTC).date().isoformat()
