"""Machines that do not answer: off, gone for good, or with something between."""

import os

from firstboot.errors import WorkFailed


class NotReached(WorkFailed):
    """Nothing of it answers: of one that lets people in, more is known."""


def silent() -> NotReached:
    return NotReached("SSH does not answer", "Is it on, and SSH too? Is a firewall between?")


def unreachable(error: OSError | UnicodeError) -> NotReached:
    if isinstance(error, ConnectionRefusedError):
        return NotReached("the connection was refused", "Is SSH on there? sudo systemctl enable --now ssh")
    number = getattr(error, "errno", None) or 0
    words = os.strerror(number) if number > 0 else str(error)
    return NotReached(f"it cannot be reached: {words[:200]}", "Is it on, and is the address right?")


def not_forwarded(is_forbidden: bool, reason: str) -> WorkFailed:
    """What a jump host says of the host behind it."""
    if is_forbidden:
        return WorkFailed("its jump host forwards nothing", "AllowTcpForwarding yes, in its sshd_config.")
    return NotReached(
        f"its jump host does not reach it: {reason[:200]}", "Is it on, is the address right, and SSH on?"
    )
