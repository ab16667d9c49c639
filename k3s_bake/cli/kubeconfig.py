"""k3s-bake kubeconfig"""

import os
from pathlib import Path

import click

from bake import cluster_store
from bake.trust import Cluster
from firstboot import certificate
from firstboot.contract import host_alias
from firstboot.errors import UserError
from k3s_bake import kubeconfig as texts
from k3s_bake import masters, report
from k3s_bake.cli import operator_options
from k3s_bake.cli.operator_options import cluster_option, master_option


@click.command()
@cluster_option
@master_option
@click.option("--output", type=click.Path(path_type=Path), help="Write a file of its own, merge nothing.")
@click.option("--force", is_flag=True, help="Replace the file that --output names.")
@click.option("--print", "to_screen", is_flag=True, help="Print it: it holds the key of the cluster's admin.")
def kubeconfig(
    cluster: str | None, master: str | None, output: Path | None, force: bool, to_screen: bool
) -> None:
    """Fetch what kubectl needs to talk to the cluster, and merge it into its configuration.

    That is the first file of $KUBECONFIG, else ~/.kube/config. All else in it stays (comments do not), and so
    does an entry of another's by the same name; the current context changes only where there was none.

    \b
    Examples:
      k3s-bake kubeconfig && kubectl --context k3s-bake-home get nodes
      k3s-bake kubeconfig --cluster home --output home.yaml
    """
    if output is not None and to_screen:
        raise UserError("--output and --print exclude each other")
    if output is not None and output.exists() and not force:
        raise UserError(f"{output} is there already", "--force replaces it.")
    target = _target()
    before = "" if output is not None or to_screen else _read(target)
    entry = _fetched(operator_options.found(cluster), master)
    if to_screen:
        click.echo(texts.alone(entry), nl=False)
        return
    if output is not None:
        target = output
    _write(target, texts.merged(before, entry))
    at = "" if output is None else f"--kubeconfig {output} "
    report.console().print(report.shown(f"{target}: kubectl {at}--context {entry.name} get nodes"))


def _fetched(cluster: Cluster, master: str | None) -> texts.Entry:
    answer = masters.ask(cluster, "kubeconfig", {}, master)
    text, server = str(answer.get("kubeconfig", "")), str(answer.get("server", ""))
    authority = certificate.fingerprint(cluster.public_key)
    return texts.entry_of(text, server, host_alias(cluster.name), authority)


def _target() -> Path:
    named = [path for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    # A link is followed: it stays, and what it leads to is replaced.
    return (Path(named[0]) if named else Path.home() / ".kube" / "config").resolve()


def _read(target: Path) -> str:
    try:
        return target.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise UserError(f"cannot read {target}: {why}", "--output FILE leaves it alone.") from error


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        cluster_store.write_private(target, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}", "--output FILE names another.") from error
