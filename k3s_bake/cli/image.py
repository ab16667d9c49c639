"""k3s-bake image"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bake import cache, cluster_file, manifest, spec_json, wish
from bake import image as recipe
from bake.catalogue import DEFAULT_BASE
from bake.cluster_file import ClusterFile
from bake.download import Web
from bake.engine import Engine
from bake.k3s_version import DEFAULT_K3S
from bake.node import Plan
from bake.spec import Datastore, Role
from firstboot.errors import UserError
from k3s_bake import report
from k3s_bake.cli.values import engine_option, node_values, wish_values
from k3s_bake.progress import Bars

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_what = _options(
    click.option("--role", type=click.Choice([role.value for role in Role])),
    click.option("--file", "file", type=_FILE, help="cluster.toml; options given here win over it."),
    click.option("--cluster", help="Name of the cluster.  [default: k3s]"),
    click.option("--name", help="Host and node name.  [default: <cluster>-<role>]"),
    click.option(
        "--all", "every", is_flag=True, help="An image for each node in the file, or each of --role."
    ),
)
_parts = _options(
    click.option("--base", help=f"Name ('k3s-bake bases') or path.  [default: {DEFAULT_BASE}]"),
    click.option("--k3s", help=f"Version, channel (stable, v1.33) or path.  [default: {DEFAULT_K3S}]"),
    click.option("--k3s-version", help="What a K3s given as a path is."),
    click.option("--airgap", help="Container images: none, auto or a path.  [default: auto with a release]"),
    click.option(
        "--containerd",
        multiple=True,
        help="'embedded' (default), or archives of another: release tarball, .deb, runc's .deb.",
    ),
)
_cluster = _options(
    click.option("--server", help="URL of a master to join without being let in: https://10.0.0.2:6443"),
    click.option("--token-file", type=_FILE, help="File (0600) with the token to join with."),
    click.option("--master", help="Address of a master to ask, where mDNS does not reach: 10.0.0.2"),
    click.option(
        "--join/--no-join", default=None, help="A further master: joins the others, starts no cluster."
    ),
    click.option(
        "--credential/--no-credential",
        default=True,
        help="Put in what the node proves itself with, or leave it to the card writer.  [default: put in]",
    ),
    click.option(
        "--agent/--no-agent",
        default=None,
        help="The first-boot agent, which finds the master.  [default: unless --server and --token-file]",
    ),
    click.option("--datastore", type=click.Choice([store.value for store in Datastore]), help="Of a master."),
    click.option("--label", multiple=True, help="Node label, key=value. Repeat for more."),
    click.option("--taint", multiple=True, help="Node taint, key=value:Effect. Repeat for more."),
    click.option("--registries", type=_FILE, help="registries.yaml to put in."),
    click.option("--network", help="The cluster's network (CIDR): open a firewall for it alone."),
)
_access = _options(
    click.option("--user", help="Who logs in.  [default: pi]"),
    click.option(
        "--authorized-key",
        multiple=True,
        type=_FILE,
        help="Public key file; turns SSH on and its passwords off.",
    ),
    click.option(
        "--ssh/--no-ssh", default=None, help="SSH on or off.  [default: on with a key, else as it is]"
    ),
    click.option("--timezone", help="Like Europe/Berlin."),
)
_lan = _options(
    click.option("--wifi-country", help="Two capitals: DE, FR."),
    click.option("--wifi-ssid"),
    click.option("--wifi-psk-file", type=_FILE, help="File (0600) with the password; asked for without it."),
    click.option("--address", help="Static address with prefix: 10.0.0.3/24."),
    click.option("--gateway", help="For --address."),
    click.option("--dns", multiple=True, help="For --address. Repeat for more."),
    click.option("--interface", help="For --address.  [default: eth0]"),
)
_how = _options(
    click.option(
        "--output", type=_FILE, help="[default: ./<cluster>-<name or role>.img]; with --all a folder [.]"
    ),
    click.option("--force", is_flag=True, help="Replace an existing output."),
    click.option("--offline", is_flag=True, help="Use the cache only."),
    click.option("--mirror", help="URL that takes the place of every server."),
    engine_option,
    click.option("--timings", is_flag=True, help="Show where the time went."),
    click.option("--dry-run", is_flag=True, help="Show what would change, as a diff; write nothing."),
    click.option("--json", "as_json", is_flag=True, help="For programs."),
)


@click.command()
@_what
@_parts
@_cluster
@_access
@_lan
@_how
def image(
    dry_run: bool, as_json: bool, timings: bool, offline: bool, mirror: str | None, **given: Any
) -> None:
    """Bake a base image into a node's image, without booting it and without root.

    \b
    Examples:
      k3s-bake image --role worker
      k3s-bake image --role master --cluster home --authorized-key ~/.ssh/id_ed25519.pub
      k3s-bake image --role master --cluster home --join --output further.img
      k3s-bake image --role worker --base my.img --k3s ./k3s-armhf --airgap none --output w.img
      k3s-bake image --role worker --dry-run
      k3s-bake image --file cluster.toml --all
    """
    progress = Bars()
    web = Web(progress, mirror=mirror, offline=offline)
    wished = _wish(given, dry_run)
    if not dry_run:  # downloads are long: what can be refused is refused before them
        for output in wished.nodes:
            recipe.check_output(output, Path(wished.base), force=wished.force)
    jobs = wish.jobs(wished, cache.home(), web)
    if dry_run:
        _show(jobs, recipe.preview(jobs, progress), as_json, given["every"])
        return
    made = []
    for job, baked in zip(jobs, recipe.bake(jobs, progress), strict=True):
        if as_json:
            made.append(_data(job, baked.plan) | _files(baked) | {"seconds": dict(baked.timings)})
        else:
            _print(baked, timings, brief=given["every"])
    if given["every"] and not as_json:
        _print_next(Path("IMAGE"))
    if as_json:
        click.echo(json.dumps(made if given["every"] else made[0], indent=2))


def _wish(given: dict[str, Any], dry_run: bool) -> wish.Wish:
    file = cluster_file.load(given["file"]) if given["file"] else None
    nodes = _every_node(given, file) if given["every"] else _one_node(given, file)
    values = wish_values(given, file)
    how = {"force": given["force"], "engine": Engine(given["engine"]), "dry_run": dry_run}
    return wish.Wish(nodes, first_boot=given["agent"], credential=given["credential"], **how, **values)


def _one_node(given: dict[str, Any], file: ClusterFile | None) -> dict[Path, dict[str, Any]]:
    node = node_values(given, file)
    return {given["output"] or Path(_file_name(node)): node}


def _every_node(given: dict[str, Any], file: ClusterFile | None) -> dict[Path, dict[str, Any]]:
    if given["name"] or given["address"]:
        raise UserError("--name and --address are for one node", "Leave them out with --all.")
    named = [node for node in file.nodes if given["role"] in (None, node.role)] if file else []
    if not named:
        raise UserError("--all found no [[node]]", "--file names the cluster.toml that has them.")
    if not all(node.name for node in named):
        raise UserError("--all: a [[node]] has no name", "Each image is a node of its own, and needs one.")
    folder = given["output"] or Path()
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "With --all, --output is the folder for the images.")
    nodes = (node_values(given | {"role": node.role, "name": node.name}, file) for node in named)
    return {folder / _file_name(node): node for node in nodes}


def _file_name(node: dict[str, Any]) -> str:
    return f"{node.get('cluster', 'k3s')}-{node.get('name') or node['role']}.img"


def _data(job: recipe.Job, plan: Plan) -> dict[str, Any]:
    notes = [{"concern": concern, "text": text} for concern, text in plan.notes]
    return {"spec": spec_json.to_json(job.spec), "notes": notes, "edits": manifest.steps(plan)}


def _files(baked: recipe.Baked) -> dict[str, str]:
    return {"image": str(baked.image), "manifest": str(baked.manifest), "bmap": str(baked.bmap)}


def _show(jobs: list[recipe.Job], plans: list[Plan], as_json: bool, every: bool) -> None:
    if as_json:
        data = [_data(job, plan) for job, plan in zip(jobs, plans, strict=True)]
        click.echo(json.dumps(data if every else data[0], indent=2))
        return
    console = report.console()
    for job, plan in zip(jobs, plans, strict=True):
        if every:
            console.print(f"[bold]{report.shown(job.output)}[/]")
        for step in plan.steps:
            console.print(report.shown(report.diff(step)), end="")
        for concern, text in plan.notes:
            console.print(f"note: {concern}: {report.shown(text)}")
        console.print(f"{len(plan.steps)} changes; nothing was written.")


def _print(baked: recipe.Baked, timings: bool, *, brief: bool) -> None:
    """``brief``: without the table of what was changed, which the manifest has."""
    console = report.console()
    if not brief:
        console.print(report.plan_table(baked.plan))
        console.print()
    grown = f", {baked.grown >> 20} MiB larger than its base" if baked.grown else ""
    beside = " and ".join(report.shown(path.name) for path in (baked.manifest, baked.bmap))
    console.print(f"[bold]{report.shown(baked.image)}[/]{grown}; {beside} beside it")
    if baked.plan.secret:
        console.print("It holds a secret, so only you can read it (mode 0600). Keep it that way.")
    if not brief:
        _print_next(baked.image)
    if timings:
        console.print(report.timings_table(baked.timings))


def _print_next(image: Path) -> None:
    flash = f"k3s-bake flash {report.shown(image)} /dev/sdX"
    report.console().print(f"Next: write it to a card that k3s-bake cards lists: {flash}")
