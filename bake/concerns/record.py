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
    yield Write(PATH, (json.dumps(to_json(spec), indent=2, ensure_ascii=False) + "\n").encode())
