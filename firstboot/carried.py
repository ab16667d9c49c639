"""These modules on a node without lying there: their sources come in on standard input, and live in memory.

The operator's side sends this file as text, for ``python3 -c`` to run, so that no secret and no quoting ever
is on a command line. Runs on the node; even a Python too old for the rest must understand this file.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import zlib
from typing import Any, BinaryIO, Dict

OLDEST = (3, 7)
READY = "k3s-bake ready\n"
"""Said when Python is there and listens: nothing is sent before, or sudo would take it for a password."""

START = (
    f"import sys; sys.stdout.write({READY!r}); sys.stdout.flush(); "
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
"""For ``python3 -I -c``. A line with the number of this file's bytes follows, then the file, then a line with
the number of bytes of the sources, then they: JSON, ``{module: source}``, compressed."""


_SELDOM = {"inspect", "ipaddress"}
"""Of Python's own modules, those that ours (and dataclasses) import, and hardly ever use."""


class Carried(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, sources: Dict[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in _SELDOM:
            found = importlib.machinery.PathFinder.find_spec(name)
            if found is not None and found.loader is not None:
                found.loader = importlib.util.LazyLoader(found.loader)
            return found
        if name not in self._sources:
            return None
        # Compiled when something of it is first used: most of what is carried is for verbs not asked for.
        loader = importlib.util.LazyLoader(self)
        return importlib.util.spec_from_loader(name, loader, is_package=self.is_package(name))

    def get_source(self, name: str) -> str:
        return self._sources[name]

    def is_package(self, name: str) -> bool:
        return any(other.startswith(name + ".") for other in self._sources)


def main(stdin: BinaryIO, stdout: BinaryIO) -> None:
    sources = json.loads(zlib.decompress(stdin.read(int(stdin.readline()))).decode("utf-8"))
    if sys.version_info < OLDEST:
        sys.exit("Python {}.{} is too old".format(*sys.version_info[:2]))
    sys.meta_path.insert(0, Carried(sources))
    sys.stdout = sys.stderr  # what is printed by mistake does not come among the answers
    gc.disable()  # while modules come in there is nothing to collect
    serve = importlib.import_module("firstboot.remote").serve
    gc.enable()
    serve(stdin, stdout)
    os._exit(0)  # all is said: to take Python apart in good order would cost as much as a request


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
