"""Which machines a person means, by flags and by cluster.toml."""

from collections.abc import Sequence
from dataclasses import replace

from bake import cluster_file
from bake.cluster_file import ClusterFile, NodeEntry
from bake.spec import Role
from firstboot.errors import UserError
from k3s_bake.adopt import Candidate
from k3s_bake.login import behind

_OF_IMAGES = ("role", "cluster", "name", "user", "server", "token", "master", "address", "wifi")
"""Values of NodeSpec that are an image's alone, or that the fleet itself decides."""


def candidates(
    masters: Sequence[str], workers: Sequence[str], file: ClusterFile | None, jump: str | None = None
) -> list[Candidate]:
    """UserError where nobody, or somebody twice, is named. ``jump`` wins over that of the file."""
    shared = jump or (file.jump if file else None)
    found = [Candidate(behind(text, shared), Role.MASTER) for text in masters]
    found += [Candidate(behind(text, shared), Role.WORKER) for text in workers]
    found += of_file(file, jump) if file else []
    if not found:
        raise UserError("which machines?", "--master and --worker name them, or nodes of --file with a host.")
    refuse_twice(found)
    return _with_one_leader(found)


def of_file(file: ClusterFile, jump: str | None = None) -> list[Candidate]:
    """Its nodes that have a host. ``jump`` wins over theirs."""
    return [_candidate(node, file, jump or node.jump or file.jump) for node in file.nodes if node.host]


def refuse_twice(found: Sequence[Candidate]) -> None:
    places = [one.login.place for one in found]
    for one, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{one.login.host} is named more than once", "A machine is one node.")


def _with_one_leader(found: list[Candidate]) -> list[Candidate]:
    """Of several masters the first starts the cluster, and the others join it."""
    leading = [one for one in found if one.role is Role.MASTER and not one.values.get("join")]
    return [replace(one, values={**one.values, "join": True}) if one in leading[1:] else one for one in found]


def _candidate(node: NodeEntry, file: ClusterFile, jump: str | None) -> Candidate:
    values = cluster_file.values_for(ClusterFile(**{**vars(file), "nodes": (node,)}), node.role, node.name)
    user = node.user or file.user
    login = behind(f"{user}@{node.host}" if user else str(node.host), jump)
    kept = {key: value for key, value in values.items() if key not in _OF_IMAGES}
    return Candidate(login, node.role, node.name, kept, file.name)
