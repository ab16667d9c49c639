"""The recipe: from a base image to a node's image, a list of verbs."""

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bake import bmap, disk, guest, kvm, manifest, spec_json
from bake.base import ResolvedBase
from bake.cache import sha256_of
from bake.disk import Disk
from bake.draft import Draft, copy_sparsely, drafting, require_room, used
from bake.node import PROBES, Plan, plan
from bake.progress import Progress
from bake.spec import NodeSpec
from firstboot.edits import Place
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import Snapshot

_SLACK = 32 << 20
"""Bytes: what file system structures and the small edits may take besides the staged files."""


@dataclass(frozen=True)
class Job:
    base: ResolvedBase
    spec: NodeSpec
    sources: Mapping[str, Path]
    """sha256 -> the file to stage."""
    output: Path
    force: bool = False

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


def manifest_path(image: Path) -> Path:
    return image.with_name(image.name + ".manifest.json")


def bmap_path(image: Path) -> Path:
    return image.with_name(image.name + ".bmap")


def preview(job: Job, progress: Progress) -> Plan:
    """What bake() would do. Writes nothing."""
    layout = _check_base(job)
    with mounted(job.base.path, layout, progress, readonly=True) as tree:
        return plan(job.spec, tree.read(PROBES))


def bake(job: Job, progress: Progress) -> Baked:
    """Make the image. It appears at the end, whole and checked, or not at all.

    Raises UserError for what a person can mend, WorkFailed where the work could not be done. The base is
    only ever read.
    """
    layout = _check_base(job)
    check_output(job.output, job.base.path, force=job.force)
    require_room(job.output.parent, used(job.base.path) + job.staged + layout.boot.size + _SLACK)
    with ThreadPoolExecutor(2) as pool, drafting(job.output) as draft:
        pool.submit(kvm.works)  # takes its time where the answer is no
        base_sha256 = (
            pool.submit(sha256_of, job.base.path) if job.base.sha256 is None else _done(job.base.sha256)
        )
        _copy(job.base.path, draft, progress)
        extra = _missing_room(draft.image, layout, job.staged)
        if extra:
            disk.grow(draft.image, layout, extra)
            layout = disk.read_disk(draft.image)
        staged = {} if extra else disk.stage(draft.image, layout.root, job.sources)
        with mounted(draft.image, layout, progress, grown=bool(extra), staged=staged) as tree:
            todo = plan(job.spec, tree.read(PROBES))
            with progress.task(f"applying {len(todo.steps)} edits", None):
                tree.apply(todo.edits, {sha256: str(path) for sha256, path in job.sources.items()})
                tree.flush()
            placed = {edit.path: edit.sha256 for edit in todo.edits if isinstance(edit, Place)}
            _refuse_leftovers(job.spec, tree.read(PROBES, placed))
        with progress.task("checking files and file systems", None):
            _verify(draft.image, layout, placed)
            disk.check(draft.image, layout, draft.folder)
        with progress.task("mapping the blocks", None):
            block_map = bmap.describe(draft.image, layout)
        grown = draft.image.stat().st_size - job.base.path.stat().st_size
        texts = {
            bmap_path(job.output): block_map,
            manifest_path(job.output): _manifest(job, todo, base_sha256.result(), grown),
        }
        draft.publish(texts, private=todo.secret or _is_private(job.base.path), force=job.force)
    return Baked(job.output, manifest_path(job.output), bmap_path(job.output), todo, grown)


def _check_base(job: Job) -> Disk:
    layout = disk.read_disk(job.base.path)
    disk.refuse_dirty(job.base.path, layout)
    return layout


def check_output(output: Path, base: Path, *, force: bool) -> None:
    """UserError where the image cannot be put there. Called early: downloads are long."""
    if not os.path.isdir(output.parent):  # noqa: PTH112 (Path.is_dir raises where this user may not look)
        raise UserError(f"the folder {output.parent} does not exist", "Make it, or choose another --output.")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {output.parent}", "Choose another --output.")
    if output.exists() and base.exists() and output.samefile(base):
        raise UserError("the output is the base image itself", "--output names another file.")
    if output.exists() and not output.is_file():
        raise UserError(f"{output} is not a file", "--output names the image file to write.")
    for path in (output, manifest_path(output), bmap_path(output)):
        if path.exists() and not force:
            raise UserError(f"{path} is there already", "--force replaces it.")


def _is_private(base: Path) -> bool:
    """An image that was kept from others keeps from them what is in it."""
    return base.stat().st_mode & 0o077 == 0


def _done(value: str) -> "Future[str]":
    future: Future[str] = Future()
    future.set_result(value)
    return future


def _copy(base: Path, draft: Draft, progress: Progress) -> None:
    with progress.task("copying the base", base.stat().st_size) as advance:
        copy_sparsely(base, draft.image, advance)
    draft.image.chmod(0o600)  # until it is known whether it holds a secret


def _missing_room(image: Path, layout: Disk, staged: int) -> int:
    """Bytes by which root must grow; with a twentieth for the file system's own."""
    needed = staged + _SLACK
    free = disk.free_room(image, layout.root)
    return 0 if needed <= free else (needed - free) * 21 // 20


@contextmanager
def mounted(image: Path, layout: Disk, progress: Progress, **how: Any) -> Iterator[guest.GuestTree]:
    """The tree of an image, closed and written at the end. What it means: bake.guest.opened."""
    with ExitStack() as stack:
        with progress.task("opening the image", None):
            opening = guest.opened(image, layout, progress.say, **how)
            tree = stack.enter_context(opening)
        yield tree


def _verify(image: Path, layout: Disk, placed: Mapping[str, str]) -> None:
    """Large files, read back from outside the appliance."""
    for path, sha256 in placed.items():
        if disk.sha256_in(image, layout.root, path) != sha256:
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


def _manifest(job: Job, todo: Plan, base_sha256: str, grown: int) -> str:
    data: dict[str, Any] = {
        "tool": f"k3s-bake {version('k3s-bake')}",
        "base": {"name": job.base.name, "source": job.base.source, "sha256": base_sha256},
        "k3s": {
            "version": job.spec.k3s.version and str(job.spec.k3s.version),
            "sha256": job.spec.k3s.binary.sha256,
        },
        "spec": spec_json.to_json(job.spec),
        "grown": grown,
        "notes": [{"concern": concern, "text": text} for concern, text in todo.notes],
        "edits": manifest.steps(todo),
    }
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"
