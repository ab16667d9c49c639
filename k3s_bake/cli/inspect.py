"""k3s-bake inspect"""

import json
from pathlib import Path

import click

from bake import inspection, manifest, spec_json
from bake.engine import Engine
from bake.spec import Role
from k3s_bake import report
from k3s_bake.cli.values import engine_option
from k3s_bake.progress import Bars


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.WORKER.value,
    show_default=True,
    help="What to compare an image with that was not baked by this tool.",
)
@engine_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(image: Path, role: str, engine: str, as_json: bool) -> None:
    """Tell whether IMAGE is a node: each concern is met, or what is missing is named.

    Exits with 0 where all is met, else with 1. The image is only read.

    \b
    Examples:
      k3s-bake inspect home-worker.img
    """
    found = inspection.inspect(image, Role(role), Bars(), Engine(engine))
    if as_json:
        click.echo(json.dumps(_data(found), indent=2))
    else:
        _print(image, found)
    raise click.exceptions.Exit(0 if found.met else 1)


def _data(found: inspection.Inspection) -> dict[str, object]:
    return {
        "met": found.met,
        "recorded": found.recorded,
        "name": found.name if found.recorded else None,
        "spec": spec_json.to_json(found.spec) if found.recorded else None,
        "concerns": {
            name: [manifest.edit(step.edit) for step in missing] for name, missing in found.missing.items()
        },
    }


def _print(image: Path, found: inspection.Inspection) -> None:
    console = report.console()
    spec = found.spec
    if found.recorded:
        version = spec.k3s.version or "of unknown version"
        what = f"{spec.role} {found.name} of cluster {spec.cluster}, K3s {version}"
    else:
        what = f"not made by k3s-bake; compared with a plain {spec.role}"
    console.print(report.shown(f"{image}: {what}"))
    console.print(report.inspection_table(found))
