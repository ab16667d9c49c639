"""Ctrl-C, in a command that knows what is true then."""

from firstboot.errors import UserError
from k3s_bake.crew import INTERRUPTED


class Interrupted(UserError):
    exit_code = INTERRUPTED

    def __init__(self, hint: str) -> None:
        super().__init__("interrupted", hint)
