"""The group of commands, and the only place that prints errors."""

import os
import signal
import sys
from types import FrameType

import click

from bake.cluster_file import ClusterFileError
from firstboot.errors import UserError
from k3s_bake import report
from k3s_bake.cli.adopt import adopt, preflight, upgrade
from k3s_bake.cli.bases import bases
from k3s_bake.cli.boot import boot
from k3s_bake.cli.cards import cards
from k3s_bake.cli.cluster import cluster
from k3s_bake.cli.flash import flash
from k3s_bake.cli.image import image
from k3s_bake.cli.inspect import inspect
from k3s_bake.cli.kubeconfig import kubeconfig
from k3s_bake.cli.nodes import nodes
from k3s_bake.cli.release import release
from k3s_bake.cli.revoke import revoke
from k3s_bake.cli.undo import remove, undo

_INTERRUPTED, _BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells say it


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="k3s-bake")
@click.pass_context
def cli(context: click.Context) -> None:
    """Turn stock Raspbian images into K3s nodes, offline; powered on, they make a cluster by themselves.

    \b
    Examples:
      k3s-bake image --role master --cluster home
      k3s-bake image --role worker --cluster home
      k3s-bake boot home-master.img home-worker.img --until joined
      k3s-bake nodes --watch
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.add_command(image)
cli.add_command(inspect)
cli.add_command(bases)
cli.add_command(boot)
cli.add_command(cards)
cli.add_command(flash)

cli.add_command(adopt)
cli.add_command(preflight)
cli.add_command(upgrade)
cli.add_command(remove)
cli.add_command(undo)

cli.add_command(nodes)
cli.add_command(kubeconfig)
cli.add_command(cluster)
cli.add_command(revoke)
cli.add_command(release)


def main() -> None:
    """Run a command. Exit code 2: something to mend; 1: work that failed; 130: interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        sys.exit(cli(standalone_mode=False))  # what it returns is a command's own exit code, or None
    except ClusterFileError as error:
        _fail("\n".join([error.message, *error.problems]), error.hint, error.exit_code)
    except UserError as error:
        _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"'{context.command_path} --help' says more." if context else ""
        _fail(error.format_message(), hint, 2)
    except PermissionError as error:
        hint = "Check its permissions, and those of the folders above it."
        _fail(f"{error.filename}: {error.strerror}", hint, 2)
    except (KeyboardInterrupt, click.Abort):
        _fail(
            "interrupted",
            "What was downloaded is kept for the next run, and so is each finished image.",
            _INTERRUPTED,
        )
    except BrokenPipeError:  # the reader, head say, has seen enough: nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, hint: str, code: int) -> None:
    console = report.console(stderr=True)
    console.print(f"[bold red]error:[/] {report.shown(message)}")
    if hint:
        console.print(f"[bold]hint:[/]  {report.shown(hint)}")
    sys.exit(code)
