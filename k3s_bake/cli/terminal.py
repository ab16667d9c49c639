"""The person at the terminal, asked for what is missing to log in."""

import atexit
import contextlib
import getpass
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import click


class Terminal:
    """One question at a time. Where there is no terminal, nobody answers.

    A password that was given is remembered until the program ends: a node's restart asks for it again.
    A question may be left open, by Ctrl-C say: then the terminal is as it was when the program ends.
    """

    def __init__(self, aside: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """``aside`` keeps the terminal free for as long as a question lasts."""
        self._turn = threading.Lock()
        self._aside = aside
        self._given: dict[str, str] = {}
        if sys.stdin.isatty():
            atexit.register(termios.tcsetattr, 0, termios.TCSADRAIN, termios.tcgetattr(0))

    def password(self, what: str, wrong: bool = False) -> str | None:
        with self._turn:
            if wrong:
                self._given.pop(what, None)
            if what not in self._given and sys.stdin.isatty():
                with self._aside(), contextlib.suppress(EOFError):
                    self._given[what] = getpass.getpass(f"{what}: ")
            return self._given.get(what)

    def types(self, what: str, word: str) -> bool:
        """Whether ``word`` is typed by a person who has been told ``what`` that does."""
        with self._turn, self._aside():
            try:
                return sys.stdin.isatty() and word == str(
                    click.prompt(f"{what} Type {word} to go on", default="", show_default=False, err=True)
                )
            except click.Abort:  # the end of the input
                return False

    def trusts(self, host: str, fingerprint: str) -> bool:
        with self._turn, self._aside():
            question = f"{host} is new here; its host key is {fingerprint}. Go on?"
            try:
                return sys.stdin.isatty() and click.confirm(question, err=True)
            except click.Abort:  # the end of the input
                return False
