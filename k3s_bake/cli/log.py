"""The log of a run that acts on machines."""

import datetime
import os

from bake import cache
from k3s_bake import fleet_report


def lines_of(command: str, *, quiet: bool) -> fleet_report.Lines:
    """Of this run alone, in the operator's data. ``quiet``: nothing on standard error."""
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    log = cache.home().data / "logs" / f"{when}-{command}-{os.getpid()}.log"
    return fleet_report.Lines(log, quiet=quiet)
