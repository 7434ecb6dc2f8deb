"""What a cloud can answer instead of an instance, as types with behaviour.

In: a provider's own failures (an HTTP reply, an SDK exception), translated at the provider's edge. Out: one
``CloudError`` that carries the reason for a condition, the cloud's own words, what the user can do next, and
how soon it is worth asking again. Two levels only; the Machine controller reads the attributes and needs no
``isinstance`` beyond :class:`NotFound` and :class:`InstanceExists`. A terminal error says in its next step that
nothing is tried again until somebody changes something.

No foreign exception type (aiohttp, azure.core) may leave this room, and no subclass may be raised without a
next step: an error that says only "failed" is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before the next attempt, in seconds: doubles from ``first`` up to ``cap``."""

    first: float
    cap: float

    def delay(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (1 is the first)."""
        # The exponent is bounded: after many attempts 2**n is a number that takes longer than the wait.
        return float(min(self.cap, self.first * 2.0 ** min(max(attempt, 1) - 1, 32)))


class CloudError(Exception):
    """A cloud refused or could not be asked. Base of all, and itself the answer that nobody classified.

    Attributes:
        reason: CamelCase word for a condition's ``reason``.
        message: the cloud's own words.
        next_step: what the user can do, one sentence.
        code: the cloud's own error code, where it gave one.
        retry_after: seconds that the cloud asked for; None leaves it to the policy.
        terminal: the same request would always be refused, so it is not repeated.
    """

    reason: ClassVar[str] = "CloudOperationFailed"
    terminal: ClassVar[bool] = False
    policy: ClassVar[RetryPolicy] = RetryPolicy(10, 300)
    default_next_step: ClassVar[str] = "Look up the cloud's error code; the operator keeps trying."

    def __init__(
        self, message: str, *, code: str = "", next_step: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.next_step = next_step or self.default_next_step
        self.retry_after = retry_after

    def retry_delay(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number ``attempt``; what the cloud asked for wins."""
        return self.policy.delay(attempt) if self.retry_after is None else self.retry_after

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class Quota:
    """Which quota is too small: ``needed`` more are wanted, ``limit`` is allowed, ``used`` taken, ``left`` left.

    Numbers are vCPUs, as clouds count quota; None where the cloud did not say.
    """

    name: str
    needed: int | None = None
    limit: int | None = None
    used: int | None = None
    left: int | None = None
    location: str = ""

    def __str__(self) -> str:
        where = f" in {self.location}" if self.location else ""
        facts = (
            (self.needed, "this needs {} more vCPUs"),
            (self.limit, "the limit is {}"),
            (self.used, "{} are in use"),
            (self.left, "{} are left"),
        )
        told = ", ".join(text.format(number) for number, text in facts if number is not None)
        return f"the quota {self.name}{where} is too small" + (f": {told}" if told else "")

    @property
    def needed_limit(self) -> int | None:
        """The smallest limit that would do; None where the cloud did not give the numbers for it."""
        return None if self.used is None or self.needed is None else self.used + self.needed


class QuotaExceeded(CloudError):
    """The subscription has too little quota for this instance type; only a person can raise it.

    Attributes:
        quota: the quota as numbers, where the cloud's message gave them.
    """

    reason = "QuotaExceeded"
    policy = RetryPolicy(60, 600)
    default_next_step = "Ask for more quota of this VM family, or choose another instanceType or region."

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        next_step: str = "",
        retry_after: float | None = None,
        quota: Quota | None = None,
    ) -> None:
        super().__init__(message, code=code, next_step=next_step, retry_after=retry_after)
        self.quota = quota


class CapacityUnavailable(CloudError):
    """The cloud has none of these machines at the moment; later it may."""

    reason = "CapacityUnavailable"
    policy = RetryPolicy(30, 300)
    default_next_step = "Wait for capacity, or choose another instanceType or region."


class SkuNotAvailable(CloudError):
    """This instance type is not offered here at all."""

    reason = "SkuNotAvailable"
    terminal = True
    default_next_step = "Choose an instanceType that this region offers; the operator does not try this one again."


class SkuNotAllowed(CloudError):
    """The region offers this instance type, and this subscription may not use it."""

    reason = "SkuNotAllowedInSubscription"
    terminal = True
    default_next_step = (
        "Ask Azure support to allow the size in this subscription and make the Workspace anew, or choose another "
        "instanceType; the operator does not try this one again."
    )


class NotAllowed(CloudError):
    """A policy or the state of the account forbids the operation."""

    reason = "OperationNotAllowed"
    policy = RetryPolicy(60, 600)
    default_next_step = "Change the policy that forbids it, or choose another instanceType."


class AuthorizationFailed(CloudError):
    """The provisioner's credentials are missing, expired or lack a permission."""

    reason = "AuthorizationFailed"
    policy = RetryPolicy(30, 300)
    default_next_step = "Give the provisioner's identity permission to manage instances."


class Misconfigured(CloudError):
    """What the provisioner was told to work in (subscription, resource group, cluster) is not there."""

    reason = "ProvisionerMisconfigured"
    policy = RetryPolicy(60, 600)
    default_next_step = "Correct the provisioner's settings and start it again."


class InvalidRequest(CloudError):
    """The cloud refuses the request as such; the same request would be refused for ever."""

    reason = "InvalidRequest"
    terminal = True
    default_next_step = (
        "Correct what the message names; the operator does not try again until the Machine changes."
    )


class CreationDisabled(CloudError):
    """This provisioner makes no instances at all: the nodes are somebody else's to bring."""

    reason = "CreationDisabled"
    terminal = True
    default_next_step = (
        "Label nodes of yours with what resource.labelSelector names and delete the Machine, "
        "or run the provisioner with a cloud (--provider=azure); nothing is tried again before."
    )


class NameTaken(CloudError):
    """Something that is not ours bears the name of the instance. It is neither used nor touched."""

    reason = "NameTaken"
    policy = RetryPolicy(60, 600)
    default_next_step = "Remove the other one, or delete the Machine so that one with another name is made."


class OperationInProgress(CloudError):
    """Another operation holds the resource; ask again soon."""

    reason = "OperationInProgress"
    policy = RetryPolicy(5, 30)
    default_next_step = "Nothing to do; the operator tries again when the other operation has ended."


class Throttled(CloudError):
    """Too many requests; ``retry_after`` is what the cloud asked for."""

    reason = "Throttled"
    policy = RetryPolicy(10, 120)
    default_next_step = "Nothing to do; the operator slows down as the cloud asked."


class NotFound(CloudError):
    """There is no instance of that name. The expected end of a deletion, never a failure there."""

    reason = "InstanceNotFound"
    default_next_step = "Nothing to do; the operator creates the instance when a Machine asks for it."


class InstanceExists(CloudError):
    """An instance of that name exists already; a create never touches it. Look it up instead."""

    reason = "InstanceExists"
    policy = RetryPolicy(1, 10)
    default_next_step = "Nothing to do; the operator takes over the instance that bears the Machine's name."


class CloudUnavailable(CloudError):
    """The cloud could not be reached, or answered something that is not its protocol."""

    reason = "CloudUnavailable"
    policy = RetryPolicy(2, 60)
    default_next_step = "Check that the cloud's address is right and reachable from the provisioner."
