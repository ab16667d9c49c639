"""What each machine of a fleet is to be: one fleet, several processors."""

import asyncio
import json
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from raspbian import ARM_ELF, Pi

from bake import spec_json, wish
from bake.artifacts import Artifact
from bake.cache import Home
from bake.concerns.record import PATH
from bake.download import Web
from bake.k3s_version import K3sVersion
from bake.node import PROBES
from bake.progress import Silent
from bake.spec import File, K3s, NodeSpec, Role
from bake.wish import Wish
from firstboot.snapshot import File as FoundFile
from firstboot.snapshot import Snapshot
from k3s_bake.adopt import Candidate, How, Looked, Machine, Outcome
from k3s_bake.login import Login, Nobody
from k3s_bake.wanted import Supplies, Wanted

pytestmark = pytest.mark.unit

_NUMBERS = {"armhf": (1, 40), "arm64": (2, 183), "amd64": (2, 62)}  # EI_CLASS, e_machine


def machine_of(root: Path, arch: str, role: Role) -> Machine:
    pi = Pi(root)
    wide, number = _NUMBERS[arch]
    pi.write("/bin/ls", b"\x7fELF" + bytes([wide]) + ARM_ELF[5:16] + struct.pack("<HH", 2, number))
    pi.write("/var/lib/dpkg/status", pi.text("/var/lib/dpkg/status").replace("armhf", arch))
    candidate, remote = Candidate(Login("10.0.0.2"), role), None
    machine = Machine(candidate, Outcome(candidate), remote, How(Nobody()))  # type: ignore[arg-type]
    machine.looked = Looked(pi.read(), {})
    return machine


def test_each_gets_the_k3s_of_its_own_processor_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def k3s_of(parts: Wish, arch: str, home: Home, web: Web) -> tuple[K3s, dict[str, Path]]:
        fetched.append(arch)
        binary = File(f"k3s-{arch}", sha256(arch.encode()).hexdigest(), 1)
        return K3s(binary, K3sVersion.parse("v1.34.9+k3s1")), {binary.sha256: Path(arch)}

    monkeypatch.setattr(wish, "k3s_of", k3s_of)
    home = Home(tmp_path, tmp_path)
    agent = Artifact(tmp_path, "firstboot.pyz", "a" * 64, 1)
    wanted = Wanted(Supplies(None, agent, Wish({}), False, home, Web(Silent())), dry_run=True)
    kinds = [("amd64", Role.MASTER), ("armhf", Role.WORKER), ("arm64", Role.WORKER), ("armhf", Role.WORKER)]

    async def each() -> list[Any]:
        made = [machine_of(tmp_path / str(at), *kind) for at, kind in enumerate(kinds)]
        return await asyncio.gather(*(wanted.new(one, {"role": one.candidate.role}) for one in made))

    found = asyncio.run(each())
    assert [spec.k3s.binary.name for spec, _ in found] == [f"k3s-{arch}" for arch, _ in kinds]
    assert all(spec.k3s.binary.sha256 in sources for spec, sources in found)
    assert sorted(fetched) == ["amd64", "arm64", "armhf"]


def test_the_same_program_keeps_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A K3s that is given as a file again, this time without its version."""
    binary = File("k3s", "b" * 64, 1)
    monkeypatch.setattr(wish, "k3s_of", lambda *_: (K3s(binary, None), {}))
    home = Home(tmp_path, tmp_path)
    agent = Artifact(tmp_path, "firstboot.pyz", "a" * 64, 1)
    supplies = Supplies(None, agent, Wish({}), True, home, Web(Silent()))
    wanted = Wanted(supplies, dry_run=True)
    machine = machine_of(tmp_path / "root", "armhf", Role.WORKER)
    for sha256_before, version in (("b" * 64, "v1.34.9+k3s1"), ("c" * 64, "None")):
        before = K3s(File("k3s", sha256_before, 1), K3sVersion.parse("v1.34.9+k3s1"))
        spec = NodeSpec(Role.WORKER, before, first_boot=supplies.first_boot)
        record = json.dumps(spec_json.to_json(spec))
        found = {path: machine.looked.found.get(path) for path in machine.looked.found}
        found[PATH] = FoundFile(len(record), 0o644, 0, 0, "", record.encode())
        machine.looked = Looked(Snapshot(found, PROBES), {"ours": None})
        spec, _ = asyncio.run(wanted.again(machine, {}))
        assert str(spec.k3s.version) == version
