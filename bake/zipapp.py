"""The node's agent as one file: firstboot and what it imports, in a zip that Python runs."""

import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bake import process
from bake.artifacts import Artifact
from bake.cache import Home, beside, locked, publish, writing
from bake.digests import sha256_of
from firstboot.errors import UserError, WorkFailed

_SOURCES = Path(__file__).parent.parent / "firstboot"
_REQUIREMENTS = _SOURCES / "requirements.txt"
_MAIN = b"from firstboot.__main__ import main\n\nmain()\n"
_TOLD = "k3s-bake image fetches it once, where the network is"


@dataclass(frozen=True)
class Pinned:
    """A pure wheel, known by its hash."""

    package: str
    version: str
    sha256: str


def pinned(text: str) -> tuple[Pinned, ...]:
    """What a requirements file names: a package, one version and one hash a line."""
    lines = re.findall(r"^([a-z0-9_]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", text, flags=re.MULTILINE)
    return tuple(Pinned(*line) for line in lines)


def build(home: Home, offline: bool, say: Callable[[str], None]) -> Artifact:
    """The agent's zip from the cache, made and put there first where it is not.

    The same sources and wheels give the same bytes. UserError where ``offline`` and a wheel is not in the
    cache, WorkFailed where one cannot be fetched.
    """
    files = contents(_wheels(home, offline, say))
    target = home.cache / "firstboot" / f"{_identity(files)}.pyz"
    if not target.is_file():
        with writing(target), locked(target, "the node's agent", say):
            part = beside(target, ".part")
            part.write_bytes(packed(files))
            publish(part, target)
    return Artifact(target, "firstboot.pyz", sha256_of(target), target.stat().st_size)


def contents(wheels: tuple[Path, ...]) -> dict[str, bytes]:
    """``{path in the zip: content}``: modules and their typing marks, without tests."""
    files = {"__main__.py": _MAIN}
    for path in _SOURCES.rglob("*.py"):
        files[f"firstboot/{path.relative_to(_SOURCES).as_posix()}"] = path.read_bytes()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            files |= {name: opened.read(name) for name in opened.namelist() if _goes_along(name)}
    return files


def packed(files: dict[str, bytes]) -> bytes:
    """The zip: in order, and with the time of nobody's clock."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, content)
    return buffer.getvalue()


def _goes_along(name: str) -> bool:
    path = Path(name)
    test = path.name.startswith("test_") or "tests" in path.parts
    return (path.suffix == ".py" or path.name == "py.typed") and not test


def _identity(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _wheels(home: Home, offline: bool, say: Callable[[str], None]) -> tuple[Path, ...]:
    wants = pinned(_REQUIREMENTS.read_text(encoding="utf-8"))
    folder = home.cache / "firstboot" / "wheels"
    if missing := list(_missing(wants, folder)):
        names = " and ".join(f"{want.package} {want.version}" for want in missing)
        if offline:
            raise UserError(f"--offline, but {names} for the node's agent is not in the cache", _TOLD)
        with writing(folder / "any"), locked(folder, names, say):
            if list(_missing(wants, folder)):
                say(f"fetching {names} for the node's agent")
                _download(names, folder)
        if list(_missing(wants, folder)):
            raise WorkFailed(f"pip fetched something else than {names}", f"Delete {folder}, and try again.")
    return tuple(_place(want, folder) for want in wants)


def _missing(wants: tuple[Pinned, ...], folder: Path) -> Iterator[Pinned]:
    for want in wants:
        path = _place(want, folder)
        if not path.is_file() or sha256_of(path) != want.sha256:
            yield want


def _place(want: Pinned, folder: Path) -> Path:
    return folder / f"{want.package}-{want.version}-py3-none-any.whl"


def _download(names: str, folder: Path) -> None:
    """By pip, whose settings say where packages come from here, and through which proxy."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet")
    options = ("--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(_REQUIREMENTS))
    try:
        process.run(*pip, *options, "--dest", str(folder))
    except WorkFailed as error:
        # pip's own words may hold an index's address, and a password in it: they are not passed on.
        raise WorkFailed(
            f"pip cannot fetch {names} for the node's agent",
            f"'{sys.executable} -m pip download {names.replace(' and ', ' ').split()[0]}' says why.",
        ) from error
