"""From an image and the cards that a person named to cards that are written, each with a receipt."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bake.cache import Home
from bake.card import choice, found, order, plain_file, receipt, rights
from bake.card.devices import Device, Judged
from bake.card.flash import Flash, Job
from bake.card.plain_file import PlainFile
from bake.card.receipt import Receipt
from bake.card.source import Source
from bake.card.stamp import Stampable
from bake.card.target import Target
from bake.card.write import Stamp
from firstboot.errors import UserError
from k3s_bake import cards_table

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    source: Source
    what: Stampable | None
    """None: written as it is."""
    paths: Sequence[Path]
    names: Sequence[str]
    """One a card; empty ones where nothing is stamped."""
    home: Home
    say: Say
    more: dict[str, Any] = field(default_factory=dict)
    """What each is told besides its name: an address."""
    force: bool = False

    @cached_property
    def devices(self) -> list[Path]:
        """Decided once: what is pulled out while a person is asked becomes no file."""
        return [path for path in self.paths if path.is_block_device()]

    @cached_property
    def files(self) -> list[Path]:
        return [path for path in self.paths if path not in self.devices]


@dataclass(frozen=True)
class Result:
    path: Path
    name: str
    error: UserError | None
    receipt: Receipt | None
    """Of a card that is whole."""


def look(order_: Order) -> list[Judged]:
    """The devices among the cards. UserError for what cannot be written, or is too small."""
    for path in order_.files:
        plain_file.check(path, order_.source.path, force=order_.force)
    if len({path.resolve() for path in order_.files}) < len(order_.files):
        raise UserError("a file is named twice", "Name each once.")
    chosen = choice.choose(order_.devices, found.devices() if order_.devices else [], order_.source.path)
    for one in chosen:
        choice.check_size(one.device, order_.source.size)
    return chosen


def write(order_: Order, chosen: Sequence[Judged]) -> list[Result]:
    """All of them. UserError before anything is written; what fails then is in the results."""
    receipts: dict[Path, Receipt] = {}
    judged = {one.device.number: one.device for one in chosen}
    with ExitStack() as stack:
        targets, files = _opened(order_, chosen, stack)
        jobs = [Job(targets[path], stamp) for path, stamp in zip(order_.paths, _stamps(order_), strict=True)]
        names = dict(zip(order_.paths, order_.names, strict=True))

        def done(job: Job) -> None:
            path = job.target.path
            if path in files:
                files[path].publish(order_.source.size or 0)
            made = _receipt(order_, job, names[path], judged.get(job.target.number))
            receipt.keep(made, order_.home)
            receipts[path] = made

        # Of Ctrl-C the cards that are not done tell themselves, and the others have receipts.
        with suppress(KeyboardInterrupt), Flash(order_.source, jobs, done) as flash:
            cards_table.follow(flash, order_.names, order_.source.to_write)
        return [
            Result(path, names[path], job.error, receipts.get(path))
            for path, job in zip(order_.paths, jobs, strict=True)
        ]


def _opened(
    order_: Order, chosen: Sequence[Judged], stack: ExitStack
) -> tuple[dict[Path, Target], dict[Path, PlainFile]]:
    devices = stack.enter_context(rights.opened(order_.devices, order_.say))
    if devices:
        choice.check_opened(devices, chosen, found.devices())
    files = {
        path: stack.enter_context(plain_file.opened(path, order_.source, force=order_.force))
        for path in order_.files
    }
    targets = {target.path: target for target in devices}
    return targets | {path: file.target for path, file in files.items()}, files


def _stamps(order_: Order) -> Iterator[Stamp | None]:
    if order_.what is None:
        yield from (None for _ in order_.paths)
        return
    cluster = order.cluster_of(order_.what, order_.home, order_.say)
    for name in order_.names:
        yield Stamp(order_.what.credential, order.credential(cluster, order_.what, name, order_.more))


def _receipt(order_: Order, job: Job, name: str, device: Device | None) -> Receipt:
    source, what = order_.source, order_.what
    return Receipt(
        written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        device=str(job.target.path),
        model=device.model if device else "",
        serial=device.serial if device else "",
        size=job.target.size,
        image=str(source.path),
        image_size=source.size or 0,
        parts_sha256=source.parts_sha256,
        bytes_written=job.state.written,
        verified=True,
        seconds={phase: round(seconds, 3) for phase, seconds in job.state.seconds.items()},
        cluster=what.cluster if what else "",
        role=what.role if what else "",
        name=name,
        certificate=order.serial_of(job.stamp.credential) if job.stamp else 0,
    )
