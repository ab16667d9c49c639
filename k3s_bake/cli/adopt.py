"""k3s-bake adopt, preflight and upgrade"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bake import cache, cluster_file, cluster_store
from bake.artifacts import check_choice, check_link
from bake.cache import beside, publish, writing
from bake.download import Web
from bake.k3s_version import DEFAULT_K3S
from bake.spec import Role
from bake.wish import Wish
from firstboot.errors import UserError
from k3s_bake import fleet_page, fleet_report, report
from k3s_bake import upgrade as rolling
from k3s_bake.adopt import How, Outcome
from k3s_bake.candidates import candidates
from k3s_bake.cli.interrupted import Interrupted
from k3s_bake.cli.log import lines_of
from k3s_bake.cli.operator_options import jump_option
from k3s_bake.cli.terminal import Terminal
from k3s_bake.crew import interrupt
from k3s_bake.fleet import Fleet, Order
from k3s_bake.peers import Peers
from k3s_bake.progress import Bars
from k3s_bake.screen import Screen

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def _machines(command: F) -> F:
    for option in reversed(
        [
            click.option(
                "--master",
                "masters",
                multiple=True,
                metavar="LOGIN",
                help="[user@]host[:port], or a Host of ~/.ssh/config; the user is yours if left out.",
            ),
            click.option("--worker", "workers", multiple=True, metavar="LOGIN", help="Repeat for more."),
            click.option("--file", "file", type=_FILE, help="cluster.toml: every [[node]] that has a host."),
            click.option(
                "--cluster", metavar="NAME", help="Its name.  [default: the only one known here, else k3s]"
            ),
            jump_option,
            click.option("--accept-new", is_flag=True, help="Trust hosts that are seen for the first time."),
            click.option("--json", "as_json", is_flag=True, help="For programs."),
        ]
    ):
        command = option(command)
    return command


_fetch_option = click.option(
    "--fetch",
    type=click.Choice(["operator", "node", "peer"]),
    default="operator",
    show_default=True,
    help="K3s comes from this machine, from the web (each node by itself), or from a first node that has it.",
)


@click.command()
@_machines
@click.option("--k3s", help=f"Version, channel (stable, v1.33) or path.  [default: {DEFAULT_K3S}]")
@click.option("--k3s-version", help="What a K3s given as a path is.")
@click.option("--airgap", help="Container images: none, auto or a path.  [default: auto with a release]")
@click.option("--offline", is_flag=True, help="Use the cache only.")
@click.option("--mirror", help="URL that takes the place of every server.")
@_fetch_option
@click.option("--reboot/--no-reboot", default=True, help="Where a change needs it, once.  [default: reboot]")
@click.option("--take-over", is_flag=True, help="Nodes of another cluster or datastore, too: they leave it.")
@click.option("--wait/--no-wait", default=True, help="Until each is Ready.  [default: wait]")
@click.option(
    "--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds until Ready."
)
@click.option("--report", "page", type=_FILE, help="An HTML file of it all: timeline, pings, diffs.")
@click.option("--verbose", is_flag=True, help="Show each change.")
@click.option("--dry-run", is_flag=True, help="Show what would change on each, as a diff; change nothing.")
def adopt(dry_run: bool, verbose: bool, as_json: bool, page: Path | None, **given: Any) -> None:
    """Turn machines that run into nodes of a cluster, over SSH, all at once.

    They come to the same state as a baked card: what is right already stays. A second run changes nothing,
    and one that was cut off goes on where it was. Each keeps what was there before, for 'k3s-bake undo'.

    \b
    Examples:
      k3s-bake adopt --master pi@10.0.0.2 --worker pi@10.0.0.3 --worker pi@10.0.0.4
      k3s-bake adopt --file cluster.toml --dry-run
      k3s-bake adopt --worker pi@10.0.0.5 --cluster home --accept-new
      k3s-bake adopt --file cluster.toml --k3s v1.34.9+k3s1 --json
      k3s-bake adopt --file cluster.toml --report cluster.html
      k3s-bake adopt --file cluster.toml --jump pi@gateway --fetch peer
    """
    screen = Screen()
    order = _order(given, dry_run, screen)
    if page is not None:
        _check_page(page)
    lines = lines_of("adopt", quiet=screen.is_live)
    fleet = Fleet(order, _how(given, lines, screen))
    _run(fleet, fleet.adopt(), lines, screen, as_json=as_json)
    if page is not None:
        with writing(page):
            part = beside(page, ".part")
            part.write_bytes(fleet_page.page(fleet.outcomes, fleet.order.cluster))
            publish(part, page)
    for outcome in fleet.outcomes:
        if dry_run and not as_json:
            _print_plan(outcome)
        elif verbose and outcome.plan and not as_json:
            report.console().print(report.shown(outcome.name), report.plan_table(outcome.plan), sep="\n")
    _end(fleet.outcomes, as_json, lines.log)


@click.command()
@_machines
@click.option("--take-over", is_flag=True, help="Nodes of another cluster or datastore, too: they leave it.")
def preflight(as_json: bool, **given: Any) -> None:
    """Say whether machines are fit to become nodes, and if not, why. Changes nothing.

    \b
    Examples:
      k3s-bake preflight --file cluster.toml
      k3s-bake preflight --master pi@10.0.0.2 --worker pi@10.0.0.3
    """
    nothing = dict.fromkeys(("k3s", "k3s_version", "airgap", "mirror", "fetch"))
    given |= {**nothing, "offline": False, "reboot": False, "wait": False, "timeout": 60.0}
    screen = Screen()
    order = _order(given, True, screen, joins=False)
    lines = lines_of("preflight", quiet=screen.is_live)
    fleet = Fleet(order, _how(given, lines, screen))
    _run(fleet, fleet.check(), lines, screen, as_json=as_json, hint="Nothing was changed.")
    _end(fleet.outcomes, as_json, lines.log)


@click.command()
@_machines
@click.option("--k3s", required=True, help="Version, channel (stable, v1.33) or path.")
@click.option("--k3s-version", help="What a K3s given as a path is.")
@click.option("--airgap", help="Container images: none, auto or a path.  [default: auto with a release]")
@click.option("--offline", is_flag=True, help="Use the cache only.")
@click.option("--mirror", help="URL that takes the place of every server.")
@_fetch_option
@click.option("--at-once", type=click.IntRange(1), default=2, show_default=True, help="Workers.")
@click.option(
    "--timeout", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds until Ready, each."
)
def upgrade(at_once: int, as_json: bool, **given: Any) -> None:
    """Give a cluster another K3s: masters one after the other, then workers, a few at a time.

    Each is Ready with it before the next begins. The first that is not gets back what it had, and no more is
    changed. Name all nodes: an agent must not be newer than its master.

    \b
    Examples:
      k3s-bake upgrade --file cluster.toml --k3s v1.34.9+k3s1
      k3s-bake upgrade --master pi@10.0.0.2 --worker pi@10.0.0.3 --k3s stable
    """
    given["take_over"] = False
    screen = Screen()
    order = _order(given, False, screen)
    lines = lines_of("upgrade", quiet=screen.is_live)
    fleet = Fleet(order, _how(given | {"reboot": False, "wait": True}, lines, screen))
    _run(fleet, rolling.upgrade(fleet, at_once), lines, screen, as_json=as_json)
    _end(fleet.outcomes, as_json, lines.log)


def _check_page(page: Path) -> None:
    """UserError where it cannot be written, or is something else."""
    if page.is_dir() or not page.parent.is_dir():
        raise UserError(f"{page} cannot be a file", "--report names the page to write: cluster.html")
    if page.exists() and not page.read_bytes()[:15].upper().startswith(b"<!DOCTYPE HTML>"):
        raise UserError(f"{page} is there, and is no page", "--report names the page to write.")


def _how(given: dict[str, Any], lines: fleet_report.Lines, screen: Screen) -> How:
    return How(
        Terminal(screen.aside),
        accept_new=given["accept_new"],
        reboot=given["reboot"],
        wait=given["wait"],
        timeout=given["timeout"],
        told=lines.told,
        peers=Peers(share=given["fetch"] == "peer"),
    )


def _order(given: dict[str, Any], dry_run: bool, screen: Screen, joins: bool = True) -> Order:
    """``joins``: the machines are to be nodes, and not only looked at."""
    file = cluster_file.load(given["file"]) if given["file"] else None
    machines = candidates(given["masters"], given["workers"], file, given["jump"])
    home, progress = cache.home(), Bars(screen.aside)
    named = given["cluster"] or (file.name if file else None)
    name = _cluster(named, home, makes=not joins or any(one.role is Role.MASTER for one in machines))
    web = Web(progress, mirror=given["mirror"], offline=given["offline"])
    parts = cluster_file.parts_for(file)
    parts |= {key: given[key] for key in ("k3s", "k3s_version", "airgap") if given[key] is not None}
    k3s, links = str(parts.get("k3s", DEFAULT_K3S)), given["fetch"] == "node"
    check_choice(k3s)
    if links:
        _check_links(k3s, given["offline"])
    return Order(
        name,
        machines,
        Wish({}, links=links, **{key: value for key, value in parts.items() if key != "base"}),
        "k3s" in parts,
        home,
        web,
        dry_run,
        given["take_over"],
    )


def _check_links(k3s: str, offline: bool) -> None:
    check_link(k3s)
    if offline:
        raise UserError("--offline uses the cache, and --fetch node does not", "Leave one of them out.")


def _cluster(named: str | None, home: cache.Home, *, makes: bool) -> str:
    """The one that is named, else the only one known here. UserError where it is not, and must be."""
    known = cluster_store.names(home)
    name = named or (known[0] if len(known) == 1 else "k3s")
    if name not in known and not makes:
        listed = f"Known here: {', '.join(known)}." if known else "None is known here."
        raise UserError(
            f"no cluster '{name}' is known here, and workers alone make none",
            f"{listed} --cluster names one.",
        )
    return name


_ENDS = ("joined", "pending", "changed", "planned", "fit", "left as it was")
"""Phases after which nothing more is done with a node."""
_KEPT = "What was downloaded or sent is kept for the next run; a node goes on with what it has begun."


def _run(
    fleet: Fleet,
    work: Any,
    lines: fleet_report.Lines,
    screen: Screen,
    *,
    as_json: bool,
    hint: str = _KEPT,
) -> None:
    """``hint``: what is true where it is interrupted."""
    try:
        with screen.showing(lambda: fleet_report.progress(fleet.outcomes)):
            asyncio.run(work)
    except KeyboardInterrupt:
        for one in fleet.outcomes:
            if not one.error and one.phase not in _ENDS:
                interrupt(one, "Run it again: it goes on where it was." if hint == _KEPT else hint)
        report.console(stderr=True).print("interrupted: run it again to go on. So far:")
        _tell(fleet.outcomes, as_json)
        raise Interrupted(hint) from None
    finally:
        lines.end(fleet.outcomes)


def _end(outcomes: list[Outcome], as_json: bool, log: Path | None) -> None:
    """Exit code 1 where work failed on some node, 2 where all that failed is for a person to mend."""
    _tell(outcomes, as_json)
    codes = {one.code for one in outcomes if one.error}
    if codes:
        if log is not None:
            report.console(stderr=True).print(f"Each step and each change is in {report.shown(log)}.")
        raise click.exceptions.Exit(1 if 1 in codes else 2)


def _tell(outcomes: list[Outcome], as_json: bool) -> None:
    if as_json:
        click.echo(fleet_report.as_json(outcomes), nl=False)
        return
    console = report.console()
    console.print(fleet_report.table(outcomes))
    pings = fleet_report.pings(outcomes)
    if pings:
        console.print()
        console.print(pings)
    for line in fleet_report.troubles(outcomes):
        console.print(report.shown(line))


def _print_plan(outcome: Outcome) -> None:
    if outcome.plan is None:
        return
    console = report.console()
    console.print(f"[bold]{report.shown(outcome.name)} ({report.shown(outcome.candidate.login)})[/]")
    for step in outcome.plan.steps:
        console.print(report.shown(report.diff(step)), end="")
    console.print(f"{len(outcome.plan.steps)} changes; nothing was changed.\n")
