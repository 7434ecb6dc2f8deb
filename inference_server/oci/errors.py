"""What can go wrong when something is fetched, as exceptions that carry the cause, the next step and the hope.

One base, `FetchError`. ``reason`` is a word for metrics and conditions, ``next_step`` is for a person,
``transient`` says whether the same attempt can succeed later without anybody doing anything. No library's
exception leaves `inference_server.oci` or `inference_server.sources`; no message holds a credential.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class FetchError(Exception):
    """Something could not be fetched. ``retry_after`` is in seconds, where the other side named a time."""

    reason: ClassVar[str] = "Failed"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, next_step: str = "", *, retry_after: float | None = None) -> None:
        self.message = message
        self.next_step = next_step
        self.retry_after = retry_after
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message}; {self.next_step}" if self.next_step else self.message


class NotFound(FetchError):
    """There is no such repository, tag, revision or file."""

    reason = "NotFound"


class Denied(FetchError):
    """It may be there, but not for us."""

    reason = "Denied"


class DigestMismatch(FetchError):
    """The bytes are not those that were promised. They have been thrown away."""

    reason = "DigestMismatch"


class TooLarge(FetchError):
    """It goes beyond a limit that protects the disk or the memory of this machine."""

    reason = "TooLarge"


class Unreachable(FetchError):
    """No answer, or one that says that the other side is unwell. It may be better later."""

    reason = "Unreachable"
    transient = True


class BadArtifact(FetchError):
    """It was fetched and is not what it should be: malformed, unsafe to unpack, or of a kind not supported."""

    reason = "Invalid"


class DiskFull(FetchError):
    """The disk has no room. Transient, because somebody else's files may go away."""

    reason = "DiskFull"
    transient = True


class NotUsable(FetchError):
    """The folder on this machine cannot be read or written."""

    reason = "NotUsable"


def of_os_error(error: OSError, where: object) -> FetchError:
    """A local file system's error as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the disk of {where} is full", "give the volume more room, or remove what is not needed")
    return NotUsable(f"{where} cannot be used: {error.strerror or error}", "check the volume and its permissions")
