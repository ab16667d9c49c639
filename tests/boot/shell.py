"""A person at a machine's console."""

from bake.emulator.machine import Machine

_PROMPT = "@@@ "


def log_in(machine: Machine, user: str, password: str) -> None:
    machine.until("login: ")
    _type(machine, user)
    machine.until("Password: ")
    _type(machine, password)
    machine.until(r"\$ ")
    _type(
        machine,
        "stty -echo cols 500; unset PROMPT_COMMAND; PS1='@@''@ '; export PATH=$PATH:/usr/sbin TERM=dumb",
    )
    machine.until(_PROMPT)


def run(machine: Machine, command: str) -> str:
    """What a command prints."""
    _type(machine, command)
    return machine.until(_PROMPT).replace("\r", "").strip()


def _type(machine: Machine, line: str) -> None:
    machine.type(line.encode() + b"\n")
