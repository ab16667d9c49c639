"""dpkg's own files as pure text: which packages are installed, and alternatives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from firstboot.errors import UserError


@dataclass(frozen=True)
class Package:
    version: str
    architecture: str


@lru_cache(maxsize=8)  # read again at each step of a plan, and a fleet's machines are of one image mostly
def installed(status: str) -> Mapping[str, Package]:
    """Packages by name from /var/lib/dpkg/status; only those whose files are there."""
    found: dict[str, Package] = {}
    for paragraph in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " "
        )
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            found[fields["Package"]] = Package(fields.get("Version", ""), fields.get("Architecture", ""))
    return MappingProxyType(found)


def version_tuple(version: str) -> tuple[int, ...]:
    """Leading numbers of the upstream part: ``1:7.9p1-10+deb10u2`` gives ``(7, 9)``."""
    upstream = version.rpartition(":")[2].partition("-")[0]
    numbers: list[int] = []
    for part in upstream.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits[:9]))  # Python refuses numbers of thousands of digits
        if digits != part:
            break
    return tuple(numbers)


@dataclass(frozen=True)
class Alternative:
    """A file of /var/lib/dpkg/alternatives, as dpkg writes and reads it.

    Line 1 the mode, line 2 the master link, then name and link of each slave; an empty line; per choice its
    path, priority and one path a slave, in order; a last empty line.
    """

    mode: str
    link: str
    slaves: tuple[tuple[str, str], ...]
    choices: Mapping[str, tuple[str, tuple[str, ...]]]
    """path -> (priority, the slaves' paths)"""

    @classmethod
    def parse(cls, text: str, name: str) -> "Alternative":
        """UserError where dpkg itself would not read it."""
        try:
            head, rest = text.split("\n\n", 1)
            mode, link, *pairs = head.split("\n")
            slaves = tuple(zip(pairs[::2], pairs[1::2], strict=True))
            lines = rest.split("\n")
            end = lines.index("")
            size = 2 + len(slaves)
            if mode not in ("auto", "manual") or end % size or lines[end:] != ["", ""]:
                raise ValueError(mode)
            choices = {
                lines[at]: (str(int(lines[at + 1])), tuple(lines[at + 2 : at + size]))
                for at in range(0, end, size)
            }
            if len(choices) * size != end:
                raise ValueError("a choice is there twice")
        except ValueError as error:
            raise UserError(
                f"/var/lib/dpkg/alternatives/{name} is garbled", "The image is damaged: use a fresh one."
            ) from error
        return cls(mode, link, slaves, choices)

    def manual(self) -> "Alternative":
        return replace(self, mode="manual")

    def __str__(self) -> str:
        lines = [self.mode, self.link, *(word for slave in self.slaves for word in slave), ""]
        for path, (priority, slaves) in self.choices.items():
            lines += [path, priority, *slaves]
        return "\n".join([*lines, "", ""])

    def links(self, choice: str, name: str) -> dict[str, str]:
        """Links under /etc/alternatives and their targets when ``choice`` is set; empty: no link."""
        slaves = self.choices[choice][1]
        return {name: choice} | {slave: path for (slave, _), path in zip(self.slaves, slaves, strict=True)}
