#!/usr/bin/env python3
"""Build the sample base: a card image in the shape of Raspbian, made of Debian packages. It is not Raspbian.

Prints the image's path. Kept in the cache by a hash of its recipe, and so are the packages it is made of.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import card
import rootfs

HERE = Path(__file__).parent
SHAPE_SOURCES = (HERE / "card.py", HERE / "shape.py", HERE / "overlay")


def main() -> int:
    """Exit status 1 and one line on standard error where the build fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=rootfs.QEMU, default="armhf")
    parser.add_argument("--output", type=Path, metavar="FILE", help="put a copy there")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # an ordinary user's lacks mkfs and its like
    try:
        image = sample(options.arch)
        if options.output:
            copy = ["cp", "--sparse=always", "--reflink=auto", "--", str(image), str(options.output)]
            subprocess.run(copy, check=True)
    except (rootfs.BuildError, subprocess.CalledProcessError, OSError) as error:
        print(f"sample base: {error}", file=sys.stderr)
        return 1
    print(options.output or image)
    return 0


def sample(arch: str) -> Path:
    """The image of `arch`, built unless the cache has it: first minutes, for another shape seconds."""
    packages = rootfs.recipe(arch)
    tar = cache() / f"rootfs-{arch}-{packages}.tar.zst"
    image = cache() / f"sample-not-raspbian-{arch}-{shape_recipe(packages)}.img"
    if image.exists():
        return image
    with locked(cache() / f"{arch}.lock"):
        kept(tar, lambda file, _: rootfs.build(arch, file))
        kept(image, lambda file, work: card.make(tar, file, work))
    return image


def cache() -> Path:
    """The cache folder, made when missing."""
    if home := os.environ.get("K3S_BAKE_HOME"):
        folder = Path(home, "cache", "sample")
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "k3s-bake", "sample")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def shape_recipe(packages: str) -> str:
    """A hash of the packages' recipe and of every file that shapes the image."""
    digest = hashlib.sha256(packages.encode())
    for source in SHAPE_SOURCES:
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if file.is_file():
                digest.update(f"{file.relative_to(HERE)} {os.access(file, os.X_OK)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the build lock; the system lets go of it however this process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("sample base: waiting for another build of it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept(path: Path, make: Callable[[Path, Path], None]) -> None:
    """Unless the file exists, let `make(file, empty folder)` make it beside its place, then move it there.

    Of its kind the newest one before it stays, for whoever still uses it or works on another checkout.
    """
    if path.exists():
        return
    print(f"sample base: making {path}", file=sys.stderr)
    kind = path.name.rpartition("-")[0]
    for left in path.parent.glob(f"{kind}-*.making"):  # a killed build's: this one holds the lock
        shutil.rmtree(left)
    older = sorted(path.parent.glob(f"{kind}-*"), key=lambda file: file.stat().st_mtime)
    work = path.with_name(f"{path.name}.making")
    try:
        (work / "between").mkdir(parents=True)
        file = work / path.name
        make(file, work / "between")
        file.rename(path)
        for superseded in older[:-1]:
            superseded.unlink()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
