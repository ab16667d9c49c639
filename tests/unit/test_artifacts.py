import struct
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bake import artifacts
from bake.artifacts import parse_checksums, resolve_airgap, resolve_k3s
from bake.cache import Home
from bake.digests import sha256_of
from bake.download import Web
from bake.elf import elf_machine, elf_size
from bake.k3s_version import K3sVersion
from bake.progress import Silent
from firstboot.errors import UserError


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def elf(machine: int, *, wide: bool, size: int, sections_last: bool) -> bytes:
    """A program of ``size`` bytes: one segment over all of it, and a section table at its end or start."""
    header, segment, section = (64, 56, 64) if wide else (52, 32, 40)
    sections_at = size - section if sections_last else header + segment
    offset = "Q" if wide else "I"
    parts = struct.pack(f"<16s HHI {offset}{offset}{offset} I 6H".replace(" ", ""),
        b"\x7fELF" + bytes([2 if wide else 1, 1, 1]), 2, machine, 1, 0, header, sections_at, 0,
        header, segment, 1, section, 1, 0,
    )  # fmt: skip
    loaded = 0 if sections_last else size
    if wide:
        parts += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, loaded, loaded, 4096)
    else:
        parts += struct.pack("<IIIIIIII", 1, 0, 0, 0, loaded, loaded, 5, 4096)
    return parts.ljust(size, b"\0")


ARMHF = elf(40, wide=False, size=9000, sections_last=True)


def test_release_urls_escape_the_plus() -> None:
    url = artifacts.release_url(K3sVersion.parse("v1.34.9+k3s1"), artifacts.k3s_asset("armhf"))
    assert url == "https://github.com/k3s-io/k3s/releases/download/v1.34.9%2Bk3s1/k3s-armhf"


@pytest.mark.parametrize(
    ("arch", "binary", "checksums", "airgap"),
    [
        ("armhf", "k3s-armhf", "sha256sum-arm.txt", "k3s-airgap-images-arm.tar.zst"),
        ("arm64", "k3s-arm64", "sha256sum-arm64.txt", "k3s-airgap-images-arm64.tar.zst"),
        ("amd64", "k3s", "sha256sum-amd64.txt", "k3s-airgap-images-amd64.tar.zst"),
    ],
)
def test_asset_names(arch: str, binary: str, checksums: str, airgap: str) -> None:
    assert artifacts.k3s_asset(arch) == binary
    assert artifacts.checksum_asset(arch) == checksums
    assert artifacts.airgap_assets(arch)[0] == airgap


def test_checksums_by_flat_name() -> None:
    one, two = "1" * 64, "a" * 64
    text = f"{one}  k3s-armhf\n{two} *dist/artifacts/k3s-airgap-images-arm.tar\nnot a line\n"
    assert parse_checksums(text) == {"k3s-armhf": one, "k3s-airgap-images-arm.tar": two}
    assert parse_checksums("<html>please log in</html>") == {}


def test_versions_are_ordered_candidates_first() -> None:
    tags = [
        "v1.9.0+k3s1",
        "v1.34.9-alpha2+k3s1",
        "v1.34.9-rc1+k3s1",
        "v1.34.9-rc10+k3s1",
        "v1.34.9+k3s1",
        "v1.34.9+k3s2",
        "v1.34.10+k3s1",
        "v1.35.0+k3s1",
    ]
    assert [str(version) for version in sorted(map(K3sVersion.parse, reversed(tags)))] == tags


@pytest.mark.parametrize("text", ["1.34.9+k3s1", "v1.34.9", "v1.34+k3s1", "v1.34.9+k3s1/../x", "stable", ""])
def test_what_is_not_a_version(text: str) -> None:
    with pytest.raises(UserError, match="not a K3s version"):
        K3sVersion.parse(text)


@pytest.mark.parametrize(
    ("tag", "notifies", "bundled", "refuses_v1"),
    [
        ("v1.21.14+k3s1", False, False, False),
        ("v1.22.11+k3s1", False, False, False),
        ("v1.22.12+k3s1", True, False, False),
        ("v1.23.8+k3s1", False, False, False),
        ("v1.23.9+k3s1", True, False, False),
        ("v1.23.15+k3s1", True, True, False),
        ("v1.24.2+k3s1", False, False, False),
        ("v1.24.3+k3s1", True, False, False),
        ("v1.24.9+k3s1", True, True, False),
        ("v1.25.0+k3s1", True, False, False),
        ("v1.25.5+k3s1", True, True, False),
        ("v1.26.0+k3s1", True, True, False),
        (artifacts.DEFAULT_K3S, True, True, False),
        ("v1.35.0-rc1+k3s1", True, True, True),
    ],
)
def test_what_a_version_can(tag: str, notifies: bool, bundled: bool, refuses_v1: bool) -> None:
    version = K3sVersion.parse(tag)
    assert version.notifies_as_agent is notifies
    assert version.has_bundled_bin_option is bundled
    assert version.refuses_cgroup_v1 is refuses_v1


@pytest.mark.parametrize("sections_last", [True, False])
@pytest.mark.parametrize(
    ("machine", "wide", "arch"), [(40, False, "armhf"), (183, True, "arm64"), (62, True, "amd64")]
)
def test_elf_tells_processor_and_length(machine: int, wide: bool, arch: str, sections_last: bool) -> None:
    program = elf(machine, wide=wide, size=9000, sections_last=sections_last)
    assert elf_machine(program[:4096]) == arch
    assert elf_size(program[:4096]) == 9000


def test_elf_of_a_real_program() -> None:
    program = Path(sys.executable)
    head = program.read_bytes()[:4096]
    assert elf_machine(head) in {"armhf", "arm64", "amd64"}
    assert 0.9 * program.stat().st_size < elf_size(head) <= program.stat().st_size


@pytest.mark.parametrize(
    ("head", "machine"),
    [
        (b"#!/bin/sh\n", "script"),
        (b"", None),
        (b"\x7fELF", None),
        (b"MZ" * 40, None),
        (elf(8, wide=False, size=200, sections_last=True), None),  # MIPS
    ],
)
def test_what_is_no_known_program(head: bytes, machine: str | None) -> None:
    assert elf_machine(head) == machine


def local(
    tmp_path: Path, content: bytes, version: str | None = None, web: Web | None = None
) -> artifacts.K3sArtifact:
    path = tmp_path / "k3s"
    path.write_bytes(content)
    return resolve_k3s(str(path), version, "armhf", Home(tmp_path, tmp_path), web or Web())


def test_a_k3s_given_as_file(tmp_path: Path) -> None:
    known = local(tmp_path, ARMHF, "v1.21.2+k3s1")
    assert (known.path, known.size, known.sha256) == (tmp_path / "k3s", 9000, sha256_of(tmp_path / "k3s"))
    assert known.version == K3sVersion.parse("v1.21.2+k3s1")
    assert local(tmp_path, ARMHF).version is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARMHF[:8999], "cut off: 8999 bytes of at least 9000"),
        (ARMHF[:30], "cut off"),
        (elf(62, wide=True, size=9000, sections_last=True), "a program for amd64, but the image is armhf"),
        (b"hello", "not a program for any known processor, but the image is armhf"),
        (b"", "not a program"),
    ],
)
def test_unsound_k3s_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        local(tmp_path, content)
    assert caught.value.hint


def test_a_script_passes_with_a_warning(tmp_path: Path) -> None:
    heard = Heard()
    assert local(tmp_path, b"#!/usr/bin/python3\n", web=Web(progress=heard)).size == 19
    assert len(heard.lines) == 1 and "armhf cannot be seen" in heard.lines[0]


def refused(message: str) -> AbstractContextManager[pytest.ExceptionInfo[UserError]]:
    return pytest.raises(UserError, match=message)


def test_bad_choices_of_k3s(tmp_path: Path) -> None:
    home, web = Home(tmp_path, tmp_path), Web(offline=True)
    with refused("'v1.34.9' is no K3s version, channel or file"):
        resolve_k3s("v1.34.9", None, "armhf", home, web)
    with refused("does not exist"):
        resolve_k3s("./k3s-armhf", None, "armhf", home, web)
    with refused("is not a file"):
        resolve_k3s(str(tmp_path), None, "armhf", home, web)
    with refused("only for a K3s given as a file"):
        resolve_k3s("v1.34.9+k3s1", "v1.33.0+k3s1", "armhf", home, web)
    with refused("channel 'stable'"):
        resolve_k3s("stable", None, "armhf", home, web)
    with refused("--offline forbids") as caught:
        resolve_k3s("v1.34.9+k3s1", None, "armhf", home, web)
    assert "without --offline" in caught.value.hint


def test_airgap_archives_given_as_files(tmp_path: Path) -> None:
    home, web = Home(tmp_path, tmp_path), Web(offline=True)
    for name in ("k3s-airgap-images-arm.tar.zst", "mine.tar", "mine.tar.gz"):
        (tmp_path / name).write_bytes(b"images")
        found = resolve_airgap(str(tmp_path / name), None, "armhf", home, web)
        assert found is not None and (found.name, found.size) == (name, 6)
    assert resolve_airgap("none", None, "armhf", home, web) is None
    (tmp_path / "k3s-airgap-images-arm64.tar").write_bytes(b"images")
    with refused("is for arm64, but the image is armhf"):
        resolve_airgap(str(tmp_path / "k3s-airgap-images-arm64.tar"), None, "armhf", home, web)
    (tmp_path / "mine.zip").write_bytes(b"images")
    with refused("does not end as"):
        resolve_airgap(str(tmp_path / "mine.zip"), None, "armhf", home, web)
    with refused("unknown version") as caught:
        resolve_airgap("auto", None, "armhf", home, web)
    assert "--airgap none" in caught.value.hint
