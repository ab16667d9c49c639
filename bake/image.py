"""The recipe: from a base image to a node's image, a list of verbs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from bake import bmap, disk, engine, ext4, manifest
from bake.base import ResolvedBase
from bake.cache import Home
from bake.card import stamp
from bake.digests import remembered, set_at_end
from bake.disk import Disk
from bake.draft import Draft, drafting, require_room
from bake.engine import Engine
from bake.node import PROBES, Plan, plan
from bake.progress import Progress
from bake.sparse import copy_sparsely, data, release, used
from bake.spec import NodeSpec
from bake.timings import Timings
from firstboot.edits import Place
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import Snapshot

P = ParamSpec("P")
T = TypeVar("T")

_SLACK = 32 << 20
"""Bytes: what file system structures and the small edits may take besides the staged files."""


@dataclass(frozen=True)
class Job:
    base: ResolvedBase
    disk: Disk
    """The base's."""
    spec: NodeSpec
    sources: Mapping[str, Path]
    """sha256 -> the file to stage."""
    output: Path
    home: Home
    force: bool = False
    engine: Engine = Engine.AUTO
    epoch: int | None = None
    """The time of all that is written, in seconds since 1970; None: the base's own, its last write."""

    @property
    def staged(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.sources.values())


@dataclass(frozen=True)
class Baked:
    image: Path
    manifest: Path
    bmap: Path
    plan: Plan
    grown: int
    """Bytes by which the image is larger than its base."""
    timings: Mapping[str, float]
    """Seconds by part of the work."""


def manifest_path(image: Path) -> Path:
    return image.with_name(image.name + ".manifest.json")


def bmap_path(image: Path) -> Path:
    return image.with_name(image.name + ".bmap")


def preview(jobs: Sequence[Job], progress: Progress) -> list[Plan]:
    """What bake() would do for each job of one base. Writes nothing."""
    base, layout, wanted = jobs[0].base.path, jobs[0].disk, jobs[0].engine
    chosen = engine.choose(wanted, base, layout, progress.say)
    with engine.opened(chosen, base, layout, progress.say, readonly=True) as tree:
        found = tree.read(PROBES)
    return [plan(job.spec, found) for job in jobs]


def bake(jobs: Sequence[Job], progress: Progress) -> Iterator[Baked]:
    """Make images from one base with the same parts. Each appears when it is whole and checked, or never.

    What they have in common is made once. Raises UserError for what a person can mend, WorkFailed where the
    work could not be done; images that were made by then stay. The base is only ever read.
    """
    first, layout = jobs[0], jobs[0].disk
    for job in jobs:
        check_output(job.output, first.base.path, force=job.force)
    chosen = engine.choose(first.engine, first.base.path, layout, progress.say)
    images = 1 if len(jobs) == 1 else len(jobs) + 1  # one more for what they have in common
    each = used(first.base.path) + first.staged
    require_room(first.output.parent, each * images + _scratch(first) + _SLACK)
    with ThreadPoolExecutor(1) as pool, set_at_end() as stop:
        base_sha256 = pool.submit(lambda: first.base.sha256 or remembered(first.base.path, first.home, stop))
        make = _Maker(layout, chosen, progress, base_sha256)
        if len(jobs) == 1:
            with drafting(first.output) as draft:
                make.common(first, draft)
                yield make.image(first, draft)
            return
        with drafting(first.output.with_name("common part")) as common:
            make.common(first, common)
            for job in jobs:
                with drafting(job.output) as draft:
                    make.clone(common, draft)
                    baked = make.image(job, draft)
                release(baked.image)
                yield baked


class _Maker:
    """Makes images from one base with the same parts."""

    def __init__(self, base: Disk, chosen: Engine, progress: Progress, base_sha256: Future[str]) -> None:
        self._layout = base
        self._engine = chosen
        self._progress = progress
        self._base_sha256 = base_sha256
        self._staged: Mapping[str, str] = {}
        self._timings = Timings()

    def common(self, job: Job, draft: Draft) -> None:
        """The base, made larger where that is needed, with the large files in it."""
        epoch = job.epoch if job.epoch is not None else disk.written_at(job.base.path, self._layout.root)
        self._copy(job.base.path, draft)
        extra = _missing_room(draft.image, self._layout, job.staged)
        if extra:
            with self._task("grow", "making the root larger"):
                disk.grow(draft.image, self._layout, extra, draft.folder, epoch)
                self._layout = disk.read_disk(draft.image)
        if engine.unkept(draft.image, self._layout):
            return  # libguestfs puts the files in itself, in ten times the time
        with self._task("stage", "staging K3s"):
            self._staged = ext4.stage(draft.image, self._layout.root.start, epoch, job.sources)

    def clone(self, common: Draft, draft: Draft) -> None:
        self._copy(common.image, draft)

    def image(self, job: Job, draft: Draft) -> Baked:
        """One node's own image, from the common part in its draft to its place."""
        todo, placed, found = self._edit(job, draft.image)
        block_map = self._check(draft, placed)
        timings, self._timings = self._timings, Timings()
        grown = draft.image.stat().st_size - job.base.path.stat().st_size
        texts = {
            bmap_path(job.output): block_map,
            manifest_path(job.output): manifest.document(
                base={"name": job.base.name, "source": job.base.source, "sha256": self._base_sha256.result()},
                spec=job.spec,
                todo=todo,
                card=stamp.record(draft.image, self._layout.boot.start, found),
                block_map=block_map,
                grown=grown,
                seconds=timings.rounded(),
            ),
        }
        draft.publish(texts, private=todo.secret or _is_private(job.base.path), force=job.force)
        return Baked(
            job.output, manifest_path(job.output), bmap_path(job.output), todo, grown, timings.seconds
        )

    def _edit(self, job: Job, image: Path) -> tuple[Plan, dict[str, str], Snapshot]:
        """The plan that was carried out, the sha256 of each large file by its path, and what is there now."""
        span = self._timings.span
        with ExitStack() as stack:
            with self._task("open", "opening the image"):
                opening = engine.opened(
                    self._engine,
                    image,
                    self._layout,
                    self._progress.say,
                    staged=self._staged,
                    epoch=job.epoch,
                )
                tree = stack.enter_context(opening)
            with span("read"):
                found = tree.read(PROBES)
            with span("plan"):
                todo = plan(job.spec, found)
            with self._task("apply", f"applying {len(todo.steps)} edits"):
                tree.apply(todo.edits, {sha256: str(path) for sha256, path in job.sources.items()})
                tree.flush()
            placed = {edit.path: edit.sha256 for edit in todo.edits if isinstance(edit, Place)}
            with span("re-read"):
                found = tree.read(PROBES, placed)
            with span("plan"):
                _refuse_leftovers(job.spec, found)
        return todo, placed, found

    def _check(self, draft: Draft, placed: Mapping[str, str]) -> str:
        """The block map. All at once: each part reads what the last one has just brought to memory."""
        image, layout = draft.image, self._layout
        with self._progress.task("checking files and file systems", None), ThreadPoolExecutor(4) as pool:
            checks = [
                pool.submit(self._timed, "check", disk.check_root, image, layout),
                pool.submit(self._timed, "check boot", disk.check_boot, image, layout, draft.folder),
                pool.submit(self._timed, "verify", _verify, image, layout, placed),
            ]
            block_map = pool.submit(self._timed, "hash", bmap.describe, image, layout)
            for check in checks:
                check.result()
            return block_map.result()

    def _timed(self, part: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._timings.span(part):
            return work(*args, **kwargs)

    def _copy(self, source: Path, draft: Draft) -> None:
        with (
            self._timings.span("copy"),
            self._progress.task("copying the base", source.stat().st_size) as advance,
        ):
            copy_sparsely(source, draft.image, advance)
        draft.image.chmod(0o600)  # until it is known whether it holds a secret

    @contextmanager
    def _task(self, part: str, title: str) -> Iterator[None]:
        with self._timings.span(part), self._progress.task(title, None):
            yield


def check_output(output: Path, base: Path, *, force: bool) -> None:
    """UserError where the image cannot be put there. Called early: downloads are long."""
    disk.refuse_path(output)
    if not os.path.isdir(output.parent):  # noqa: PTH112 (Path.is_dir raises where this user may not look)
        raise UserError(f"the folder {output.parent} does not exist", "Make it, or choose another --output.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {output.parent}", "Choose another --output.")
    for path in (output, manifest_path(output), bmap_path(output)):
        if path.exists() and base.exists() and path.samefile(base):
            raise UserError(f"{path} is the base image itself", "--output names another file.")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is not a file", "--output names the image file to write.")
        if path.exists() and not force:
            raise UserError(f"{path} is there already", "--force replaces it.")
    if output.exists() and not _has_partition_table(output):  # a token, cluster.toml or K3s named by mistake
        raise UserError(f"{output} is no image, so it is not replaced", "--output names the image to write.")


def _has_partition_table(path: Path) -> bool:
    """By the signature of an MBR, which GPT has too."""
    with path.open("rb") as file:
        return file.read(512)[510:] == b"\x55\xaa"


def _is_private(base: Path) -> bool:
    """An image that was kept from others keeps from them what is in it."""
    return base.stat().st_mode & 0o077 == 0


def _missing_room(image: Path, layout: Disk, staged: int) -> int:
    """Bytes by which root must grow; with a twentieth for the file system's own."""
    needed = staged + _SLACK
    free = disk.free_room(image, layout.root)
    return 0 if needed <= free else (needed - free) * 21 // 20


def _scratch(job: Job) -> int:
    """Bytes of the copies that are made of a partition: of the FAT to check it, of a root that grows."""
    base, layout = job.base.path, job.disk
    copied = [layout.boot]
    if _missing_room(base, layout, job.staged):
        copied.append(layout.root)
    return max(data(base, part.start, part.size) for part in copied)


def _verify(image: Path, layout: Disk, placed: Mapping[str, str]) -> None:
    """Large files, read back."""
    root = ext4.Ext4(image, layout.root.start, disk.EARLIEST)
    for path, sha256 in placed.items():
        if root.sha256(path) != sha256:
            raise WorkFailed(f"{path} in the image is not what was staged", "Run it again; is the disk full?")


def _refuse_leftovers(spec: NodeSpec, found: Snapshot) -> None:
    """After apply, plan is empty: whatever is left was not written, or does not read back."""
    hint = "Is the disk full? If not, please report this."
    try:
        left = plan(spec, found)
    except UserError as error:
        raise WorkFailed(f"what was written does not read back: {error.message}", hint) from error
    if left.steps:
        paths = ", ".join(step.edit.path for step in left.steps[:5])
        raise WorkFailed(f"the image did not take {len(left.steps)} edits: {paths}", hint)
