"""What the zip on a node does, by its one argument.

Runs on the node: Python 3.7, standard library only.
"""

import sys
from importlib import import_module

from firstboot.errors import UserError, WorkFailed

VERBS = {
    "agent": "firstboot.agent",  # k3s-bake.service
    "serve": "firstboot.serve",  # the forced command of a master's join service: must start at once
    "helper": "firstboot.helper",  # what it may have done as root
}


def main() -> None:
    """Exits with the verb's own code; 2 for a person's mistake, 1 for work that failed."""
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        sys.exit(f"usage: firstboot.pyz {'|'.join(VERBS)}")
    try:
        code = import_module(VERBS[sys.argv[1]]).main()
    except (UserError, WorkFailed) as error:
        sys.stderr.write(f"k3s-bake: {error.message}\n")
        code = 2 if isinstance(error, UserError) else 1
    sys.exit(code)
