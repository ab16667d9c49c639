"""An external containerd: its archives, and what a node gets of it."""

import io
import struct
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard
from raspbian import Pi, master, worker

from bake.concerns.containerd import SOCKET
from bake.containerd_archive import unpack
from bake.spec import Containerd, File
from firstboot.edits import Link, Place, Write
from firstboot.errors import UserError

pytestmark = pytest.mark.unit


def elf(name: str, machine: int = 40) -> bytes:
    """The start of a program, different for each name; 40 is ARM, 183 AArch64."""
    head = b"\x7fELF" + bytes([2 if machine == 183 else 1, 1, 1]) + bytes(9) + struct.pack("<HH", 2, machine)
    return head.ljust(64, b"\0") + name.encode()


def tar(files: Mapping[str, bytes], mode: str = "w:gz", *more: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return packed.getvalue()


def deb(version: str, files: Mapping[str, bytes], suffix: str = "xz") -> bytes:
    control = {"./control": f"Package: containerd\nVersion: {version}\nArchitecture: armhf\n".encode()}
    parts = {"debian-binary": b"2.0\n"}
    for name, content in (("control", control), ("data", files)):
        zst = suffix == "zst"
        parts[f"{name}.tar.{suffix}"] = (
            zstandard.compress(tar(content, "w:")) if zst else tar(content, f"w:{suffix}")
        )
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
        for name, content in parts.items()
    )


RELEASE = {
    f"bin/{name}": elf(name) for name in ("containerd", "containerd-shim-runc-v2", "ctr", "containerd-stress")
}
RUNC = {"./usr/sbin/runc": elf("runc"), "./usr/share/doc/runc/copyright": b"free"}
TARBALL = "containerd-1.7.2-linux-arm.tar.gz"


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def names(containerd: Containerd) -> list[str]:
    return sorted(program.name for program in containerd.programs)


def test_a_release_and_a_runc_package(tmp_path: Path) -> None:
    into = tmp_path / "cache" / "containerd"
    given = [put(tmp_path, TARBALL, tar(RELEASE)), put(tmp_path, "runc.deb", deb("1.1.5-1", RUNC))]
    containerd, sources = unpack(given, "armhf", into)
    assert names(containerd) == ["containerd", "containerd-shim-runc-v2", "ctr", "runc"]
    assert containerd.version == (1, 7)
    assert {file.name: sources[file.sha256].read_bytes() for file in containerd.programs} == {
        name: elf(name) for name in names(containerd)
    }
    assert all(file.size == sources[file.sha256].stat().st_size for file in containerd.programs)
    assert sorted(into.iterdir()) == sorted(sources.values())


@pytest.mark.parametrize("suffix", ["xz", "gz", "zst"])
def test_a_package_with_all_programs(tmp_path: Path, suffix: str) -> None:
    files = {f"./usr/bin/{name}": elf(name) for name in ("containerd", "containerd-shim", "ctr", "runc")}
    lintian = {"./usr/share/lintian/overrides/containerd": b"no program"}
    path = put(tmp_path, "containerd.io.deb", deb("1.6.33-1", files | lintian, suffix))
    containerd, _ = unpack([path], "armhf", tmp_path / "into")
    assert names(containerd) == ["containerd", "containerd-shim", "ctr", "runc"]
    assert containerd.version == (1, 6)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("containerd-2.1.4-linux-amd64.tar.gz", (2, 1)),
        ("containerd-static-2.0.0-rc.1-linux-amd64.tar.gz", (2, 0)),
        ("cri-containerd-cni-1.7.2-linux-amd64.tar.gz", (1, 7)),
        ("download.tgz", None),
    ],
)
def test_a_tarball_s_version_is_in_its_name(tmp_path: Path, name: str, version: tuple[int, int]) -> None:
    assert unpack([put(tmp_path, name, tar(RELEASE))], "armhf", tmp_path / "into")[0].version == version


def test_nothing_is_written_where_an_archive_says(tmp_path: Path) -> None:
    link = tarfile.TarInfo("bin/runc")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hostile = {"../../bin/ctr": elf("ctr"), "/bin/containerd": elf("containerd"), "bin/../../x/bin/evil": b""}
    path = put(tmp_path, TARBALL, tar(hostile, "w:gz", link))
    into = tmp_path / "deep" / "into"
    containerd, sources = unpack([path], "armhf", into)
    assert names(containerd) == ["containerd", "ctr"]
    assert sorted(tmp_path.rglob("*")) == sorted([path, into.parent, into, *sources.values()])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.tar.gz", b"not an archive"),
        ("empty.tar.gz", b""),
        ("cut.tar.gz", tar(RELEASE)[:-30]),
        ("flipped.tar.gz", tar(RELEASE)[:-8] + bytes(8)),
        ("cut.tar", tar(RELEASE, "w:")[:2000]),
        ("cut.deb", deb("1.7.2", {"./usr/bin/containerd": elf("containerd")})[:-20]),
        ("cut-zst.deb", deb("1.7.2", {"./usr/bin/containerd": elf("containerd")}, "zst")[:-20]),
        ("head.deb", b"!<arch>\n"),
        ("garbage.deb", b"!<arch>\n" + b"x" * 100),
        ("numbers.deb", b"!<arch>\n" + b"data.tar.xz".ljust(58) + b"`\n"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        unpack([path], "armhf", tmp_path / "into")
    assert caught.value.message == f"{path} is cut off, damaged, or no archive"
    assert list((tmp_path / "into").glob("*/*")) == []


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.deb"):
        with pytest.raises(UserError, match="is not a file"):
            unpack([path], "armhf", tmp_path / "into")


def test_programs_for_another_processor(tmp_path: Path) -> None:
    path = put(tmp_path, TARBALL, tar({"bin/containerd": elf("containerd", 183)}))
    with pytest.raises(UserError, match=r"containerd in .* is for arm64, but the image is armhf"):
        unpack([path], "armhf", tmp_path / "into")
    script = put(tmp_path, "x.tgz", tar({"bin/ctr": b"#!/bin/sh\n"}))
    with pytest.raises(UserError, match="is no program for a known processor"):
        unpack([script], "armhf", tmp_path / "into")


def test_archives_without_containerd_or_with_two(tmp_path: Path) -> None:
    runc = put(tmp_path, "runc.deb", deb("1.1.5-1", RUNC))
    with pytest.raises(UserError, match="no containerd is in"):
        unpack([runc], "armhf", tmp_path / "into")
    release = put(tmp_path, TARBALL, tar(RELEASE))
    with pytest.raises(UserError, match="containerd is twice in"):
        unpack([release, release], "armhf", tmp_path / "into")


# The concern


def containerd(version: tuple[int, int] | None = (1, 7), *names: str) -> Containerd:
    named = names or ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
    return Containerd(tuple(File(name, name.encode().hex().ljust(64, "0"), 7) for name in named), version)


def test_the_embedded_one_needs_nothing(pi: Pi) -> None:
    assert pi.wants("containerd", worker()) == []
    assert pi.notes("containerd", worker()) == []


def test_an_external_one_is_placed_configured_and_started(pi: Pi) -> None:
    spec = worker(containerd=containerd())
    wants = pi.wants("containerd", spec)
    assert [(want.path, want.mode) for want in wants if isinstance(want, Place)] == [
        ("/usr/local/bin/containerd", 0o755),
        ("/usr/local/bin/containerd-shim-runc-v2", 0o755),
        ("/usr/local/bin/ctr", 0o755),
        ("/usr/local/sbin/runc", 0o755),
    ]
    unit = "/etc/systemd/system/containerd.service"
    assert Link("/etc/systemd/system/multi-user.target.wants/containerd.service", unit) in wants
    texts = {want.path: want.content.decode() for want in wants if isinstance(want, Write)}
    lines = texts[unit].splitlines()
    for line in ("Type=notify", "Delegate=yes", "KillMode=process", "ExecStartPre=-/sbin/modprobe overlay"):
        assert line in lines
    assert (
        f"ExecStart=/usr/local/bin/containerd --config /etc/containerd/config.toml --address {SOCKET}"
        in lines
    )
    assert pi.notes("containerd", spec) == []


def test_the_configuration_points_at_k3s_s_folders(pi: Pi) -> None:
    wants = pi.wants("containerd", worker(containerd=containerd()))
    (text,) = (want.content.decode() for want in wants if want.path == "/etc/containerd/config.toml")  # type: ignore[union-attr]
    config = tomllib.loads(text)
    assert config["version"] == 2
    assert config["plugins"] == {
        "io.containerd.grpc.v1.cri": {
            "sandbox_image": "rancher/mirrored-pause:3.6",
            "cni": {
                "conf_dir": "/var/lib/rancher/k3s/agent/etc/cni/net.d",
                "bin_dir": "/var/lib/rancher/k3s/data/current/bin",
            },
            "containerd": {
                "runtimes": {
                    "runc": {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": False}}
                }
            },
        }
    }


@pytest.mark.parametrize(
    ("k3s", "version"),
    [("v1.25.16+k3s4", (1, 5)), ("v1.26.0+k3s1", (1, 6)), ("v1.35.1+k3s1", (1, 7)), ("v1.36.0+k3s1", (2, 0))],
)
def test_versions_that_fit(pi: Pi, k3s: str, version: tuple[int, int]) -> None:
    spec = master(version=k3s, containerd=containerd(version))
    assert len(pi.wants("containerd", spec)) == 7
    assert pi.notes("containerd", spec) == []


@pytest.mark.parametrize(
    ("k3s", "version", "message"),
    [
        ("v1.26.0+k3s1", (1, 5), "K3s v1.26.0+k3s1 needs containerd 1.6 or newer, not 1.5"),
        ("v1.36.0+k3s1", (1, 7), "K3s v1.36.0+k3s1 needs containerd 2.0 or newer, not 1.7"),
    ],
)
def test_versions_that_do_not_fit(pi: Pi, k3s: str, version: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        pi.wants("containerd", master(version=k3s, containerd=containerd(version)))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("k3s", "version", "unknown"), [(None, (1, 7), "K3s"), ("v1.34.9+k3s1", None, "containerd")]
)
def test_a_version_that_is_not_known_is_said(
    pi: Pi, k3s: str | None, version: tuple[int, int] | None, unknown: str
) -> None:
    (note,) = pi.notes("containerd", worker(version=k3s, containerd=containerd(version)))
    assert note.startswith(f"{unknown} came without its version")


def test_airgap_images_are_not_imported(pi: Pi) -> None:
    k3s = worker().k3s
    airgap = type(k3s)(k3s.binary, k3s.version, File("k3s-airgap-images-arm.tar.zst", "cd" * 32, 9))
    (note,) = pi.notes("containerd", worker(k3s=airgap, containerd=containerd()))
    assert "imports airgap images into its own containerd only" in note


@pytest.mark.parametrize("package", ["runc", "containerd.io"])
def test_runc_may_be_the_image_s_own(pi: Pi, package: str) -> None:
    spec = worker(containerd=containerd((1, 7), "containerd", "containerd-shim-runc-v2"))
    with pytest.raises(UserError, match="containerd needs runc"):
        pi.wants("containerd", spec)
    pi.install(**{package: "1.0.0"})
    assert not any(want.path.endswith("runc") for want in pi.wants("containerd", spec))
