"""An external containerd out of the archives it is published in. python-debian's only door."""

import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from debian.arfile import ArError
from debian.deb822 import Deb822
from debian.debfile import DebFile

from bake import dpkg
from bake.cache import publish, writing
from bake.digests import sha256_of
from bake.elf import HEAD, elf_machine
from bake.progress import Silent
from bake.spec import Containerd, File
from bake.unpack import unpack as unpack_stream
from firstboot.errors import UserError, WorkFailed

_PROGRAM = re.compile(r"containerd|containerd-shim(-[a-z0-9-]+)?|ctr|runc")
_RELEASE = re.compile(r"containerd-(?:[a-z]+-)*v?(\d+)\.(\d+)\.")
_WANTED = "give a containerd release (.tar.gz) or .deb files of containerd and runc"
_BROKEN = (tarfile.TarError, ArError, EOFError, lzma.LZMAError, zlib.error, ValueError)

Version = tuple[int, int]


def unpack(archives: Iterable[Path], arch: str, into: Path) -> tuple[Containerd, dict[str, Path]]:
    """Write the programs of all archives to ``into``, each under its sha256; where each is comes with them.

    An archive is a release tarball or a .deb. UserError where one is neither or damaged, where a program is
    not for ``arch`` or there twice, and where no containerd is in any of them. runc may be missing: the
    target can have one of its own.
    """
    programs: dict[str, File] = {}
    version: Version | None = None
    for archive in archives:
        with _worded(archive), TemporaryDirectory(dir=_made(into)) as scratch:
            tar, said = _opened(archive, Path(scratch))
            with tar:
                for program in _programs(tar, archive, arch, Path(scratch)):
                    if program.name in programs:
                        raise UserError(
                            f"{program.name} is twice in what --containerd was given", "leave one out"
                        )
                    programs[program.name] = program
                    version = said if program.name == "containerd" else version
    if "containerd" not in programs:
        raise UserError("no containerd is in what --containerd was given", _WANTED)
    sources = {program.sha256: into / program.sha256 for program in programs.values()}
    return Containerd(tuple(programs.values()), version), sources


def _made(folder: Path) -> Path:
    with writing(folder / "any"):
        return folder


@contextmanager
def _worded(archive: Path) -> Iterator[None]:
    """Says in a person's words what is wrong with an archive."""
    if not archive.is_file():
        raise UserError(f"{archive} is not a file", _WANTED)
    try:
        yield
    except _BROKEN as error:
        raise _damaged(archive) from error
    except PermissionError as error:
        raise UserError(f"{archive} cannot be read", "check its permissions") from error
    except OSError as error:
        if error.errno is not None:  # the disk's; what gzip and ar say of their content has no number
            raise
        raise _damaged(archive) from error


def _damaged(archive: Path) -> UserError:
    return UserError(f"{archive} is cut off, damaged, or no archive", _WANTED)


def _opened(archive: Path, scratch: Path) -> tuple[tarfile.TarFile, Version | None]:
    """The files in the archive, and containerd's version as the archive tells it."""
    with archive.open("rb") as file:
        is_deb = file.read(8) == b"!<arch>\n"
    if not is_deb:
        named = _RELEASE.search(archive.name)
        return tarfile.open(archive), (int(named[1]), int(named[2])) if named else None
    deb = DebFile(archive)
    with _part(deb, "control", scratch) as tar:
        found = (tar.extractfile(member) for member in tar if PurePosixPath(member.name).name == "control")
        numbers = dpkg.version_tuple(Deb822(next(found, None) or b"").get("Version", ""))
    return _part(deb, "data", scratch), (numbers[0], numbers[1]) if len(numbers) > 1 else None


def _part(deb: DebFile, name: str, scratch: Path) -> tarfile.TarFile:
    packed = scratch / f"{name}.tar.zst"
    if packed.name not in deb.getnames():
        return deb.control.tgz() if name == "control" else deb.data.tgz()
    # python-debian would run the unzstd program, which need not be there.
    with packed.open("wb") as file:
        shutil.copyfileobj(deb.getmember(packed.name), file)
    try:
        return tarfile.open(unpack_stream(packed, scratch / f"{name}.tar", Silent()))
    except WorkFailed:
        raise
    except UserError as error:  # worded for the scratch file, of which nobody knows
        raise tarfile.ReadError(error.message) from error


def _programs(tar: tarfile.TarFile, archive: Path, arch: str, scratch: Path) -> Iterator[File]:
    """Only regular files in a folder of programs count, and of their paths only the last name: whatever an
    archive claims, nothing is written elsewhere."""
    for member in tar:
        path = PurePosixPath(member.name)
        if not (member.isreg() and path.parent.name in ("bin", "sbin") and _PROGRAM.fullmatch(path.name)):
            continue
        content = tar.extractfile(member)
        assert content is not None  # noqa: S101 (regular files have content)
        written = scratch / path.name
        with content, writing(written), written.open("wb") as file:
            shutil.copyfileobj(content, file)
        _check_machine(written, f"{path.name} in {archive.name}", arch)
        sha256 = sha256_of(written)
        publish(written, scratch.parent / sha256)
        yield File(path.name, sha256, member.size)
    assert tar.fileobj is not None  # noqa: S101 (it is open)
    while tar.fileobj.read(1 << 20):  # tar stops before the end, where gzip and xz have their checksums
        pass


def _check_machine(program: Path, what: str, arch: str) -> None:
    with program.open("rb") as file:
        machine = elf_machine(file.read(HEAD))
    if machine != arch:
        known = machine not in (None, "script")
        described = f"for {machine}" if known else "no program for a known processor"
        raise UserError(f"{what} is {described}, but the image is {arch}", f"fetch the archives for {arch}")
