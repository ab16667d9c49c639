"""The base images this tool knows by name."""

import os
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bake.cache import Home
from firstboot.errors import UserError

DEFAULT_BASE = "raspios-buster-2023-05"

# Beside this package both in a checkout and when installed.
_CATALOGUE = Path(__file__).parent.parent / "images" / "bases.toml"


@dataclass(frozen=True)
class Base:
    name: str
    title: str
    url: str
    sha256: str
    """Of the compressed file at ``url``."""
    arch: str
    codename: str


def load() -> tuple[Base, ...]:
    """Newest first, as in images/bases.toml."""
    rows = tomllib.loads(_CATALOGUE.read_text(encoding="utf-8"))["base"]
    return tuple(Base(**row) for row in rows)


def find(name: str) -> Base:
    """Raises UserError, naming the nearest, where no base has that name."""
    bases = {base.name: base for base in load()}
    if name in bases:
        return bases[name]
    near = get_close_matches(name, bases, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(bases)}; or give an image's path"
    raise UserError(f"no base image is called '{name}'", hint)


def image_path(sha256: str, home: Home) -> Path:
    """Where the raw image of the archive with this sha256 lies once it is unpacked."""
    return home.cache / "bases" / f"{sha256}.img"


def cached(base: Base, home: Home) -> bool:
    # Not Path.is_file, which raises where this user may not look.
    return os.path.isfile(image_path(base.sha256, home))  # noqa: PTH113
