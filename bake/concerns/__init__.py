"""What a node needs, one file each. The listing of this folder is the list.

A concern is a pure function ``(spec, facts) -> Iterator[Edit | Note]`` with PROBES, the paths it reads or
edits. It yields what is wanted; what is met already is left out by bake.node.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something a person should know of a plan: what was found, or deliberately left alone."""

    text: str
