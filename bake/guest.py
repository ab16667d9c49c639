"""An image as a tree, through libguestfs: the reference engine, and guestfs's only door.

The image is mounted inside an appliance, a small virtual machine, by the partition table and its own fstab:
libguestfs's inspection would find the same in 15 s.
"""

import contextlib
import errno
import fnmatch
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bake import kvm
from bake.disk import Disk
from bake.fstab import boot_folder
from firstboot.edits import Edit, Link, Remove, Write, check_path, owner_of, parent_mode
from firstboot.errors import UserError, WorkFailed
from firstboot.snapshot import (
    HEAD_BYTES,
    MAX_CONTENT,
    File,
    Folder,
    Node,
    Probe,
    Snapshot,
    Special,
    Symlink,
)
from firstboot.tree import in_the_way, source_of

_MESSAGE = 2 << 20  # bytes: libguestfs moves at most 4 MB in one message


@contextlib.contextmanager
def opened(
    image: Path, disk: Disk, say: Callable[[str], None], *, readonly: bool = False, grown: bool = False
) -> Iterator["GuestTree"]:
    """The image's tree. On leaving without an error all is written and the image is closed.

    ``readonly`` leaves the file as it is, whatever is applied. ``grown`` makes the root file system fill its
    partition first. Raises UserError where libguestfs or what it needs is missing.
    """
    guest = _launched(image, say, readonly)
    try:
        root, boot = (f"/dev/sda{part.number}" for part in (disk.root, disk.boot))
        with _worded("the file systems of the image"):
            if grown:
                guest.e2fsck(root, correct=True)
                guest.resize2fs(root)
            mount = guest.mount_ro if readonly else guest.mount
            mount(root, "/")
            point = boot_folder(_fstab(guest))
            if point is None:
                raise UserError(
                    "the image's fstab mounts no FAT partition", "Is it an image for Raspberry Pi?"
                )
            mount(boot, point)
        yield GuestTree(guest, point)
        with _worded("closing the image"):
            guest.shutdown()  # syncs, and fails where the appliance could not write
    finally:
        guest.close()


def _launched(image: Path, say: Callable[[str], None], readonly: bool) -> Any:
    try:
        import guestfs
    except ImportError as error:
        raise UserError(
            "the libguestfs binding for Python is missing",
            "sudo apt install python3-guestfs, and a virtual environment of /usr/bin/python3 with "
            "--system-site-packages: 'make setup' does both",
        ) from error
    emulate = not kvm.works()
    if emulate:
        say("no working KVM: libguestfs emulates, which is some ten seconds slower")
    try:
        return _launch(guestfs, image, readonly, emulate)
    except RuntimeError as error:
        if emulate:
            raise _launch_error(error) from error
    say("libguestfs failed with KVM: trying again with emulation")
    try:
        return _launch(guestfs, image, readonly, emulate=True)
    except RuntimeError as error:
        raise _launch_error(error) from error


def _launch(guestfs: Any, image: Path, readonly: bool, emulate: bool) -> Any:
    guest = guestfs.GuestFS(python_return_dict=True)
    try:
        guest.set_backend("direct")
        if emulate:
            guest.set_backend_setting("force_tcg", "1")
        # The image is a draft until it is published, and flushed then: no need to wait for the disk before.
        guest.add_drive_opts(str(image), format="raw", readonly=readonly, cachemode="unsafe")
        # QEMU's default is to stop the machine when this machine's disk is full, for ever.
        guest.config("-set", "drive.hd0.werror=report")
        guest.launch()
    except BaseException:
        guest.close()
        raise
    return guest


def _launch_error(error: RuntimeError) -> UserError:
    words = str(error)
    if "supermin" in words or "kernel" in words:
        return UserError(
            "libguestfs found no kernel for its appliance",
            "sudo apt install linux-image-amd64; on Ubuntu also: sudo chmod +r /boot/vmlinuz-*",
        )
    return UserError(f"libguestfs does not start: {words.splitlines()[0]}", "libguestfs-test-tool says more.")


def _fstab(guest: Any) -> str:
    try:
        return str(guest.read_file("/etc/fstab").decode("utf-8", "replace"))
    except RuntimeError as error:
        raise UserError(
            "the image has no /etc/fstab: its root is not a Linux system", "Use a Raspbian image."
        ) from error


def _says(error: RuntimeError, *codes: int) -> bool:
    """The binding raises RuntimeError for everything; the appliance words errno in the C locale."""
    return str(error).endswith(tuple(os.strerror(code) for code in codes))


@contextlib.contextmanager
def _worded(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if _says(error, errno.ENOSPC):
            raise UserError(
                f"{what}: no room left in the image", "Use a base with more free room."
            ) from error
        if _says(error, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP):
            raise in_the_way(what) from error
        raise WorkFailed(f"{what}: {str(error).splitlines()[0]}") from error


class GuestTree:
    """The mounted image. Links are resolved by the appliance's kernel, so never outside the image."""

    def __init__(self, guest: Any, boot: str) -> None:
        self._guest = guest
        self._boot = boot

    def read(self, probes: Iterable[Probe]) -> Snapshot:
        """What is there. UserError for a file beyond MAX_CONTENT where content was asked for."""
        asked = tuple(probes)
        nodes: dict[str, Node] = {}
        for probe in asked:
            with _worded(probe.path):
                for path in self._expand(probe.path):
                    node = self._node(path, probe.read)
                    if node is not None:
                        nodes[path] = node
        return Snapshot(nodes, asked)

    def apply(self, edits: Iterable[Edit], sources: Mapping[str, str]) -> None:
        """Carry out edits in order. UserError for what is in the way or has no room."""
        for edit in edits:
            with _worded(check_path(edit.path)):
                self._apply(edit, sources)

    def flush(self) -> None:
        """Write all out, and read from the disk from now on: a write that failed late shows then."""
        with _worded("writing the image"):
            self._guest.sync()
            self._guest.drop_caches(3)

    # reading

    def _expand(self, pattern: str) -> list[str]:
        found = [""]
        for part in pattern.split("/")[1:]:
            if "*" in part:
                found = [
                    f"{base}/{name}"
                    for base in found
                    if self._guest.is_dir(base or "/", followsymlinks=True)
                    for name in sorted(self._guest.ls(base or "/"))
                    if fnmatch.fnmatchcase(name, part)
                ]
            else:
                found = [f"{base}/{part}" for base in found]
        return found

    def _node(self, path: str, read: str) -> Node | None:
        try:
            status = self._guest.lstatns(path)
        except RuntimeError as error:
            if _says(error, errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        mode = status["st_mode"]
        if stat.S_ISLNK(mode):
            return Symlink(self._guest.readlink(path))
        if stat.S_ISDIR(mode):
            return Folder(tuple(sorted(self._guest.ls(path))) if read == "names" else ())
        if not stat.S_ISREG(mode):
            return Special()
        content, sha256 = self._content(path, status["st_size"], read)
        if path.startswith(self._boot + "/"):  # FAT: the mode read there means nothing
            return File(status["st_size"], None, None, None, sha256, content)
        return File(
            status["st_size"], stat.S_IMODE(mode), status["st_uid"], status["st_gid"], sha256, content
        )

    def _content(self, path: str, size: int, read: str) -> tuple[bytes | None, str]:
        if read == "names":  # of a folder; this is a file
            return None, ""
        if read == "head":
            return self._guest.pread(path, HEAD_BYTES, 0), ""
        if read == "digest":
            return None, self._guest.checksum("sha256", path)
        if size > MAX_CONTENT:
            raise UserError(f"{path} is far too large: {size} bytes", "Is this a Linux system?")
        content = b"".join(self._guest.pread(path, _MESSAGE, at) for at in range(0, size, _MESSAGE))
        return content, hashlib.sha256(content).hexdigest()

    # writing

    def _apply(self, edit: Edit, sources: Mapping[str, str]) -> None:
        guest, path = self._guest, edit.path
        self._refuse_in_the_way(path)
        if isinstance(edit, Remove):
            guest.rm_f(path)
            return
        self._make_folder(posixpath.dirname(path), edit)
        guest.rm_f(path)
        if isinstance(edit, Link):
            guest.ln_s(edit.target, path)
            return
        if isinstance(edit, Write):
            guest.write(path, edit.content)
        else:
            guest.upload(source_of(edit, sources), path)
        self._set_access(path, edit.mode, edit)

    def _refuse_in_the_way(self, path: str) -> None:
        node = self._node(path, "head")
        if isinstance(node, Folder | Special):
            raise in_the_way(path)

    def _make_folder(self, path: str, edit: Edit) -> None:
        guest = self._guest
        if guest.is_dir(path, followsymlinks=True):
            return
        if guest.is_symlink(path):  # a link to a folder that is not there yet
            target = posixpath.join(posixpath.dirname(path), guest.readlink(path))
            self._make_folder(posixpath.normpath(target), edit)
            return
        self._make_folder(posixpath.dirname(path), edit)
        guest.mkdir(path)
        self._set_access(path, parent_mode(edit), edit)

    def _set_access(self, path: str, mode: int, edit: Edit) -> None:
        if not path.startswith(self._boot + "/"):
            self._guest.chown(*owner_of(edit), path)
            self._guest.chmod(mode, path)
