"""From what a person names as base to a raw image on this machine."""

from dataclasses import dataclass
from pathlib import Path

from bake import catalogue
from bake.cache import Home, locked, writing
from bake.catalogue import image_path
from bake.digests import remembered
from bake.download import Web
from bake.unpack import archive_kind, unpack
from firstboot.errors import UserError

_IMAGE_SUFFIXES = {".img", ".raw", ".zip", ".xz", ".gz", ".zst"}


@dataclass(frozen=True)
class ResolvedBase:
    path: Path
    """A raw image, to be read only: it is the person's own file, or the cache's."""
    name: str
    sha256: str | None
    """Of the compressed file; None for a raw image, which nothing has read yet."""
    source: str
    """The URL or path it came from."""


def resolve(base: str, home: Home, web: Web) -> ResolvedBase:
    """The image of a known name, or of a path to a raw or packed image.

    Raises UserError where there is no such name or file, or where it is damaged.
    """
    return _local(Path(base).expanduser(), home, web) if _is_path(base) else _known(base, home, web)


def _is_path(base: str) -> bool:
    return "/" in base or Path(base).suffix in _IMAGE_SUFFIXES or Path(base).exists()


def _known(name: str, home: Home, web: Web) -> ResolvedBase:
    base = catalogue.find(name)
    image = image_path(base.sha256, home)
    download = home.cache / "downloads" / base.url.rpartition("/")[2]
    with writing(image), locked(image, name, web.progress.say):
        if not image.is_file():
            unpack(web.fetch(base.url, download, base.sha256), image, web.progress)
            download.unlink()
    return ResolvedBase(image, name, base.sha256, base.url)


def _local(path: Path, home: Home, web: Web) -> ResolvedBase:
    _check_readable(path)
    if archive_kind(path) is None:
        return ResolvedBase(path, path.name, None, str(path))
    # By content, not by name and time: a replaced file is never mistaken for the old one, and the file of a
    # known base shares that base's place. Hashing takes a small part of the time that unpacking would.
    sha256 = remembered(path, home)
    image = image_path(sha256, home)
    with writing(image), locked(image, path.name, web.progress.say):
        if not image.is_file():
            unpack(path, image, web.progress)
    return ResolvedBase(image, path.name, sha256, str(path))


def _check_readable(path: Path) -> None:
    hint = "--base takes the path of an image (.img, .zip, .xz, .gz, .zst) or a name from 'k3s-bake bases'"
    if not path.exists():
        raise UserError(f"base image {path} does not exist", hint)
    if not path.is_file():
        raise UserError(f"base image {path} is not a file", hint)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"base image {path} is empty", hint)
    except PermissionError as error:
        raise UserError(f"base image {path} cannot be read", "check its permissions") from error
