"""The SDK's exceptions as the provisioner's own. Nothing of ``azure.core`` leaves this room.

In: what a call of the SDK raised. Out: a ``CloudError``. An HTTP error gives its code and words, in whichever of
ARM's body formats they came; anything else that the SDK raises is a cloud that could not be asked or understood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.polling.base_polling import BadResponse, BadStatus, OperationFailed

from provisioner.azure.classify import NEXT_STEPS, Refusal, classify
from provisioner.errors import AuthorizationFailed, CloudError, CloudUnavailable

_TEXT = 300  # characters kept of a body that is not ARM's


class translated:
    """``with translated():`` raises a ``CloudError`` instead of whatever the SDK raised inside."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # ValueError, KeyError and the like: the SDK's own when a reply has not the promised shape.
        if isinstance(error, Exception) and not isinstance(error, CloudError):
            raise to_cloud_error(error) from error


def to_cloud_error(error: Exception) -> CloudError:
    """What an exception of the SDK stands for."""
    if isinstance(error, ClientAuthenticationError):
        # Both ARM's 401 and every failure to get a token: the identity service's words say which.
        text = "; ".join(line.strip() for line in str(error.message).splitlines() if line.strip())
        found = next(_refusals(error), Refusal())
        return AuthorizationFailed(
            (found.message or text).rstrip("."), code=found.code, next_step=NEXT_STEPS[AuthorizationFailed]
        )
    if isinstance(error, HttpResponseError) and error.response is not None:
        return _of_reply(error)
    if isinstance(error, FileNotFoundError | PermissionError):
        return AuthorizationFailed(
            f"the federated token cannot be read: {error}", next_step=NEXT_STEPS[AuthorizationFailed]
        )
    if isinstance(error, ServiceRequestError | ServiceResponseError | TimeoutError | OSError):
        return CloudUnavailable(f"Azure could not be asked: {error}")
    if isinstance(error, AzureError | BadStatus | BadResponse | OperationFailed | ValueError | LookupError):
        return CloudUnavailable(f"Azure answered something that cannot be read: {error}")
    return CloudUnavailable(f"the Azure SDK failed: {error!r}")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header, which may also be a date; None when there is none that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _of_reply(error: HttpResponseError) -> CloudError:
    return classify(*_refusals(error))


def _refusals(error: HttpResponseError) -> Iterator[Refusal]:
    response: Any = error.response
    status = error.status_code or 0
    status = 0 if status < 400 else status  # an operation that failed: its poll was answered well
    after = retry_after(response.headers) if response is not None else None
    found = False
    for detail in _details(error.error):
        found = True
        yield Refusal(status, str(detail.code or ""), str(detail.message or ""), after)
    if not found:
        yield Refusal(status, "", _text(response), after)


def _details(detail: Any) -> Iterator[Any]:
    if detail is None or not (detail.code or detail.message):
        return
    yield detail
    for inner in getattr(detail, "details", None) or ():
        yield from _details(inner)


def _text(response: Any) -> str:
    try:
        text = response.text() if response is not None else ""
    except Exception:  # the body was lost on its way; its status tells enough
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _TEXT else text[:_TEXT] + "..."
