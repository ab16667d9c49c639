"""k3s-bake boot"""

import contextlib
import functools
import json
import queue
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from bake.cache import home
from bake.emulator.board import Board
from bake.emulator.console import Word
from bake.emulator.dhcp import Lan
from bake.emulator.kernel import kernel
from bake.emulator.lab import Lab, Setup, check_images
from bake.emulator.machine import Machine
from firstboot.errors import UserError, WorkFailed
from k3s_bake import report, terminal
from k3s_bake.progress import Bars
from k3s_bake.watch import Event, Watch

Events = queue.SimpleQueue[tuple[float, Machine, Word]]

_LOG_IN = (
    "Ctrl-C ends all. To log in: --console with one image, or --expose 2222:22 and then "
    "ssh -p 2222 pi@127.0.0.1"
)


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option("--until", type=click.Choice(["joined", "login"]), help="End when every machine is there.")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=600.0,
    show_default=True,
    help="Seconds that --until waits.",
)
@click.option(
    "--expose",
    multiple=True,
    metavar="[HERE:]PORT",
    help="A port of the first image's machine, on this machine's loopback. Repeat for more.",
)
@click.option("--internet", is_flag=True, help="Let the machines out through this one.")
@click.option("--console", "interactive", is_flag=True, help="This terminal is the machine's; Ctrl-] leaves.")
@click.option(
    "--memory",
    type=click.IntRange(128, 2048),
    default=512,
    show_default=True,
    help="MiB of each machine.",
)
@click.option("--log-dir", type=click.Path(path_type=Path), help="Keep what the consoles say there.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a line for each event.")
def boot(
    images: tuple[Path, ...],
    until: str | None,
    timeout: float,
    expose: tuple[str, ...],
    internet: bool,
    interactive: bool,
    memory: int,
    log_dir: Path | None,
    as_json: bool,
) -> None:
    """Boot IMAGEs in emulated machines on one link of their own, before any card is written.

    Each is booted from a copy, as a card of 4 GiB: the images stay as they are. An IMAGE may be a card in its
    reader, /dev/sdX, where you may read it. The machines are QEMU's, with
    a kernel of Debian's in place of a Pi's; systemd, the first-boot agent and K3s are the image's own. A boot
    takes a minute or two. Without --until they run until Ctrl-C.

    Exits with 1 where the time of --until is over.

    \b
    Examples:
      k3s-bake boot master.img worker.img --until joined
      k3s-bake boot master.img worker.img worker.img --expose 6443
      k3s-bake boot worker.img --console
      k3s-bake boot home-master.img /dev/sdX --until joined
    """
    if interactive:
        _check_console(images, until, as_json)
    check_images(images)
    setup = Setup(Lan(internet=internet), expose=dict(map(_port, expose)), board=Board(memory))
    bars = Bars()
    made = kernel(home(), bars)
    events: Events = queue.SimpleQueue()

    def told(machine: Machine, word: Word) -> None:
        events.put((time.monotonic(), machine, word))

    with _logs(log_dir) as logs, Lab(images, made, setup, logs=logs, told=told, progress=bars) as lab:
        if interactive:
            _attach(lab)
            return
        bars.say(f"What the consoles say is in {logs}. {'' if until else _LOG_IN}".strip())
        _follow(lab, events, Watch(lab.machines, until), timeout if until else None, as_json)


def _check_console(images: Sequence[Path], until: str | None, as_json: bool) -> None:
    if len(images) > 1:
        raise UserError("--console is for one image", "The others can run in another terminal, without it.")
    if until or as_json:
        raise UserError("--console goes with neither --until nor --json", "Leave them out.")
    terminal.require_terminal()


def _port(text: str) -> tuple[int, int]:
    """Of this machine, and of the one it leads to."""
    here, _, there = text.rpartition(":")
    try:
        ports = int(here or there), int(there)
    except ValueError:
        ports = 0, 0
    if not all(0 < port < 65536 for port in ports):
        raise UserError(f"--expose {text} is no port", "Like --expose 6443, or --expose 16443:6443.")
    return ports


@contextlib.contextmanager
def _logs(wanted: Path | None) -> Iterator[Path]:
    """A folder for them; one of our own goes unless something failed."""
    if wanted:
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            hint = "--log-dir names a folder to write to."
            raise UserError(f"cannot make {wanted}: {error.strerror}", hint) from error
        yield wanted
        return
    made = Path(tempfile.mkdtemp(prefix="k3s-bake-consoles-"))
    try:
        yield made
    except WorkFailed:
        raise  # its hint names the folder
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(made, ignore_errors=True)


def _attach(lab: Lab) -> None:
    (machine,) = lab.machines.values()
    machine.tap = terminal.show
    report.console(stderr=True).print("Ctrl-] leaves, and ends the machine.")
    machine.power_on()
    terminal.pass_keys(machine.type, lambda: machine.is_on)
    click.echo()
    if machine.failure:
        raise machine.failure


def _follow(
    lab: Lab,
    events: Events,
    watch: Watch,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Until all are there. WorkFailed where they do not come there."""
    started = time.monotonic()
    lab.power_on()
    show = functools.partial(_show, as_json=as_json)
    while not watch.done:
        if timeout is not None and time.monotonic() > started + timeout:
            raise _late(lab, watch, f"not all machines got there in {timeout:g} s")
        if len(watch.dead) == len(lab.machines) or (timeout is not None and watch.dead):
            raise _late(lab, watch, f"{' and '.join(watch.dead)} stopped")
        try:
            at, machine, word = events.get(timeout=0.5)
        except queue.Empty:
            continue
        event = Event(round(at - started, 1), machine.name, word.what, word.reason, word.node)
        watch.take(event)
        show(event)
    if not as_json:
        report.console().print(f"All are there after {time.monotonic() - started:.1f} s.")


def _late(lab: Lab, watch: Watch, what: str) -> WorkFailed:
    failed = [machine.failure.message for machine in lab.machines.values() if machine.failure]
    folder = next(iter(lab.machines.values())).log.parent
    hint = f"{watch.remedy()} What the consoles said is in {folder}.".strip()
    return WorkFailed("; ".join([what, watch.report(), *failed]), hint)


def _show(event: Event, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(event)))
    else:
        line = f"[{event.seconds:6.1f} s] {event.machine}: {event.text}"
        report.console().print(report.shown(line))
