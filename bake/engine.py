"""Which engine edits an image: libguestfs's appliance, or e2fsprogs and mtools on the image itself.

Both give the same tree under the same contract; what a node is knows of neither.
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from bake import e2fs, kvm
from bake.disk import Disk, features
from bake.process import answer
from firstboot.edits import Edit
from firstboot.errors import UserError
from firstboot.snapshot import Probe, Snapshot


class Engine(StrEnum):
    AUTO = "auto"
    """guestfs where KVM works and it is installed, else e2fs."""
    GUESTFS = "guestfs"
    E2FS = "e2fs"


class Tree(Protocol):
    """What both engines open. What the methods mean: bake.e2fs.E2fsTree."""

    def read(self, probes: Iterable[Probe], known: Mapping[str, str] | None = None) -> Snapshot: ...
    def apply(self, edits: Iterable[Edit], sources: Mapping[str, str]) -> None: ...
    def flush(self) -> None: ...


_NEEDED = (("debugfs", ("-V",), (1, 45), "e2fsprogs"), ("mcopy", ("--version",), (4, 0, 24), "mtools"))
"""Tool, how it tells its version, the oldest that does what is needed, its package. debugfs 1.45 has all that
Ext4 asks of it; mtools 4.0.24 takes the time of what it writes from SOURCE_DATE_EPOCH."""

_KEPT = frozenset(
    """
    64bit dir_index dir_nlink ext_attr extent extents extra_isize filetype flex_bg has_journal huge_file
    large_dir large_file meta_bg metadata_csum metadata_csum_seed orphan_file resize_inode sparse_super
    sparse_super2 uninit_bg
    """.split()  # noqa: SIM905 (a list of twenty strings is harder to read)
)
"""The features of ext4 that debugfs keeps right while it edits. Not among them, say: quota, casefold."""


def choose(wanted: Engine, image: Path, disk: Disk, say: Callable[[str], None]) -> Engine:
    """GUESTFS or E2FS. UserError where e2fs was asked for and cannot be."""
    if wanted is Engine.GUESTFS:
        return wanted
    installed = importlib.util.find_spec("guestfs") is not None
    if wanted is Engine.AUTO and installed and kvm.works():
        return Engine.GUESTFS
    try:
        for tool in _NEEDED:
            _require(*tool)
        _require_kept(image, disk)
    except UserError as error:
        if wanted is Engine.E2FS or not installed:
            raise
        say(f"{error.message}: using libguestfs")
        return Engine.GUESTFS
    return Engine.E2FS


def _require(tool: str, options: tuple[str, ...], oldest: tuple[int, ...], package: str) -> None:
    told, complaints = answer(tool, *options, stdin=b"")
    found = re.search(r"(\d+(?:\.\d+)+)", told.decode("utf-8", "replace") + complaints)
    version = tuple(map(int, found[1].split("."))) if found else ()
    if version < oldest:
        raise UserError(
            f"{tool} {found[1] if found else 'of unknown version'} is too old: "
            f"{'.'.join(map(str, oldest))} is needed",
            f"sudo apt install {package}, of a newer release; or use --engine guestfs.",
        )


def _require_kept(image: Path, disk: Disk) -> None:
    if strange := unkept(image, disk):
        raise UserError(
            f"debugfs does not keep the root's {', '.join(strange)}", "--engine guestfs takes such an image."
        )


def unkept(image: Path, disk: Disk) -> list[str]:
    """The root's features that debugfs must not touch."""
    return sorted(features(image, disk.root) - _KEPT)


def opened(
    engine: Engine,
    image: Path,
    disk: Disk,
    say: Callable[[str], None],
    *,
    staged: Mapping[str, str] | None = None,
    readonly: bool = False,
    epoch: int | None = None,
) -> AbstractContextManager[Tree]:
    """The image's tree, whole and closed on leaving without an error. Engines are told apart here alone.

    ``staged`` are large files that lie in the root's top folder already, as ``{sha256: name}``: a Place moves
    its file from there, and what is left of them goes. ``readonly`` leaves the image as it is. ``epoch``
    (seconds since 1970) is the time that e2fs gives to all it writes; None takes the base's last write.
    """
    if engine is Engine.E2FS:
        return e2fs.opened(image, disk, staged=staged, epoch=epoch)
    from bake import guest  # an operator's machine need not have libguestfs

    return guest.opened(image, disk, say, staged=staged, readonly=readonly)
