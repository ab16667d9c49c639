"""A cluster's entry in kubectl's configuration: pure, of texts. yaml's door.

Of what a master sends only certificates and keys are taken: a kubeconfig can also name programs to run.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from firstboot.errors import UserError, WorkFailed

_MARK = "k3s-bake"
_KINDS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_CREDENTIALS = ("client-certificate-data", "client-key-data", "token")
_SERVER = re.compile(r"https://([0-9.]+|\[[0-9a-f:.]+\]):[0-9]{1,5}")
_OUTPUT = "--output FILE writes a file of its own."


@dataclass(frozen=True)
class Entry:
    """Cluster, user and context, all of one name."""

    name: str
    authority: str
    """Fingerprint of the cluster's SSH authority: by it an entry is known as ours."""
    server: str
    cluster: dict[str, str]
    user: dict[str, str]

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.server!r})"

    def named(self) -> dict[str, dict[str, Any]]:
        """As they stand in the lists of a kubeconfig."""
        values: dict[str, dict[str, Any]] = {
            "clusters": {"server": self.server, **self.cluster},
            "users": dict(self.user),
            "contexts": {"cluster": self.name, "user": self.name},
        }
        return {
            kind: {"name": self.name, inner: {**values[kind], "extensions": self._mark()}}
            for kind, inner in _KINDS.items()
        }

    def _mark(self) -> list[dict[str, Any]]:
        return [{"name": _MARK, "extension": {"provider": _MARK, "authority": self.authority}}]


def entry_of(text: str, server: str, name: str, authority: str) -> Entry:
    """The first cluster and user of what K3s wrote. WorkFailed for anything else."""
    try:
        data = _Loader(text).get_single_data()
        cluster, user = data["clusters"][0]["cluster"], data["users"][0]["user"]
        trusted = {"certificate-authority-data": cluster["certificate-authority-data"]}
        proof = {key: user[key] for key in _CREDENTIALS if key in user}
        good = bool(proof) and all(isinstance(value, str) for value in (*trusted.values(), *proof.values()))
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError):
        good = False
    if not good or not _SERVER.fullmatch(server):
        raise WorkFailed("the master's kubeconfig makes no sense", "Are both of one version of k3s-bake?")
    return Entry(name, authority, server, trusted, proof)


def alone(entry: Entry) -> str:
    """A kubeconfig of this cluster only."""
    return merged("", entry)


def merged(text: str, entry: Entry) -> str:
    """A kubeconfig with the entry in it; all else in it stays, but for comments.

    UserError where it is garbled, or an entry of this name is not of this cluster.
    """
    config = _parsed(text)
    for kind, named in entry.named().items():
        entries = config.get(kind) or []
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise UserError(f"the kubeconfig's {kind} are no list of names", _OUTPUT)
        same = [one for one in entries if one.get("name") == entry.name]
        if not all(_ours(one, kind, entry.authority) for one in same):
            raise UserError(
                f"the kubeconfig has an entry '{entry.name}' that is not of this cluster ({kind})", _OUTPUT
            )
        config[kind] = [named if one in same else one for one in entries] + ([] if same else [named])
    if not config.get("current-context"):
        config["current-context"] = entry.name
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError("the kubeconfig is no YAML", _OUTPUT) from error
    if data is None:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not isinstance(data, dict):
        raise UserError("the kubeconfig is none", _OUTPUT)
    return data


def _ours(named: dict[str, Any], kind: str, authority: str) -> bool:
    value = named.get(_KINDS[kind])
    marks = value.get("extensions") if isinstance(value, dict) else None
    wanted = {"provider": _MARK, "authority": authority}
    return isinstance(marks, list) and any(
        isinstance(mark, dict) and mark.get("extension") == wanted for mark in marks
    )


class _Kept(str):
    """A number, a date or a truth value, to be written back as it was."""

    tag: str


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    pass


def _keep(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> _Kept:
    kept = _Kept(node.value)
    kept.tag = node.tag
    return kept


def _as_it_was(dumper: yaml.SafeDumper, kept: _Kept) -> yaml.ScalarNode:
    return dumper.represent_scalar(kept.tag, str(kept))


for _tag in ("bool", "int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _keep)
_Dumper.add_representer(_Kept, _as_it_was)
