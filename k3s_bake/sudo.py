"""The password that sudo wants on a node: whose it is, and once more where it was wrong."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from firstboot.errors import UserError
from k3s_bake.login import Login, Person, asked

WRONG = "try again"
"""sudo says so, and waits for another one."""

Run = Callable[[str], Awaitable[tuple[Any, str]]]
"""By sudo, with a password: a process, or None and what was complained of."""


async def asking(login: Login, user: str, person: Person, run: Run) -> tuple[Any, str]:
    """As ``run``. ``login`` has all the hosts that are between. UserError where nobody answers.

    A wrong password is asked for once more, as it may have been remembered.
    """
    what = f"sudo password of {user} at {replace(login, user=None)}{login.through}"
    password = await asked(person.password, what)
    if password is None:
        raise UserError(
            f"sudo wants a password of {user}", "Run it in a terminal, which asks; or allow it without."
        )
    process, why = await run(password)
    if process is None and WRONG in why:
        password = await asked(person.password, what, True)
        if password is not None:
            process, why = await run(password)
    return process, why
