from collections.abc import Iterator
from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit
PROBES = ()
def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    yield from ()
