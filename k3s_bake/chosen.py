"""Which nodes a person means that are there already: logins alone, or nodes of a cluster.toml."""

from collections.abc import Sequence
from dataclasses import dataclass

from bake.cluster_file import ClusterFile
from bake.spec import Role
from firstboot.errors import UserError
from k3s_bake.adopt import Candidate
from k3s_bake.candidates import of_file, refuse_twice
from k3s_bake.login import Login, behind


@dataclass(frozen=True)
class Chosen:
    nodes: Sequence[Candidate]
    """Of those without a file nobody has said whether they are masters: they are called workers."""
    keeper: Login | None
    """A master that stays."""


def chosen(
    words: Sequence[str],
    file: ClusterFile | None,
    *,
    every: bool = False,
    master: str | None = None,
    jump: str | None = None,
) -> Chosen:
    """``words`` are logins, or with a file also names; ``every`` node of it but ``master``, without words.

    The keeper is ``master``, else the first of the file that is not chosen. ``jump`` wins over the file's.
    UserError where nobody, somebody twice or somebody unknown is named.
    """
    listed = of_file(file, jump) if file else []
    jump = jump or (file.jump if file else None)
    kept = _one(master, listed, jump) if master else None
    if every and (words or not file):
        raise UserError("--all is for every node of --file", "Name some, or all of them.")
    nodes = (
        [one for one in listed if one != kept]
        if every
        else [_one(word, listed, jump, file) for word in words]
    )
    if not nodes:
        hint = "Name some of its nodes, or --all." if file else "Name them, or those of a --file."
        raise UserError("which machines?", hint)
    refuse_twice(nodes)
    if kept and kept.login.place in [one.login.place for one in nodes]:
        raise UserError(f"{kept.login} is named as the master that stays, too", "--master names another one.")
    masters = [one for one in listed if one.role is Role.MASTER and one not in nodes]
    keeper = kept or next(iter(masters), None)
    return Chosen(nodes, keeper.login if keeper else None)


def _one(
    word: str, listed: Sequence[Candidate], jump: str | None, file: ClusterFile | None = None
) -> Candidate:
    """Where ``file`` is given it must have it."""
    for one in listed:
        if word == one.name:
            return one
    login = behind(word, jump)
    for one in listed:
        if login.place == one.login.place and login.user in (None, one.login.user):
            return one
    if file:
        raise UserError(f"the cluster file has no node {word} with a host", "Its name or its host names one.")
    return Candidate(login, Role.WORKER)
