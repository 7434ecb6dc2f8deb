"""What a refusal of ARM or AKS means: one table from error codes and texts to the provisioner's own types.

In: the HTTP status (0 for an error that was found in an operation or on a pool), the cloud's code and words. Out:
one ``CloudError``. Pure, and knows nothing of the SDK. Codes come first; a text is read only where one code means
several things: ``OperationNotAllowed`` is a quota, a busy cluster or a policy. The HTTP status decides last,
because ARM says 409 to almost anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from provisioner.errors import (
    AuthorizationFailed,
    CapacityUnavailable,
    CloudError,
    CloudUnavailable,
    InstanceExists,
    InvalidRequest,
    Misconfigured,
    NotAllowed,
    NotFound,
    OperationInProgress,
    Quota,
    QuotaExceeded,
    SkuNotAllowed,
    SkuNotAvailable,
    Throttled,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the cloud said. ``status`` is 0 where the error is not that of an HTTP reply."""

    status: int = 0
    code: str = ""
    message: str = ""
    retry_after: float | None = None


_BY_CODE: dict[str, type[CloudError]] = {
    "AllocationFailed": CapacityUnavailable,
    "AuthenticationFailed": AuthorizationFailed,
    "AuthorizationFailed": AuthorizationFailed,
    "BadGateway": CloudUnavailable,
    "Canceled": OperationInProgress,
    "Conflict": OperationInProgress,
    "ErrCode_InsufficientVCPUQuota": QuotaExceeded,
    "ExpiredAuthenticationToken": AuthorizationFailed,
    "GatewayTimeout": CloudUnavailable,
    "InternalServerError": CloudUnavailable,
    "InvalidAuthenticationToken": AuthorizationFailed,
    "InvalidAuthenticationTokenTenant": AuthorizationFailed,
    "InvalidParameter": InvalidRequest,
    "InvalidRequestContent": InvalidRequest,
    "InvalidRequestFormat": InvalidRequest,
    "InvalidSubscriptionId": Misconfigured,
    "LinkedAuthorizationFailed": AuthorizationFailed,
    "MissingSubscriptionRegistration": Misconfigured,
    "OperationPreempted": OperationInProgress,
    "OverconstrainedAllocationRequest": CapacityUnavailable,
    "OverconstrainedZonalAllocationRequest": CapacityUnavailable,
    "ParentResourceNotFound": Misconfigured,
    "PropertyChangeNotAllowed": InvalidRequest,
    "QuotaExceeded": QuotaExceeded,
    "ReadOnlyDisabledSubscription": NotAllowed,
    "RequestDisallowedByPolicy": NotAllowed,
    "ResourceGroupNotFound": Misconfigured,
    "ScopeLocked": NotAllowed,
    "ServiceUnavailable": CloudUnavailable,
    "SkuNotAvailable": SkuNotAvailable,
    "SubscriptionNotFound": Misconfigured,
    "SubscriptionNotRegistered": Misconfigured,
    "SubscriptionRequestsThrottled": Throttled,
    "TooManyRequests": Throttled,
    "VMSizeNotSupported": SkuNotAvailable,
    "ZonalAllocationFailed": CapacityUnavailable,
}
_BY_STATUS: dict[int, type[CloudError]] = {
    401: AuthorizationFailed,
    403: AuthorizationFailed,
    408: CloudUnavailable,
    409: OperationInProgress,
    412: InstanceExists,
    429: Throttled,
}
NEXT_STEPS: dict[type[CloudError], str] = {
    AuthorizationFailed: (
        "Give the provisioner's identity the role Contributor on the managed cluster, "
        "and check that its federated credential names this service account."
    ),
    Misconfigured: (
        "Correct ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP and AZURE_CLUSTER_NAME of the provisioner "
        "and start it again."
    ),
}
# "The VM size of X is not allowed in your subscription in location 'Y'. The available VM sizes are ..."
_NOT_IN_SUBSCRIPTION = "is not allowed in your subscription in location"
_BUSY = re.compile(r"in[- ]progress|another (\w+ )*operation|preempted|please wait", re.IGNORECASE)
# "Operation could not be completed as it results in exceeding approved F Cores quota. ... Current Limit: 0, ..."
_CRP_QUOTA = re.compile(r"exceeding approved (?P<name>.+?) quota", re.IGNORECASE)
_CRP_NUMBERS = {
    "limit": re.compile(r"Current Limit: (\d+)", re.IGNORECASE),
    "used": re.compile(r"Current Usage: (\d+)", re.IGNORECASE),
    "needed": re.compile(r"Additional Required: (\d+)", re.IGNORECASE),
}
_CRP_LOCATION = re.compile(r"Location: ([A-Za-z0-9]+)", re.IGNORECASE)
# "Insufficient vcpu quota requested 24, remaining 0 for family F for region R."
_AKS_QUOTA = re.compile(
    r"requested (?P<needed>\d+), remaining (?P<left>\d+) for family (?P<name>\S+) "
    r"for region (?P<region>[A-Za-z0-9]+)",
    re.IGNORECASE,
)
# "Insufficient regional vcpu quota left for location R. left regional vcpu quota 4, requested quota 24."
_AKS_REGIONAL = re.compile(
    r"quota left for location (?P<region>[A-Za-z0-9]+)\. left regional vcpu quota (?P<left>\d+), "
    r"requested quota (?P<needed>\d+)",
    re.IGNORECASE,
)


def classify(*refusals: Refusal) -> CloudError:
    """The error that a refusal stands for; of several, wrapped in each other, the first with a telling code."""
    known = next((refusal for refusal in refusals if _by_code(refusal) is not None), refusals[0])
    return _classify(known)


def _classify(refusal: Refusal) -> CloudError:
    kind = _by_code(refusal) or _by_status(refusal.status)
    said = refusal.message.strip().rstrip(".")
    text = said or f"Azure answered {refusal.status or 'an error'} and gave no reason"
    if kind in (CloudError, CloudUnavailable) and refusal.code and refusal.code not in text:
        text = f"{text} ({refusal.code})"
    if kind is QuotaExceeded and (quota := read_quota(refusal.message)):
        return _quota_exceeded(refusal, quota)
    step = NEXT_STEPS.get(kind, "")
    return kind(text, code=refusal.code, next_step=step, retry_after=refusal.retry_after)


def read_quota(message: str) -> Quota | None:
    """The quota that a message tells of; None when it has none of the forms that are known."""
    if match := _AKS_QUOTA.search(message):
        return _remaining(match["name"], match["needed"], match["left"], match["region"])
    if match := _AKS_REGIONAL.search(message):
        return _remaining("Total Regional vCPUs", match["needed"], match["left"], match["region"])
    if match := _CRP_QUOTA.search(message):
        found = {name: pattern.search(message) for name, pattern in _CRP_NUMBERS.items()}
        numbers = {name: int(hit[1]) if hit else None for name, hit in found.items()}
        where = _CRP_LOCATION.search(message)
        return Quota(match["name"], **numbers, location=where[1] if where else "")
    return None


def _remaining(name: str, needed: str, left: str, region: str) -> Quota:
    return Quota(name, needed=int(needed), left=int(left), location=region)


def _quota_exceeded(refusal: Refusal, quota: Quota) -> QuotaExceeded:
    ask = f" to at least {quota.needed_limit}" if quota.needed_limit is not None else ""
    step = (
        f"Have the quota {quota.name} raised{ask} (https://aka.ms/azure-quota), "
        "or choose another instanceType or region."
    )
    return QuotaExceeded(
        str(quota), code=refusal.code, next_step=step, retry_after=refusal.retry_after, quota=quota
    )


def _by_code(refusal: Refusal) -> type[CloudError] | None:
    code, message = refusal.code, refusal.message
    if _NOT_IN_SUBSCRIPTION in message:
        return SkuNotAllowed
    if code == "OperationNotAllowed":
        return _operation_not_allowed(message)
    if code == "SkuNotAvailable" and "capacity restriction" in message.lower():
        return CapacityUnavailable  # the region has the size, and has none left: that changes by itself
    if code in ("NotFound", "ResourceNotFound"):
        return _not_found(message)
    return _BY_CODE.get(code)


def _by_status(status: int) -> type[CloudError]:
    if status == 404:
        # Not one of ARM's own answers. To take it for "the pool is gone" would let a paid pool go unnoticed.
        return CloudUnavailable
    return _BY_STATUS.get(status, CloudUnavailable if status >= 500 else CloudError)


def _operation_not_allowed(message: str) -> type[CloudError]:
    if "quota" in message.lower():
        return QuotaExceeded
    return OperationInProgress if _BUSY.search(message) else NotAllowed


def _not_found(message: str) -> type[CloudError]:
    about_the_cluster = "managedclusters/" in message.lower() and "agentpools/" not in message.lower()
    return Misconfigured if about_the_cluster else NotFound
