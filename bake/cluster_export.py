"""Carry a cluster's authority to a second operator, or to safety: one file, the signing key in it.

A tar without compression of known names only, so that nothing in it can lead elsewhere or swell.
"""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bake import cache, cluster_store, trust
from bake.cluster_store import AUTHORITY, ISSUED, LAST_MASTER, PUBLIC, REVOKED, UNDELIVERED
from bake.trust import Cluster
from firstboot import certificate
from firstboot.contract import is_label
from firstboot.errors import UserError

_PLAIN = (AUTHORITY, PUBLIC, ISSUED, REVOKED, UNDELIVERED, LAST_MASTER)
_KEPT = re.compile(r"(golden-worker|golden-master|host)/(key|key\.pub|key-cert\.pub)")
"""Not the operator's own key: the other one makes another."""
_T = TypeVar("_T")
_MOST_MEMBERS, _MOST_BYTES = 64, 8 << 20
_HINT = "It must be a file that 'k3s-bake cluster export' wrote."


def write(cluster: Cluster, target: Path, *, force: bool = False) -> None:
    """A 0600 file with all of the cluster's folder. UserError where it is there already, but by ``force``."""
    if target.exists() and not force:
        raise UserError(f"{target} is there already", "--force replaces it.")
    data = io.BytesIO()
    with cluster.locked(), tarfile.open(fileobj=data, mode="w") as archive:
        for path in sorted(cluster.folder.rglob("*")):
            name = path.relative_to(cluster.folder).as_posix()
            if (name in _PLAIN or _KEPT.fullmatch(name)) and path.is_file():
                member = tarfile.TarInfo(f"{cluster.name}/{name}")
                content = path.read_bytes()
                member.size, member.mode = len(content), 0o600
                archive.addfile(member, io.BytesIO(content))
    try:
        cluster_store.write_private(target, data.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def read(source: Path, home: cache.Home, say: trust.Say) -> Cluster:
    """Takes a cluster in. What was signed and revoked is added to one of the same authority that is there.

    UserError for what ``write`` did not write, and where another cluster of the name is there.
    """
    name, files = _files(source)
    folder = cluster_store.folder(home)
    with cache.writing(folder / name):
        folder.chmod(0o700)
        with cache.locked(folder / name, f"keys of cluster '{name}'", say):
            there = trust.exists(name, home)
            if not there:
                _place(folder / name, files)
    cluster = trust.find_cluster(name, home, say)
    if there:
        _add(cluster, source, files)
    return cluster


def _files(source: Path) -> tuple[str, dict[str, bytes]]:
    try:
        size = source.stat().st_size
        if not source.is_file() or size > _MOST_BYTES:
            raise UserError(f"{source} is no exported cluster", _HINT)
        with tarfile.open(source, "r:") as archive:
            found = _members(archive)
        name, files = _checked(found)
    except FileNotFoundError as error:
        raise UserError(f"{source} is not there") from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise UserError(f"{source} is no exported cluster: {error}", _HINT) from error
    return name, files


def _members(archive: tarfile.TarFile) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member in archive:
        if not member.isreg() or member.issparse() or member.size > _MOST_BYTES or member.name in found:
            raise ValueError(f"{member.name!r} is out of place in it")
        if len(found) == _MOST_MEMBERS:
            raise ValueError("there is too much in it")
        file = archive.extractfile(member)
        content = file.read(_MOST_BYTES) if file else b""
        if len(content) != member.size:
            raise ValueError(f"{member.name!r} is cut off")
        found[member.name] = content
    return found


def _checked(found: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    files = {}
    tops = {path.partition("/")[0] for path in found}
    if len(tops) != 1 or not is_label(top := tops.pop()):
        raise ValueError("it holds not one cluster")
    for path, content in found.items():
        inner = path.partition("/")[2]
        if inner not in _PLAIN and not _KEPT.fullmatch(inner):
            raise ValueError(f"{path!r} is out of place in it")
        files[inner] = content
    _text(files, PUBLIC, certificate.public_key)
    _text(files, ISSUED, cluster_store.issued_of)
    _text(files, REVOKED, cluster_store.revoked_of)
    return top, files


def _text(files: dict[str, bytes], name: str, parse: Callable[[str], _T]) -> _T:
    return parse(files.get(name, b"").decode("ascii"))


def _place(target: Path, files: dict[str, bytes]) -> None:
    with cluster_store.new_folder(target.parent) as made:
        for name, content in files.items():
            path = made / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            cluster_store.write_private(path, content)
        cluster_store.place(made, target)


def _add(cluster: Cluster, source: Path, files: dict[str, bytes]) -> None:
    if _text(files, PUBLIC, certificate.public_key) != cluster.public_key:
        raise UserError(
            f"another cluster '{cluster.name}' is here already: {source} is of another authority",
            f"Move {cluster.folder} away first, if its cards and masters are no more.",
        )
    with cluster.locked():
        ours, theirs = cluster.issued(), _text(files, ISSUED, cluster_store.issued_of)
        every = {one.serial: one for one in [*theirs, *ours]}
        cluster_store.write_issued(cluster.folder, [every[serial] for serial in sorted(every)])
        before = cluster.revoked()
        new = [one for one in _text(files, REVOKED, cluster_store.revoked_of) if one not in before]
        pending = [*cluster.undelivered(), *(one.name for one in new)]
        cluster_store.write_undelivered(cluster.folder, pending)
        cluster_store.write_revoked(cluster.folder, [*before, *new])
