"""Ctrl-C, in a command that knows what is true then."""

from firstboot.errors import UserError


class Interrupted(UserError):
    exit_code = 130  # 128 + SIGINT, as shells say it

    def __init__(self, hint: str) -> None:
        super().__init__("interrupted", hint)
