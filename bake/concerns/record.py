"""The node's own record of what it was made to be, so that it can be compared with it later.

No secret is in it: what came from a secret file is known by being there, not by its content.
"""

import json
from collections.abc import Iterator

from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from bake.spec_json import to_json
from firstboot.edits import Edit, Write
from firstboot.snapshot import Probe

PATH = "/etc/k3s-bake/node.json"

PROBES = (Probe(PATH),)


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    text = json.dumps(to_json(spec), indent=2, ensure_ascii=False) + "\n"
    yield Write(PATH, text.encode("utf-8", "surrogateescape"))


def earlier_secrets(facts: NodeFacts) -> tuple[str, ...]:
    """Which secrets an earlier bake wrote, by their fields; none where its record is lost."""
    try:
        found = json.loads(facts.text(PATH) or "{}")["secrets"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(found) if isinstance(found, list) else ()
