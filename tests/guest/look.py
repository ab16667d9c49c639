"""Look into an image with the distribution's tools alone, never with the project's own code."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

SECTOR = 512


def tool(*command: object, text: str | None = None, accept: Sequence[int] = (0,)) -> str:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, env=env, input=(text or "").encode())
    assert done.returncode in accept, done.stderr.decode(errors="replace") + done.stdout.decode(
        errors="replace"
    )
    return done.stdout.decode("utf-8", "surrogateescape")


class Image:
    def __init__(self, path: Path) -> None:
        self.path = path
        table = json.loads(tool("sfdisk", "--json", path))["partitiontable"]
        self.disk_id = table["id"]
        self.parts = [(part["start"] * SECTOR, part["size"] * SECTOR) for part in table["partitions"]]
        self.types = [part["type"] for part in table["partitions"]]
        self.fat = f"{path}@@{self.parts[0][0]}"
        self.root = f"{path}?offset={self.parts[-1][0]}"

    def debugfs(self, command: str, *, write: bool = False) -> str:
        return tool("debugfs", *(["-w"] if write else []), "-R", command, self.root)

    def text(self, path: str) -> str:
        return self.debugfs(f'cat "{path}"')

    def stat(self, path: str) -> tuple[str, int, int, int] | None:
        """Kind, mode, owner and group; None where there is nothing."""
        out = self.debugfs(f'stat "{path}"')
        found = re.search(r"Type: (\w+) +Mode: +0(\d+).*?User: +(\d+) +Group: +(\d+)", out, re.DOTALL)
        return (found[1], int(found[2], 8), int(found[3]), int(found[4])) if found else None

    def link(self, path: str) -> str | None:
        """Target of a link, short or long; None for anything else."""
        stat = self.stat(path)
        if stat is None or stat[0] != "symlink":
            return None
        fast = re.search(r'Fast link dest: "(.*)"', self.debugfs(f'stat "{path}"'))
        return fast[1] if fast else self.text(path)

    def boot(self, name: str) -> str:
        return tool("mtype", "-i", self.fat, f"::{name}")

    def write(self, path: str, content: str | bytes, tmp: Path) -> None:
        """Replace a file of the root (as root's, 0644)."""
        source = tmp / "written"
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        if self.stat(path):
            self.debugfs(f'rm "{path}"', write=True)
        self.debugfs(f'write {source} "{path}"', write=True)

    def remove(self, path: str) -> None:
        self.debugfs(f'rm "{path}"', write=True)

    def fsck(self, tmp: Path) -> None:
        tool("e2fsck", "-fn", self.root)
        fat = tmp / "fat"
        start, size = self.parts[0]
        with self.path.open("rb") as source, fat.open("wb") as target:
            source.seek(start)
            for _ in range(size >> 20):
                target.write(source.read(1 << 20))
        tool("fsck.fat", "-n", fat)
