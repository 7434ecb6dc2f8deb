"""The JSON of the local cloud's HTTP API, to and from the provisioner's own types.

In: replies of the local cloud (status, headers, body). Out: :class:`Instance` values, or the ``CloudError``
that the reply stands for. Pure functions without I/O; the HTTP client lies next door. A reply that does not
have the promised shape becomes ``CloudUnavailable``, never a ``KeyError``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from provisioner.errors import (
    AuthorizationFailed,
    CapacityUnavailable,
    CloudError,
    CloudUnavailable,
    InstanceExists,
    NotAllowed,
    NotFound,
    OperationInProgress,
    QuotaExceeded,
    SkuNotAvailable,
    Throttled,
)
from provisioner.protocol import Instance, InstanceRequest, InstanceState

Json = dict[str, Any]

_BY_CODE: dict[str, type[CloudError]] = {
    "AllocationFailed": CapacityUnavailable,
    "AuthorizationFailed": AuthorizationFailed,
    "CapacityUnavailable": CapacityUnavailable,
    "InstanceExists": InstanceExists,
    "NotFound": NotFound,
    "OperationInProgress": OperationInProgress,
    "OperationNotAllowed": NotAllowed,
    "QuotaExceeded": QuotaExceeded,
    "SkuNotAvailable": SkuNotAvailable,
    "TooManyRequests": Throttled,
    "ZonalAllocationFailed": CapacityUnavailable,
}
_BY_STATUS: dict[int, type[CloudError]] = {
    401: AuthorizationFailed,
    403: AuthorizationFailed,
    404: NotFound,
    409: OperationInProgress,
    412: InstanceExists,
    429: Throttled,
}


def create_body(request: InstanceRequest, capacity: Mapping[str, str]) -> Json:
    """The body of ``PUT /instances/{name}``; the first acceptable instance type is the one asked for."""
    return {
        "instanceType": request.instance_types[0],
        "labels": dict(request.labels),
        "taints": [
            {"key": t.key, "value": t.value, "effect": t.effect}
            for t in (*request.taints, *request.startup_taints)
        ],
        "capacity": dict(capacity),
    }


def parse_instance(body: Json) -> Instance:
    """One instance of a reply. Raises ``CloudUnavailable`` when the shape is not the promised one."""
    try:
        failure = body.get("error")
        return Instance(
            name=str(body["name"]),
            instance_type=str(body["instanceType"]),
            state=InstanceState(body["state"]),
            provider_id=str(body.get("providerID") or ""),
            node_name=str(body.get("nodeName") or ""),
            error=_classify(0, failure, None) if failure else None,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CloudUnavailable(f"the local cloud sent an instance that cannot be read: {error!r}") from error


def parse_reply(status: int, headers: Mapping[str, str], payload: bytes) -> Json:
    """The JSON object of a good reply.

    Raises:
        CloudError: what the reply's status and error code stand for.
    """
    try:
        body = json.loads(payload) if payload else {}
    except ValueError:
        body = None
    if status < 400 and isinstance(body, dict):
        return body
    if status < 400:
        raise CloudUnavailable(f"the local cloud answered {status} with something that is not JSON")
    detail = body.get("error") if isinstance(body, dict) else None
    raise _classify(status, detail, _seconds(headers.get("Retry-After")))


def _classify(status: int, detail: object, retry_after: float | None) -> CloudError:
    code, message = "", ""
    if isinstance(detail, dict):
        code, message = str(detail.get("code") or ""), str(detail.get("message") or "")
    default = CloudUnavailable if status >= 500 else CloudError
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, default)
    text = message or f"the local cloud answered {status or 'an error'}"
    if code and kind is default:
        text = f"{text} ({code})"
    return kind(text, code=code, retry_after=retry_after)


def _seconds(value: str | None) -> float | None:
    # Retry-After may also be a date; the local cloud never sends one, and the policy's delay will do.
    return float(value) if value is not None and value.strip().isdigit() else None
