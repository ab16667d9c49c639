"""The folders of clusters in the operator's data: private, each file whole or absent."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bake import cache
from firstboot.contract import is_label
from firstboot.errors import UserError

AUTHORITY, PUBLIC = "authority", "authority.pub"
ISSUED, REVOKED, UNDELIVERED, LAST_MASTER = "issued", "revoked", "undelivered", "last-master"
_NEW = ".new-"
_REVOKED_LINE = re.compile(r"(?:serial: (\d{1,20}) # (\S{1,80})|id: (\S{1,80}))")


@dataclass(frozen=True)
class Issued:
    """A certificate that was signed."""

    name: str
    """Its key id: a node's name for a card."""
    serial: int
    principal: str
    expires: int | None
    """Seconds since 1970; None: never."""


@dataclass(frozen=True)
class Revoked:
    name: str
    serial: int | None
    """None: every certificate under this name, for good."""

    @property
    def line(self) -> str:
        return f"id: {self.name}" if self.serial is None else f"serial: {self.serial} # {self.name}"


def folder(home: cache.Home) -> Path:
    return home.data / "clusters"


def names(home: cache.Home) -> list[str]:
    """The clusters that have a folder here."""
    found = folder(home)
    if not found.is_dir():
        return []
    return sorted(path.name for path in found.iterdir() if is_label(path.name) and path.is_dir())


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """A private folder to make something in; what is not renamed away is deleted."""
    with cache.writing(parent / _NEW):
        made = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Deletes what a run that was killed has left: for the one who holds the lock."""
    for left in parent.glob(f"{_NEW}*"):
        shutil.rmtree(left, ignore_errors=True)


def place(made: Path, target: Path) -> None:
    """A folder takes its name, in the place of an older one: a power cut leaves one of them, or none."""
    for path in [*made.iterdir(), made]:
        _sync(path)
    if target.is_dir():
        with new_folder(target.parent) as old:
            target.rename(old / "old")
            made.rename(target)
    else:
        made.rename(target)
    _sync(target.parent)


def write(target: Path, text: str) -> None:
    """0600 from the first byte on, atomically."""
    with cache.writing(target):
        write_private(target, text.encode())


def write_private(target: Path, data: bytes) -> None:
    """As ``write``, for any file; OSError as it comes."""
    part = cache.beside(target, f".{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with open(part, "xb", opener=_private) as file:
            file.write(data)
        cache.publish(part, target)
    finally:
        part.unlink(missing_ok=True)


def read(target: Path) -> str:
    """Empty where there is no such file."""
    try:
        return target.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise _garbled(target) from error


def issued(cluster: Path) -> list[Issued]:
    """UserError where the file is garbled."""
    try:
        return issued_of(read(cluster / ISSUED))
    except ValueError as error:
        raise _garbled(cluster / ISSUED) from error


def issued_of(text: str) -> list[Issued]:
    try:
        found = [Issued(**json.loads(line)) for line in text.splitlines()]
    except (TypeError, RecursionError) as error:
        raise ValueError("no list of certificates") from error
    for one in found:
        good = isinstance(one.name, str) and isinstance(one.principal, str) and type(one.serial) is int
        if not good or not (one.expires is None or type(one.expires) is int):
            raise ValueError("no list of certificates")
    return found


def write_issued(cluster: Path, all_of: Iterable[Issued]) -> None:
    write(cluster / ISSUED, "".join(f"{json.dumps(asdict(one))}\n" for one in all_of))


def revoked(cluster: Path) -> list[Revoked]:
    """UserError where the file is garbled."""
    try:
        return revoked_of(read(cluster / REVOKED))
    except ValueError as error:
        raise _garbled(cluster / REVOKED) from error


def revoked_of(text: str) -> list[Revoked]:
    found = []
    for line in text.splitlines():
        match = _REVOKED_LINE.fullmatch(line)
        if match is None or int(match[1] or 0) >= 1 << 64:
            raise ValueError("no list of what is revoked")
        found.append(Revoked(match[3], None) if match[3] else Revoked(match[2], int(match[1])))
    return found


def write_revoked(cluster: Path, all_of: Iterable[Revoked]) -> None:
    write(cluster / REVOKED, "".join(f"{one.line}\n" for one in all_of))


def undelivered(cluster: Path) -> list[str]:
    """Names that are revoked and of which no master knows it yet."""
    return read(cluster / UNDELIVERED).split()


def write_undelivered(cluster: Path, all_of: Iterable[str]) -> None:
    write(cluster / UNDELIVERED, "".join(f"{name}\n" for name in dict.fromkeys(all_of)))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _garbled(path: Path) -> UserError:
    return UserError(f"{path} is garbled", "Put it back from what 'k3s-bake cluster export' wrote.")
