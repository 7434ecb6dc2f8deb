"""The errors of the framework: a small tree, with every foreign exception translated at the edge.

``ApiError`` is what an API server answered, ``ConnectionFailed`` that it did not answer, ``ConfigError`` that
it is not known how to ask. The original exception is always the ``__cause__``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from manager.types import Obj


class ManagerError(Exception):
    """The root of the tree."""


class ConfigError(ManagerError):
    """No usable configuration of a cluster; the message says what was looked at and what to do."""


class ConnectionFailed(ManagerError):
    """The server could not be reached or did not answer: refused, reset, timed out, TLS."""


class StreamSilent(ConnectionFailed):
    """A stream that was open carried nothing for its whole time: a dead peer, or a server without bookmarks."""


class InvalidRequest(ManagerError):
    """The call itself is wrong, and nothing was sent: a name that no object can have, a body that is not JSON, a
    namespace that a namespaced client must not touch."""


class TerminalError(ManagerError):
    """Raised by a reconciler: trying again cannot help until the object changes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One of the reasons in ``details.causes``: a machine-readable reason, words, and the path of the field."""

    reason: str
    message: str
    field: str


class ApiError(ManagerError):
    """The server answered with an error.

    Attributes:
        status: HTTP status code.
        reason: the machine-readable reason of the Status object, such as ``NotFound``.
        message: the server's words.
        details: the Status object's details, or None.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        details: Obj | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message or reason} (HTTP {status})")
        self.status = status
        self.reason = reason
        self.message = message or reason
        self.details = details
        self.retry_after = retry_after

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The single reasons, where the server gave any."""
        found = (self.details or {}).get("causes")
        return tuple(
            Cause(str(c.get("reason") or ""), str(c.get("message") or ""), str(c.get("field") or ""))
            for c in (found if isinstance(found, list) else [])
            if isinstance(c, dict)
        )


class BadRequest(ApiError):
    """400."""


class Unauthorized(ApiError):
    """401: no or wrong credentials."""


class Forbidden(ApiError):
    """403: known, and not allowed."""


class NotFound(ApiError):
    """404: no such object, or no such resource."""


class MethodNotAllowed(ApiError):
    """405."""


class AlreadyExists(ApiError):
    """409 on create."""


class Conflict(ApiError):
    """409 on a write: the object changed meanwhile, or another manager owns a field."""


class ApplyConflict(Conflict):
    """409 on a server-side apply: fields of the object belong to other managers, and ``force`` was not set.

    :attr:`causes` has one entry per field.
    """

    @property
    def managers(self) -> tuple[str, ...]:
        """The other managers, each once, in the order in which the server names them."""
        names = (_MANAGER.search(cause.message) for cause in self.causes if cause.reason == _CONFLICT_REASON)
        return tuple(dict.fromkeys(_UNQUOTED.sub(r"\1", name[1]) for name in names if name))


class Gone(ApiError):
    """410: the resource version or the continue token is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks a rule; ``details["causes"]`` names the fields."""


class UnsupportedMediaType(ApiError):
    """415: for instance a strategic merge patch of a custom resource."""


class TooManyRequests(ApiError):
    """429."""


class ServerError(ApiError):
    """5xx."""


_CONFLICT_REASON = "FieldManagerConflict"
_MANAGER = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
_UNQUOTED = re.compile(r"\\(.)")

_BY_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    410: Gone,
    415: UnsupportedMediaType,
    422: Invalid,
    429: TooManyRequests,
}


def api_error(status: int, body: Obj, retry_after: float | None = None) -> ApiError:
    """The error for an answer: by its Status object where there is one, else by its HTTP code."""
    reason = str(body.get("reason") or "")
    message = str(body.get("message") or "")
    details = body.get("details") if isinstance(body.get("details"), dict) else None
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if status == 409:
        kind = AlreadyExists if reason == "AlreadyExists" else _conflict(details)
    if reason == "Expired":
        kind = Gone
    if retry_after is None and details and isinstance(details.get("retryAfterSeconds"), int):
        retry_after = float(details["retryAfterSeconds"]) or None
    return kind(status, reason, message, details, retry_after)


def _conflict(details: Obj | None) -> type[Conflict]:
    causes = (details or {}).get("causes")
    for cause in causes if isinstance(causes, list) else []:
        if isinstance(cause, dict) and cause.get("reason") == _CONFLICT_REASON:
            return ApplyConflict
    return Conflict


class CacheError(ManagerError):
    """A cached read or an informer that cannot do what was asked; nothing is wrong with the server's answer."""


class CacheNotStarted(CacheError):
    """A read before the cache runs: it would wait for something that nobody has started."""


class CacheNotSynced(CacheError):
    """A collection could not be listed in time; the message names it."""


class NotCached(CacheError):
    """The kind, or the namespace, is not in this cache; read it from the server, or configure the cache."""


class IndexMissing(CacheError):
    """A cached list by a field for which there is no index, or by more than equality."""


class InformerStopped(CacheError):
    """The informer, or the handler's registration, has ended: nothing will ever come from it."""


class ReadBeforeSync(CacheError):
    """Misuse, told in debug mode only: a store was read before it held a whole list."""


class StaleCache(CacheError):
    """The cache has not caught up with a write of this process in time: try again later, act on nothing now."""
