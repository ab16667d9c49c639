"""A Python 3.7, as on Raspbian Buster: the PyPy of Debian bullseye, unpacked and never installed.

Buster's own is CPython 3.7.3, of which no package for this system is left. Kept in the cache of this user.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from bake.debian_mirror import apt_settings, mirror

_SUITE, _PACKAGE = "bullseye", "pypy3"
_LIBRARIES = ("libffi", "libssl", "libcrypto", "libgdbm", "libexpat", "libbz2", "libtinfo", "libncurses")
"""What it links with; all else (libc) is this system's."""

_WHEELS = """
    attrs==24.2.0 exceptiongroup==1.2.2 hypothesis==6.79.4 ifaddr==0.2.0 importlib-metadata==6.7.0
    iniconfig==2.0.0 packaging==24.0 pluggy==1.2.0 pytest==7.4.4 sortedcontainers==2.4.0 tomli==2.0.1
    typing-extensions==4.7.1 zeroconf==0.38.7 zipp==3.15.0
    """.split()  # noqa: SIM905 (a list of strings is harder to read)
"""The last of each that run on 3.7; zeroconf and ifaddr as on the node."""


class Python37:
    def __init__(self, cache: Path) -> None:
        """Made unless the cache has it: half a minute, and a download of 40 MB."""
        recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        self._folder = cache / f"python3.7-{recipe}"
        if not self._folder.exists():
            making = cache / f"{self._folder.name}.{os.getpid()}.making"
            making.mkdir(parents=True)
            try:
                _make(making)
                making.rename(self._folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def run(self, *arguments: str | Path, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        """``path``: folders to import from, beside those of pytest and the wheels."""
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._folder / "lib"),
            "PYTHONPATH": os.pathsep.join(map(str, [self._folder / "site", *path])),
        }
        return subprocess.run(
            [self._folder / "root/usr/bin/pypy3", "-B", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def _make(folder: Path) -> None:
    tar = folder / "packages.tar"
    mode = [] if os.geteuid() == 0 else ["--mode=chrootless"]
    wanted = [*mode, "--variant=extract", f"--include={_PACKAGE}"]
    wanted += [f"--aptopt={line}" for line in apt_settings()]
    source = f"deb {mirror()} {_SUITE} main"
    subprocess.run(["mmdebstrap", "--quiet", *wanted, _SUITE, tar, source], check=True)
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-xf", tar, "-C", root, "--no-same-owner"], check=True)
    tar.unlink()
    (folder / "lib").mkdir()
    for library in root.rglob("lib/*-linux-gnu/*.so*"):
        if library.name.startswith(_LIBRARIES):
            shutil.copy(library, folder / "lib")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = ["--python-version=3.7", "--implementation=py", "--abi=none", "--platform=any"]
    subprocess.run([*download, *target, f"--dest={folder / 'wheels'}", *_WHEELS], check=True)
    for wheel in (folder / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder / "site")
