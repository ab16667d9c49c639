"""Checkers for a file that a person writes: each notes what is wrong under its path, and the rest goes on.

A checker takes the place where a value stands and the value, and gives what the program uses. What it gives
for a wrong value is never used, because a mistake was noted. Files that flags name are read here as well.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from firstboot.errors import UserError

_MAX_FILE = 1 << 20  # bytes; keys, tokens and registries are far smaller
_SECRET = re.compile(
    r"(.*[-_])?(token|psk|pass|passw(or)?d|passphrase|secret|private[-_]key|secret[-_](access[-_])?key)", re.I
)
_PUBLIC_KEY = re.compile(r"(.* )?(sk-)?(ssh|ecdsa)-\S+ AAAA\S+( .*)?")


@dataclass(frozen=True)
class At:
    """A place in the file, like ``node[2].role``, and where its mistakes go. Lists count from 1."""

    path: str
    folder: Path
    """The file's own: relative paths in it start there."""
    problems: list[str]

    def wrong(self, text: str) -> None:
        self.problems.append(f"{self.path}: {' '.join(text.split())}")

    def key(self, key: str) -> "At":
        shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)
        return At(f"{self.path}.{shown}".lstrip("."), self.folder, self.problems)

    def item(self, number: int) -> "At":
        return At(f"{self.path}[{number}]", self.folder, self.problems)

    def refused(self, error: UserError) -> None:
        self.wrong(f"{error.message} ({error.hint})" if error.hint else error.message)


Check = Callable[[At, object], Any]


def kind(value: object) -> str:
    """What a TOML value is, in words."""
    match value:
        case str():
            return "text"
        case bool():  # before int: it is one
            return "true or false"
        case int() | float():
            return "a number"
        case dict():
            return "a table"
        case list():
            return "a list"
    return "a date or time"


def is_secret(key: str) -> bool:
    """Whether the value under such a key is a secret, going by the key."""
    return _SECRET.fullmatch(key) is not None


def table(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """A table of these keys and no others. An unknown key is named; its value is never looked at."""

    def check(at: At, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            at.wrong(f"is {kind(value)}, not a table")
            return {}
        for key in value:
            if key not in fields:
                at.key(key).wrong(_unknown(key, fields))
        for key in required:
            if key not in value:
                at.key(key).wrong("is missing")
        return {key: check(at.key(key), value[key]) for key, check in fields.items() if key in value}

    return check


def _unknown(key: str, fields: Mapping[str, Check]) -> str:
    if is_secret(key):
        better = f"{key}_file" if f"{key}_file" in fields else "a key that names a file"
        return f"secrets do not belong in this file: use {better}"
    near = get_close_matches(key, fields, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known: {', '.join(fields)}"


def each(check: Check, written: str = "[ ]") -> Check:
    """A list, as a tuple; ``written`` is how one is written in TOML."""

    def check_all(at: At, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            at.wrong(f"is {kind(value)}, not a list: write {written}")
            return ()
        return tuple(check(at.item(number), item) for number, item in enumerate(value, 1))

    return check_all


def text(at: At, value: object) -> str:
    """One line of text that is not empty."""
    if not isinstance(value, str):
        at.wrong(f"is {kind(value)}, not text: write it in quotes")
    elif not value.strip():
        at.wrong("is empty")
    elif not value.isprintable():
        at.wrong("holds a line end or another character that cannot be seen")
    else:
        return value
    return ""


def flag(at: At, value: object) -> bool:
    """true or false; anything else is noted, and false."""
    if isinstance(value, bool):
        return value
    at.wrong(f"is {kind(value)}, not true or false")
    return False


def valid(parse: Callable[[str], Any]) -> Check:
    """Text that ``parse`` takes; its UserError becomes the mistake."""

    def check(at: At, value: object) -> Any:
        if given := text(at, value):
            try:
                return parse(given)
            except UserError as error:
                at.refused(error)
        return None

    return check


def matching(pattern: str, wanted: str) -> Check:
    def parse(given: str) -> str:
        if not re.fullmatch(pattern, given):
            raise UserError(f"{given!r} is not {wanted}")
        return given

    return valid(parse)


def path_to(read: Callable[[Path], Any]) -> Check:
    """A path, and what ``read`` makes of the file there; its UserError becomes the mistake."""

    def check(at: At, value: object) -> Any:
        if given := text(at, value):
            try:
                return read(_located(at, given))
            except UserError as error:
                at.refused(error)
        return None

    return check


def name_or_path(at: At, value: object) -> str:
    """Text that is kept as it is, unless it is a path or the name of a file beside this one."""
    given = text(at, value)
    if not given:
        return given
    path = _located(at, given)
    if path.is_file():
        return str(path)
    if "/" in given:
        at.wrong(f"{path} is not a file")
    return given


def _located(at: At, given: str) -> Path:
    return at.folder / os.path.expanduser(given)  # noqa: PTH111 (Path's own raises for an unknown ~user)


def public_keys(at: At, value: object) -> tuple[str, ...]:
    """A public key itself, or the path of a .pub file."""
    if isinstance(value, str) and _PUBLIC_KEY.fullmatch(value):
        return (text(at, value),)
    found: tuple[str, ...] = path_to(read_public_keys)(at, value) or ()
    return found


def existing_file(path: Path) -> Path:
    """Return it. UserError where it is not a file."""
    try:
        found = path.is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        found = False
    if not found:
        raise UserError(f"{path} is not a file", "check the path")
    return path


def read_file(path: Path) -> bytes:
    """UserError where it is not a file, cannot be read, or is far too large."""
    return _read(existing_file(path), private=False)


def read_secret(path: Path) -> bytes:
    """A secret without its line end. UserError where others may read the file too, or it holds nothing.

    A path that leads nowhere is not repeated: it may be the secret itself, given by mistake.
    """
    try:
        existing_file(path)
    except UserError as error:
        raise UserError("there is no such file", "give a file's path, never the secret itself") from error
    secret = _read(path, private=True).rstrip(b"\r\n")
    if not secret:
        raise UserError(f"{path} is empty", "put the secret into it")
    return secret


def read_public_keys(path: Path) -> tuple[str, ...]:
    """The lines of a .pub or authorized_keys file. UserError where it holds anything else, or nothing."""
    lines = read_file(path).decode("utf-8", "replace").splitlines()
    keys = tuple(line for line in map(str.strip, lines) if line and not line.startswith("#"))
    if not keys or not all(_PUBLIC_KEY.fullmatch(key) for key in keys):
        raise UserError(f"{path} does not hold SSH public keys", "take the file that ends in .pub")
    return keys


def _read(path: Path, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                raise UserError(f"others may read {path}", f"chmod 600 {path}")
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "check who may read it") from error
    if len(content) > _MAX_FILE:
        raise UserError(f"{path} is far too large", "check the path")
    return content
