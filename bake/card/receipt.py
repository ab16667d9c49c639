"""What was written to which card, kept in the operator's own data: one file a card.

The names in them are those that a cluster's cards have. Nothing in them is secret.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bake import cache

_FORMAT = 1
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Receipt:
    written: str
    """When it was done: ISO 8601, UTC."""
    device: str
    """Its path then."""
    model: str
    serial: str
    size: int
    """Of the card, bytes."""
    image: str
    """The path it had."""
    image_size: int
    parts_sha256: str
    """Of the hashes of its parts, one after the other: what was written and read back, before the stamp. Of
    two cards that are written in the same way, raw or by the same block map, it is the same."""
    bytes_written: int
    verified: bool
    seconds: dict[str, float]
    """By phase."""
    cluster: str = ""
    role: str = ""
    name: str = ""
    """Empty where the card was not stamped."""
    certificate: int = 0
    """The serial number of its join certificate; 0: it has none of its own."""

    @property
    def label(self) -> list[str]:
        """Lines to put on the card."""
        return [
            self.name,
            f"{self.role} of {self.cluster}",
            f"{self.written[:10]}  {self.certificate or ''}".strip(),
        ]


def keep(receipt: Receipt, home: cache.Home) -> Path:
    """Where it is now. UserError or WorkFailed where the data folder takes nothing."""
    folder = home.data / "cards"
    what = _ODD.sub("-", receipt.name or Path(receipt.device).name)[:80]
    target = folder / f"{receipt.written.replace(':', '')}-{what}-{os.urandom(4).hex()}.json"
    with cache.writing(target):
        folder.chmod(0o700)
        part = cache.beside(target, ".part")
        part.write_text(json.dumps({"format": _FORMAT, **asdict(receipt)}, indent=2) + "\n", encoding="utf-8")
        cache.publish(part, target)
    return target


def history(home: cache.Home) -> list[Receipt]:
    """Oldest first; what is garbled, or of another format, is left out."""
    found = []
    for path in (home.data / "cards").glob("*.json"):
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") == _FORMAT:
                found.append(Receipt(**data))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    texts = ("written", "device", "image", "cluster", "role", "name")
    sound = [one for one in found if all(isinstance(getattr(one, text), str) for text in texts)]
    return sorted(sound, key=lambda receipt: receipt.written)


def named(receipts: Sequence[Receipt], cluster: str) -> dict[str, Receipt]:
    """The last card of each name in a cluster."""
    return {one.name: one for one in receipts if one.name and one.cluster == cluster}
