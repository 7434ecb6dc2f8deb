"""Errors of the front door: what a person at a terminal sees, with what to do next.

Everything that a command cannot do ends as a ``CliError``. ``kaito.cli.main`` prints it on one or two lines and
exits with its code; a traceback at a terminal is a bug.
"""

from __future__ import annotations


class CliError(Exception):
    """A command failed for a reason that its user can act on.

    Attributes:
        message: what happened, one sentence without a final full stop.
        next_step: what to type or change next; may be empty.
        exit_code: 1 for a failure, 2 for unusable arguments, 3 for a time-out, 130 for an interruption.
        title: stands before the message; a server's refusal has kubectl's words here.
    """

    def __init__(self, message: str, next_step: str = "", *, exit_code: int = 1, title: str = "error") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.exit_code = exit_code
        self.title = title


class Interrupted(CliError):
    """SIGINT, SIGTERM or SIGHUP ended the command, after everything was cleaned up."""

    def __init__(self) -> None:
        super().__init__("interrupted; everything was stopped", exit_code=130)
