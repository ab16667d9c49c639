"""Who asks a master's join service, and how it is refused.

Runs on the node: Python 3.7, standard library only.
"""

from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple

from firstboot.contract import GOLDEN, is_address

_MOST_LINES = 2000


class Refused(Exception):
    """With a code of contract.REASONS."""

    @property
    def reason(self) -> str:
        return str(self.args[0])

    @property
    def more(self) -> Dict[str, Any]:
        """What else the answer says."""
        return self.args[1] if len(self.args) > 1 else {}


class Asker(NamedTuple):
    """Who asks, by the certificate that sshd has checked."""

    key_id: str
    principals: FrozenSet[str]
    address: str
    """Ours, by which the asker has reached us."""
    certificate: str = ""

    @property
    def has_card(self) -> bool:
        """A certificate of its own, not one that many may use."""
        return not self.key_id.startswith(GOLDEN)


def asker_of(data: Mapping[str, Any]) -> Asker:
    """Who the forced command says it is. ValueError for anything else."""
    keys = ("key_id", "principals", "address", "certificate")
    key_id, principals, address, signed = (data.get(key) for key in keys)
    if not isinstance(key_id, str) or not isinstance(address, str) or not is_address(address):
        raise ValueError("no asker")
    if not isinstance(signed, str) or not signed:
        raise ValueError("no certificate")
    try:
        return Asker(key_id, frozenset(texts(principals)), address, signed)
    except Refused as refusal:
        raise ValueError("no asker") from refusal


def texts(value: object) -> List[str]:
    if not isinstance(value, list) or len(value) > _MOST_LINES:
        raise Refused("bad-answer")
    if not all(isinstance(one, str) for one in value):
        raise Refused("bad-answer")
    return value
