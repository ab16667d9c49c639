"""What a person can mend."""


class UserError(Exception):
    """A mistake or a state that a person can mend, worded for that person.

    The command line prints ``message`` and, on a line of its own, ``hint``; anything else keeps its
    traceback. ``message`` is one line and never holds a secret.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WorkFailed(UserError):
    """The request was right but the work could not be done: a full disk, a server that does not answer."""

    exit_code = 1
