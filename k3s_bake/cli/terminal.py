"""The person at the terminal, asked for what is missing to log in."""

import getpass
import sys
import threading

import click


class Terminal:
    """One question at a time. Where there is no terminal, nobody answers."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def password(self, what: str) -> str | None:
        with self._turn:
            return getpass.getpass(f"{what}: ") if sys.stdin.isatty() else None

    def trusts(self, host: str, fingerprint: str) -> bool:
        with self._turn:
            question = f"{host} is new here; its host key is {fingerprint}. Go on?"
            return sys.stdin.isatty() and click.confirm(question, err=True)
