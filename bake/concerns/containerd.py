"""The container runtime: K3s's own, for which nothing is to do, or an external containerd."""

from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.k3s_version import K3sVersion
from bake.render import render
from bake.spec import Containerd, NodeSpec
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.errors import UserError
from firstboot.snapshot import Probe

SOCKET = "/run/containerd/containerd.sock"
"""What ``container-runtime-endpoint`` names."""

_BIN = "/usr/local/bin"
_RUNC = "/usr/local/sbin/runc"
_CONFIG = "/etc/containerd/config.toml"
_UNIT = "/etc/systemd/system/containerd.service"  # goes before the unit of a package
_WANTED = "/etc/systemd/system/multi-user.target.wants/containerd.service"

# The oldest containerd that a K3s can use, newest K3s first: the kubelet dropped CRI v1alpha2 in 1.26.
_NEEDS = (((1, 36), (2, 0)), ((1, 26), (1, 6)))

PROBES = (
    *(Probe(f"{_BIN}/{name}", "digest") for name in ("containerd", "containerd-shim*", "ctr")),
    Probe(_RUNC, "digest"),
    Probe(_CONFIG),
    Probe(_UNIT),
    Probe(_WANTED),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    """UserError where containerd is too old for the K3s, or where there would be no runc."""
    if spec.containerd is None:
        if (facts.text(_UNIT) or "").startswith("# Written by k3s-bake."):  # of an earlier bake
            yield Remove(_WANTED)
        return
    _check_runc(spec.containerd, facts)
    yield from _versions(spec.k3s.version, spec.containerd.version)
    if spec.k3s.airgap is not None:
        yield Note("K3s imports airgap images into its own containerd only: nodes will fetch them instead")
    for program in spec.containerd.programs:
        path = _RUNC if program.name == "runc" else f"{_BIN}/{program.name}"
        yield Place(path, program.sha256, program.size, mode=0o755)
    yield Write(_CONFIG, _config())
    yield Write(
        _UNIT,
        render("containerd.service.j2", program=f"{_BIN}/containerd", config=_CONFIG, socket=SOCKET),
    )
    yield Link(_WANTED, _UNIT)


def _config() -> bytes:
    return render(
        "containerd.toml.j2",
        pause="rancher/mirrored-pause:3.6",
        cni_conf="/var/lib/rancher/k3s/agent/etc/cni/net.d",
        cni_bin="/var/lib/rancher/k3s/data/current/bin",
    )


def _check_runc(containerd: Containerd, facts: NodeFacts) -> None:
    given = any(program.name == "runc" for program in containerd.programs)
    if not (given or facts.has("runc") or facts.has("containerd.io")):  # Docker's package brings one
        raise UserError("containerd needs runc, which is in no archive given", "give runc's .deb as well")


def _versions(k3s: K3sVersion | None, containerd: tuple[int, int] | None) -> Iterator[Note]:
    if k3s is None or containerd is None:
        unknown = "K3s" if k3s is None else "containerd"
        yield Note(f"{unknown} came without its version: whether K3s can use this containerd is not known")
        return
    least = next((least for since, least in _NEEDS if (k3s.major, k3s.minor) >= since), None)
    if least is not None and containerd < least:
        raise UserError(
            f"K3s {k3s} needs containerd {_dotted(least)} or newer, not {_dotted(containerd)}",
            "give a newer containerd, an older K3s, or --containerd embedded",
        )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
