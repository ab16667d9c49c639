"""A command file for debugfs, and words in it as debugfs reads them."""

import os

from bake.volumes import Entry
from firstboot.errors import UserError

LINE = 8000
"""Bytes: debugfs reads command files in lines of BUFSIZ (8192) at most, and takes the rest for another."""

_NAME_BYTES = 255


class Script:
    """A command file for debugfs, in the making."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.sources: list[int] = []
        self._made: dict[int, tuple[int, str]] = {}  # a folder still to be made: in which one, and its name
        self._keys = 0
        self._at = 0

    def key(self) -> int:
        self._keys -= 1
        return self._keys

    def add(self, folder: int, command: str) -> None:
        self._enter(folder)
        self._line(command)

    def make_folder(self, folder: int, name: str) -> int:
        self.add(folder, f"mkdir {named(name)}")
        key = self.key()
        self._made[key] = (folder, name)
        return key

    def set_access(self, name: str, entry: Entry) -> None:
        for field, value in (("mode", f"0{entry.mode:o}"), ("uid", entry.owner), ("gid", entry.group)):
            self._line(f"sif {there(name)} {field} {value}")

    def _enter(self, folder: int) -> None:
        if folder == self._at:
            return
        if folder in self._made:
            parent, name = self._made[folder]
            self._enter(parent)
            self._line(f"cd {there(name)}")
        else:
            self._line(f"cd <{folder}>")
        self._at = folder

    def _line(self, line: str) -> None:
        if len(os.fsencode(line)) > LINE:
            raise UserError(f"a link or name is too long for debugfs: {line[:60]}...")
        self.lines.append(line)


def named(name: str) -> str:
    """The name of what is to be made."""
    if len(os.fsencode(name)) > _NAME_BYTES:
        raise UserError(f"a name has at most {_NAME_BYTES} bytes: {name[:60]}...")
    return quoted(name)


def there(name: str) -> str:
    """A name in the folder that debugfs is in: a bare ``<12>`` would be an inode's number."""
    return quoted(f"./{name}")


def quoted(word: str) -> str:
    """As debugfs (libss) reads it: a quote inside quotes is doubled, nothing else means anything."""
    if set(word) & set("\n\r\0"):
        raise UserError(f"a name or link holds a line break, which debugfs cannot take: {word!r}")
    return '"' + word.replace('"', '""') + '"'
