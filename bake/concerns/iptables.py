"""Legacy iptables: Buster's 1.8.2 has an nft variant with which Kubernetes' rules do not work.

The same files that ``update-alternatives --set iptables /usr/sbin/iptables-legacy`` leaves, byte for byte:
programs of the image cannot be run here, being another processor's.
"""

from collections.abc import Iterator

from bake.concerns import Note
from bake.dpkg import Alternative
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit, Link, Remove
from firstboot.errors import UserError
from firstboot.snapshot import Probe

_STATE = "/var/lib/dpkg/alternatives"
_NAMES = ("iptables", "ip6tables")  # arptables and ebtables are left alone: K3s uses neither

PROBES = (
    *(Probe(f"{_STATE}/{name}") for name in _NAMES),
    *(Probe(f"/usr/sbin/{name}-legacy", "head") for name in _NAMES),
    Probe("/etc/alternatives/ip*tables*"),
)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if not facts.has("iptables"):
        raise UserError(
            "the image has no iptables", "Install the package iptables in the base, or use another."
        )
    for name in _NAMES:
        state = facts.text(f"{_STATE}/{name}")
        if state is None:
            yield Note(f"{name} has no alternatives here: left as it is")
        else:
            yield from _set(name, state, facts)


def _set(name: str, state: str, facts: NodeFacts) -> Iterator[Edit | Note]:
    alternative = Alternative.parse(state, name)
    legacy = f"/usr/sbin/{name}-legacy"
    if legacy not in alternative.choices or not facts.exists(legacy):
        raise UserError(f"the image has no {legacy}", "Its iptables package is damaged: use another base.")
    # Without 'manual' a package upgrade may choose nft again.
    yield facts.rewritten(f"{_STATE}/{name}", str(alternative.manual()))
    for link, target in alternative.links(legacy, name).items():
        yield Link(f"/etc/alternatives/{link}", target) if target else Remove(f"/etc/alternatives/{link}")
