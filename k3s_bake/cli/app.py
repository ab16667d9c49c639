"""The group of commands, and the only place that prints errors."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

import click

from bake.cluster_file import ClusterFileError
from firstboot.errors import UserError
from k3s_bake import report

_COMMANDS = {
    "image": "image",
    "inspect": "inspect",
    "bases": "bases",
    "boot": "boot",
    "cards": "cards",
    "flash": "flash",
    "discover": "discover",
    "adopt": "adopt",
    "preflight": "adopt",
    "upgrade": "adopt",
    "reset": "reset",
    "remove": "undo",
    "undo": "undo",
    "nodes": "nodes",
    "status": "status",
    "kubeconfig": "kubeconfig",
    "cluster": "cluster",
    "revoke": "revoke",
    "release": "release",
}
"""Each command, and the module here that has it, in the order of a cluster's life."""

_INTERRUPTED, _BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells say it


class _Commands(click.Group):
    """Imports a command when it is asked for: what the others need takes half of a second, and memory."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"k3s_bake.cli.{_COMMANDS[name]}"), name)
        return found


@click.group(
    cls=_Commands,
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
      k3s-bake flash home-worker.img /dev/sdX /dev/sdY
      k3s-bake nodes --watch
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


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
