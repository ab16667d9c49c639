"""K3s releases: which file an architecture needs, where it lies, and whether a given one is sound."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from bake.cache import Home, beside, publish, writing
from bake.digests import remembered
from bake.download import Web
from bake.elf import HEAD, elf_machine, elf_size
from bake.k3s_version import DEFAULT_K3S, K3sVersion
from firstboot.errors import UserError, WorkFailed

_RELEASES = "https://github.com/k3s-io/k3s/releases/download"
_NAME_IT = f"name a version, like {DEFAULT_K3S}"
_CHANNELS = "https://update.k3s.io/v1-release/channels"
_CHANNEL = re.compile(r"stable|latest|testing|v\d+\.\d+")

# K3s says armhf of the binary, but arm of everything else.
_SHORT = {"armhf": "arm", "arm64": "arm64", "amd64": "amd64"}
_BINARY = {"armhf": "k3s-armhf", "arm64": "k3s-arm64", "amd64": "k3s"}
_ARCHIVES = (".tar.zst", ".tar.gz", ".tar")


def k3s_asset(arch: str) -> str:
    return _BINARY[arch]


def checksum_asset(arch: str) -> str:
    return f"sha256sum-{_SHORT[arch]}.txt"


def airgap_assets(arch: str) -> tuple[str, ...]:
    """The forms of one archive, smallest first: older releases lack the first."""
    return tuple(f"k3s-airgap-images-{_SHORT[arch]}{suffix}" for suffix in _ARCHIVES)


def release_url(version: K3sVersion, asset: str) -> str:
    """The ``+`` of the tag is escaped: unescaped, some servers read it as a space."""
    return f"{_RELEASES}/{quote(version.tag, safe='')}/{asset}"


def parse_checksums(text: str) -> dict[str, str]:
    """``{file name: sha256}`` of what sha256sum prints; other lines are passed over."""
    found = re.findall(r"^([0-9a-f]{64})[ \t]+\*?(\S+)$", text, flags=re.MULTILINE)
    return {name.rpartition("/")[2]: sha256 for sha256, name in found}


@dataclass(frozen=True)
class Artifact:
    """A file that goes into the image as it is."""

    path: Path
    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class K3sArtifact(Artifact):
    version: K3sVersion | None
    """None where a person's own file came without one."""


def resolve_k3s(choice: str, version: str | None, arch: str, home: Home, web: Web) -> K3sArtifact:
    """The K3s binary for ``arch`` by version, channel (``stable``, ``latest``, ``v1.33``) or path.

    ``version`` says what a path holds. Raises UserError where the choice is none of the three, or where the
    file is not a program for ``arch``, or cut off.
    """
    named = K3sVersion.parse(version) if version is not None else None
    if not (K3sVersion.is_one(choice) or _CHANNEL.fullmatch(choice)):
        return _local_k3s(choice, named, arch, home, web)
    release = _release(choice, version, web)
    file = _released(release, k3s_asset(arch), arch, home, web)
    return K3sArtifact(file.path, file.name, file.sha256, file.size, release)


@dataclass(frozen=True)
class Link:
    """Where a file lies in the web: for nodes that fetch it themselves."""

    url: str = field(repr=False)
    """May hold a mirror's password."""
    name: str
    sha256: str
    size: int


def link_k3s(choice: str, version: str | None, arch: str, home: Home, web: Web) -> tuple[K3sVersion, Link]:
    """The binary for ``arch`` by version or channel, left where it is. Raises as ``resolve_k3s``."""
    check_link(choice)
    release = _release(choice, version, web)
    return release, _link(release, k3s_asset(arch), arch, home, web)


def link_airgap(version: K3sVersion, arch: str, home: Home, web: Web) -> Link:
    """The images released with it, left where they are. Raises as ``resolve_airgap``."""
    return _link(version, _airgap_of(version, arch, home, web), arch, home, web)


def check_link(choice: str) -> None:
    """UserError for a K3s that is in no web."""
    if not (K3sVersion.is_one(choice) or _CHANNEL.fullmatch(choice)):
        raise UserError(
            f"nodes cannot fetch {choice[:80]}: it is a file of this machine",
            "Leave out --fetch node: then it is sent from here.",
        )


def check_choice(choice: str) -> None:
    """UserError for what cannot be a K3s: before any machine or server is asked for anything."""
    named = K3sVersion.is_one(choice) or _CHANNEL.fullmatch(choice)
    if not named and not Path(choice).expanduser().is_file():
        raise UserError(f"'{choice[:80]}' is no K3s version, channel or file", _NAME_IT)


def resolve_airgap(
    choice: str, version: K3sVersion | None, arch: str, home: Home, web: Web
) -> Artifact | None:
    """The archive of container images: ``none``, ``auto`` for the one released with ``version``, or a path.

    K3s imports it by its suffix, so the name it comes with is the name it must keep.
    """
    if choice == "none":
        return None
    if choice != "auto":
        return _local_airgap(choice, arch, home)
    if version is None:
        raise UserError(
            "which container images belong to a K3s of unknown version cannot be told",
            "--k3s-version names it, --airgap takes a path, and --airgap none goes without",
        )
    return _released(version, _airgap_of(version, arch, home, web), arch, home, web)


def _release(choice: str, version: str | None, web: Web) -> K3sVersion:
    if version is not None:
        raise UserError(
            "--k3s-version is only for a K3s given as a file", f"--k3s {version} asks for that release"
        )
    return K3sVersion.parse(choice) if K3sVersion.is_one(choice) else _newest(choice, web)


def _newest(channel: str, web: Web) -> K3sVersion:
    """The channel server redirects to the page of the release, whose address ends in its tag."""
    if web.offline:
        raise UserError(f"--offline cannot tell where the K3s channel '{channel}' is", _NAME_IT)
    tag = unquote(web.redirect(f"{_CHANNELS}/{channel}").rpartition("/")[2])
    if not K3sVersion.is_one(tag):
        raise WorkFailed(f"the K3s channel '{channel}' leads to no release", _NAME_IT)
    web.progress.say(f"the K3s channel '{channel}' is at {tag}")
    return K3sVersion.parse(tag)


def _airgap_of(version: K3sVersion, arch: str, home: Home, web: Web) -> str:
    listed = _checksums(version, arch, home, web)
    return next((name for name in airgap_assets(arch) if name in listed), airgap_assets(arch)[0])


def _link(version: K3sVersion, asset: str, arch: str, home: Home, web: Web) -> Link:
    sha256 = _listed(version, asset, arch, home, web)
    url, size = web.link(release_url(version, asset))
    return Link(url, asset, sha256, size)


def _listed(version: K3sVersion, asset: str, arch: str, home: Home, web: Web) -> str:
    sha256 = _checksums(version, arch, home, web).get(asset)
    if sha256 is None:
        raise UserError(f"K3s {version} has no {asset}", "choose another version with --k3s")
    return sha256


def _released(version: K3sVersion, asset: str, arch: str, home: Home, web: Web) -> Artifact:
    sha256 = _listed(version, asset, arch, home, web)
    path = web.fetch(release_url(version, asset), _folder(version, home) / asset, sha256)
    return Artifact(path, asset, sha256, path.stat().st_size)


def _checksums(version: K3sVersion, arch: str, home: Home, web: Web) -> dict[str, str]:
    """The release's own list, kept in the cache: releases do not change."""
    name = checksum_asset(arch)
    kept = _folder(version, home) / name
    if kept.is_file():
        return parse_checksums(kept.read_text(encoding="utf-8"))
    text = web.text(release_url(version, name))
    if not (listed := parse_checksums(text)):  # a login page of the network, say: not worth keeping
        raise WorkFailed(f"{name} of K3s {version} holds no checksums", "check the network, or --mirror")
    with writing(kept):
        part = beside(kept, ".part")
        part.write_text(text, encoding="utf-8")
        publish(part, kept)
    return listed


def _folder(version: K3sVersion, home: Home) -> Path:
    return home.cache / "k3s" / version.tag


def _local_k3s(choice: str, version: K3sVersion | None, arch: str, home: Home, web: Web) -> K3sArtifact:
    hint = f"--k3s takes a version like {DEFAULT_K3S}, a channel like stable, or the path of a K3s binary"
    path = Path(choice).expanduser()
    if not path.exists() and "/" not in choice:
        raise UserError(f"'{choice}' is no K3s version, channel or file", hint)
    file = _local_file(path, "K3s binary", hint, home)
    with path.open("rb") as opened:
        head = opened.read(HEAD)
    machine = elf_machine(head)
    if machine == "script":
        web.progress.say(f"{path} is a script: whether it runs on {arch} cannot be seen")
    elif machine != arch:
        raise UserError(
            f"{path} is {_described(machine)}, but the image is {arch}", f"fetch {k3s_asset(arch)}"
        )
    elif file.size < (expected := elf_size(head)):
        raise UserError(f"{path} is cut off: {file.size} bytes of at least {expected}", "fetch it again")
    return K3sArtifact(file.path, file.name, file.sha256, file.size, version)


def _described(machine: str | None) -> str:
    return f"a program for {machine}" if machine else "not a program for any known processor"


def _local_airgap(choice: str, arch: str, home: Home) -> Artifact:
    hint = f"--airgap takes none, auto, or a path ending in {', '.join(_ARCHIVES)}"
    path = Path(choice).expanduser()
    file = _local_file(path, "airgap archive", hint, home)
    if not file.name.endswith(_ARCHIVES):
        raise UserError(f"{path} does not end as an archive that K3s imports", hint)
    official = re.match(r"k3s-airgap-images-(amd64|arm64|arm)\.", file.name)
    if official and official[1] != _SHORT[arch]:
        raise UserError(
            f"{path} is for {official[1]}, but the image is {arch}", f"fetch {airgap_assets(arch)[0]}"
        )
    return file


def _local_file(path: Path, what: str, hint: str, home: Home) -> Artifact:
    if not path.exists():
        raise UserError(f"{what} {path} does not exist", hint)
    if not path.is_file():
        raise UserError(f"{what} {path} is not a file", hint)
    try:
        return Artifact(path, path.name, remembered(path, home), path.stat().st_size)
    except PermissionError as error:
        raise UserError(f"{what} {path} cannot be read", "check its permissions") from error
