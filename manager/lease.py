"""The lease that a leader holds: what is asked for, what its record says, and the object on the API server.

:class:`LeaderElection` is the wish, :class:`Record` the content of a Lease's ``spec``, :func:`may_take` the one
question that decides about leadership, and :class:`LeaseLock` reads and writes the object, each request within a
time of its own. Remote timestamps are written for people and never compared with any clock. Semantics: client-go's
``leaderelection`` and ``resourcelock``.
"""

from __future__ import annotations

import asyncio
import math
import socket
import uuid
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, Self

from manager.client import Client
from manager.errors import ConfigError, ConnectionFailed
from manager.meta import now_micro, parse_time
from manager.resources import LEASES
from manager.types import Obj

JITTER = 1.2
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Which lease to hold, and the times in seconds.

    Attributes:
        namespace: of the lease; empty takes the one of the pod's service account.
        identity: how this process signs; unique by default.
        lease_duration: how long others wait after they saw the lease renewed for the last time.
        renew_deadline: how long a leader tries to renew before it gives up.
        retry_period: between two attempts; those who do not lead stretch it at random up to 2.2 times.
        release_on_cancel: give the lease back at a clean stop, so that the next leader need not wait.
        labels: set on the Lease object.
        health_tolerance: seconds after the lease's end until the health check of a leader fails.

    Raises:
        ConfigError: the times do not leave a leader the time to give up before a rival takes over, or name or
            namespace are missing.
    """

    lease_name: str
    namespace: str = ""
    identity: str = field(default_factory=_identity)
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    release_on_cancel: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    health_tolerance: float = 0.0
    namespace_file: Path = field(default=_NAMESPACE_FILE, repr=False)

    def __post_init__(self) -> None:
        if not self.lease_name:
            raise ConfigError("leader election needs the name of a lease")
        if not self.identity:
            raise ConfigError("leader election needs an identity to sign the lease with")
        if not self.namespace:
            object.__setattr__(self, "namespace", self._own_namespace())
        if min(self.lease_duration, self.renew_deadline, self.retry_period) <= 0 or self.health_tolerance < 0:
            raise ConfigError("the times of leader election must be greater than zero")
        if self.lease_duration <= self.renew_deadline:
            raise ConfigError(
                f"leader election needs lease_duration ({self.lease_duration:g} s) > renew_deadline "
                f"({self.renew_deadline:g} s), so that a leader gives up before a rival takes over"
            )
        if self.renew_deadline <= self.retry_period * JITTER:
            raise ConfigError(
                f"leader election needs renew_deadline ({self.renew_deadline:g} s) > retry_period x {JITTER:g} "
                f"({self.retry_period * JITTER:g} s), so that one failed attempt does not cost the lease"
            )

    def _own_namespace(self) -> str:
        try:
            namespace = self.namespace_file.read_text().strip()
        except OSError:
            namespace = ""
        if not namespace:
            raise ConfigError(
                f"leader election needs a namespace for the lease {self.lease_name}: this is no pod "
                f"({self.namespace_file} is not there), so name one"
            )
        return namespace

    @property
    def request_timeout(self) -> float:
        """Seconds that one request may take."""
        return max(self.renew_deadline / 2, 1.0)


@dataclass(frozen=True, slots=True)
class Record:
    """The ``spec`` of a Lease. ``rest`` keeps the fields that are not ours, so that writing loses nothing."""

    holder: str = ""
    duration: int = 0
    acquired: datetime | None = None
    renewed: datetime | None = None
    transitions: int = 0
    rest: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_spec(cls, spec: Obj) -> Self:
        """Read a spec; absent and null fields are empty, times that are none count as absent."""
        return cls(
            str(spec.get("holderIdentity") or ""),
            int(spec.get("leaseDurationSeconds") or 0),
            _time(spec.get("acquireTime")),
            _time(spec.get("renewTime")),
            int(spec.get("leaseTransitions") or 0),
            {key: value for key, value in spec.items() if key not in _FIELDS},
        )

    def to_spec(self) -> Obj:
        """The spec as a server takes it."""
        spec: Obj = {
            **self.rest,
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.duration,
            "leaseTransitions": self.transitions,
        }
        if self.acquired is not None:
            spec["acquireTime"] = now_micro(self.acquired)
        if self.renewed is not None:
            spec["renewTime"] = now_micro(self.renewed)
        return spec

    def held_by(self, election: LeaderElection, now: datetime) -> Record:
        """The record with which a candidate takes the lease, or keeps it: then acquisition and count stay."""
        mine = self.holder == election.identity
        return replace(
            self,
            holder=election.identity,
            # Rounded up: others must not think that it ends sooner than its holder does.
            duration=math.ceil(election.lease_duration),
            acquired=self.acquired if mine and self.acquired else now,
            renewed=now,
            transitions=self.transitions + (0 if mine else 1),
        )

    def released(self, now: datetime) -> Record:
        """Nobody's, for anybody to take at once."""
        return replace(self, holder="", duration=1, acquired=now, renewed=now)


_FIELDS = {"holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime", "leaseTransitions"}


def _time(value: object) -> datetime | None:
    try:
        return parse_time(str(value)) if value else None
    except ValueError:
        return None


def may_take(record: Record, me: str, seen_at: float, now: float) -> bool:
    """Whether the record allows ``me`` to hold the lease: it is mine, nobody's, or was not renewed for its time.

    ``seen_at`` and ``now`` are monotonic seconds of this process: when it saw the record change, and the present.
    """
    return record.holder in ("", me) or seen_at + record.duration <= now


class Lock(Protocol):
    """What the algorithm needs of a Lease object. Its errors are of ``manager``."""

    async def get(self) -> Obj:
        """The object. Raises ``NotFound``."""
        ...

    async def create(self, record: Record) -> Obj:
        """A new object; as the server stored it."""
        ...

    async def update(self, lease: Obj, record: Record) -> Obj:
        """Replace the record; raises ``Conflict`` unless the object is still the one given."""
        ...

    async def freed(self) -> None:
        """Wait until the lease is seen to be nobody's. Only a hint: who hears it still has to take it."""
        ...


class LeaseLock:
    """The Lease on an API server."""

    def __init__(self, client: Client, election: LeaderElection) -> None:
        self._client = client
        self._election = election

    async def get(self) -> Obj:
        """See :class:`Lock`."""
        async with _within(self._election.request_timeout):
            return await self._client.get(LEASES, self._election.lease_name, self._election.namespace)

    async def create(self, record: Record) -> Obj:
        """See :class:`Lock`."""
        metadata = {"name": self._election.lease_name, "namespace": self._election.namespace}
        lease = self._labelled({"metadata": metadata})
        async with _within(self._election.request_timeout):
            return await self._client.create(LEASES, {**lease, "spec": record.to_spec()})

    async def update(self, lease: Obj, record: Record) -> Obj:
        """See :class:`Lock`."""
        async with _within(self._election.request_timeout):
            return await self._client.replace(LEASES, {**self._labelled(lease), "spec": record.to_spec()})

    async def freed(self) -> None:
        """See :class:`Lock`."""
        name, namespace = self._election.lease_name, self._election.namespace
        watch = self._client.watch(LEASES, namespace, field_selector=f"metadata.name={name}", timeout_seconds=300)
        async with aclosing(watch) as events:
            async for event in events:
                if event.type == "BOOKMARK":
                    continue
                if event.type == "DELETED" or not Record.from_spec(event.object.get("spec") or {}).holder:
                    return
        raise ConnectionFailed("the watch of the lease ended")

    def _labelled(self, lease: Obj) -> Obj:
        if not self._election.labels:
            return lease
        metadata = lease["metadata"]
        return {
            **lease,
            "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **self._election.labels}},
        }


class _within:
    """``asyncio.timeout`` that speaks as this room does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        except TimeoutError as late:
            raise ConnectionFailed(f"no answer within {self._seconds:g} s") from late
