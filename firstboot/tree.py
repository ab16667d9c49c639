"""A folder as a tree: read a snapshot of it, carry out edits in it, atomically.

The folder is a test's, or ``/`` on the node itself. Links are resolved inside the tree by a walk over open
folders, so that no link, whatever it says and whoever changes it meanwhile, leads out of it.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import errno
import os
import stat
from itertools import groupby
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from firstboot import placing
from firstboot.edits import Edit, Link, Place, Remove, Write, check_path, owner_of, parent_mode
from firstboot.errors import UserError, WorkFailed
from firstboot.placing import source_of
from firstboot.snapshot import (
    MAX_LINKS,
    File,
    Folder,
    Node,
    Probe,
    Snapshot,
    Special,
    Symlink,
    expand,
    read_as,
)

_Access = Tuple[Optional[int], Optional[int], Optional[int]]


class FolderTree:
    """A folder of this machine as a tree.

    ``modeless`` are the mount points in it that keep neither modes nor owners (FAT). ``keeps_owners`` is
    False for an ordinary user's folder, where everything is the user's own. ``parts`` is a folder of this
    machine whose files were checked, and are nobody else's: they are placed without being written again.
    """

    def __init__(
        self,
        root: str,
        modeless: Sequence[str] = (),
        keeps_owners: Optional[bool] = None,
        parts: Optional[str] = None,
    ) -> None:
        self._root = root
        self._parts = parts
        self._modeless = tuple(modeless)
        self._keeps_owners = os.geteuid() == 0 if keeps_owners is None else keeps_owners

    def read(self, probes: Iterable[Probe]) -> Snapshot:
        """What is there. UserError for a file beyond MAX_CONTENT where content was asked for, WorkFailed
        for what this user may not read."""
        asked = tuple(probes)
        nodes: Dict[str, Node] = {}
        places: List[Tuple[str, str]] = []
        try:
            for probe in asked:
                path = probe.path
                places += [(check_path(place), probe.read) for place in expand(path, self._listing)]
            # Those of a folder together: the way there is walked once.
            for parents, group in groupby(sorted(places, key=_parents_of), _parents_of):
                with self._folder(parents) as folder:
                    for path, read in group:
                        node = None if folder is None else self._node(folder, path, read)
                        if node is not None:
                            nodes[path] = node
        except OSError as error:
            raise WorkFailed(f"{path}: {error.strerror}") from error
        return Snapshot(nodes, asked)

    def apply(self, edits: Iterable[Edit], sources: Optional[Mapping[str, str]] = None) -> None:
        """Carry out edits in order; each is whole or not there at all, whenever the power goes.

        ``sources`` maps the sha256 of each Place to a file of this machine. UserError for what is in the
        way, WorkFailed where the file system does not do it.
        """
        for _, group in groupby(edits, lambda edit: (os.path.dirname(edit.path), isinstance(edit, Remove))):
            self._apply(list(group), sources or {})

    # reading

    def _listing(self, path: str) -> List[str]:
        with self._folder(path) as folder:
            return [] if folder is None else sorted(os.listdir(folder))

    def _node(self, folder: int, path: str, read: str) -> Optional[Node]:
        name = os.path.basename(path)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            return Symlink(os.readlink(name, dir_fd=folder))
        if stat.S_ISREG(status.st_mode):
            return self._file(folder, name, path, read)
        if stat.S_ISDIR(status.st_mode):
            names = tuple(self._listing(path)) if read == "names" else ()
            return Folder(names, *self._access(path, status))
        return Special()

    def _file(self, folder: int, name: str, path: str, read: str) -> File:
        # NONBLOCK: should the name have become a fifo meanwhile, do not wait for its writer.
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(handle, "rb") as stream:
            status = os.fstat(handle)
            content, sha256 = read_as(read, stream, status.st_size, path)
        return File(status.st_size, *self._access(path, status), sha256, content)

    def _access(self, path: str, status: os.stat_result) -> _Access:
        if self._is_modeless(path):
            return None, None, None
        mode = stat.S_IMODE(status.st_mode)
        return (mode, status.st_uid, status.st_gid) if self._keeps_owners else (mode, None, None)

    def _is_modeless(self, path: str) -> bool:
        return any(path.startswith(mount.rstrip("/") + "/") for mount in self._modeless)

    # writing

    def _apply(self, edits: Sequence[Edit], sources: Mapping[str, str]) -> None:
        """Those of one folder: its entries are brought to the disk at once, before the next folder's."""
        edit = edits[0]
        try:
            parents = os.path.dirname(check_path(edit.path))
            with self._folder(parents, None if isinstance(edit, Remove) else edit) as folder:
                if folder is None:
                    return  # nothing to remove where there is no folder
                for edit in edits:
                    self._apply_in(folder, edit, sources)
                os.fsync(folder)
        except (NotADirectoryError, IsADirectoryError) as error:
            raise in_the_way(edit.path) from error
        except OSError as error:
            raise WorkFailed(f"{edit.path}: {error.strerror}", _hint(error)) from error

    def _apply_in(self, folder: int, edit: Edit, sources: Mapping[str, str]) -> None:
        name = os.path.basename(check_path(edit.path))
        _refuse_in_the_way(folder, name, edit.path)
        if not isinstance(edit, Remove):
            self._replace(folder, name, edit, sources)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def _replace(
        self, folder: int, name: str, edit: Union[Write, Place, Link], sources: Mapping[str, str]
    ) -> None:
        temporary = f".{name}.k3s-bake"
        with contextlib.suppress(FileNotFoundError):  # left by a power cut
            os.unlink(temporary, dir_fd=folder)
        try:
            if isinstance(edit, Link):
                os.symlink(edit.target, temporary, dir_fd=folder)
            else:
                self._fill(folder, temporary, edit, sources)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise

    def _fill(self, folder: int, name: str, edit: Union[Write, Place], sources: Mapping[str, str]) -> None:
        is_there = isinstance(edit, Place) and placing.link(
            source_of(edit, sources), self._parts, folder, name
        )
        new = os.O_RDONLY if is_there else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        handle = os.open(name, new | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(handle, "rb" if is_there else "wb") as stream:
            if not self._is_modeless(edit.path):  # access before the first byte: a secret is never readable
                if self._keeps_owners:
                    os.fchown(handle, edit.owner, edit.group)
                os.fchmod(handle, edit.mode)
            if isinstance(edit, Write):
                stream.write(edit.content)
            elif not is_there:
                placing.copy(source_of(edit, sources), stream, edit)
            stream.flush()
            os.fsync(handle)

    # walking

    @contextlib.contextmanager
    def _folder(self, path: str, made_for: Optional[Edit] = None) -> Iterator[Optional[int]]:
        """The open folder at the end of a path, resolved inside the tree; None where there is none.

        With ``made_for`` missing folders are made on the way, and what is no folder raises.
        """
        stack = [os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            try:
                self._walk(stack, path.split("/")[::-1], made_for)
                end: Optional[int] = stack[-1]
            except OSError as error:
                if made_for or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                end = None
            yield end
        finally:
            _leave(stack, 0)

    def _walk(self, stack: List[int], pending: List[str], made_for: Optional[Edit]) -> None:
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":  # above the root is the root, as under chroot
                _leave(stack, max(1, len(stack) - 1))
            elif part not in ("", "."):
                target = self._enter(part, stack, made_for)
                if target is None:
                    continue
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    _leave(stack, 1)
                pending.extend(reversed(target.split("/")))

    def _enter(self, name: str, stack: List[int], made_for: Optional[Edit]) -> Optional[str]:
        """Go one folder down; where the name is a link, return its target instead."""
        try:
            stack.append(_open_folder(name, stack[-1]))
        except FileNotFoundError:
            if made_for is None:
                raise
            stack.append(self._make_folder(name, stack[-1], made_for))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            try:
                return os.readlink(name, dir_fd=stack[-1])
            except OSError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return None

    def _make_folder(self, name: str, parent: int, edit: Edit) -> int:
        # Under its name only when it is its owner's: it is never mended later.
        temporary = f".{name}.k3s-bake"
        with contextlib.suppress(FileExistsError):  # left by a power cut
            os.mkdir(temporary, 0o700, dir_fd=parent)
        handle = _open_folder(temporary, parent)
        if not self._is_modeless(edit.path):
            if self._keeps_owners:
                os.fchown(handle, *owner_of(edit))
            os.fchmod(handle, parent_mode(edit))
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
        return handle


def _parents_of(asked: Tuple[str, str]) -> str:
    """Of a path, and how it is to be read."""
    return os.path.dirname(asked[0])


def _open_folder(name: str, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _leave(stack: List[int], depth: int) -> None:
    while len(stack) > depth:
        os.close(stack.pop())


def _refuse_in_the_way(folder: int, name: str, path: str) -> None:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise in_the_way(path)


def in_the_way(path: str) -> UserError:
    """The one wording for a folder or special file where an edit wants a file, or a file for a folder."""
    return UserError(f"{path}: what is no file, or no folder, is in the way", "Move it away, then try again.")


def _hint(error: OSError) -> str:
    return "Make room, then run it again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
