"""Leader election by a Lease: at most one process at a time believes that it leads.

The elector runs in a thread and an event loop of its own, so that no stall of the controllers' loop can cost the
lease. Every decision uses the local monotonic clock: remote timestamps are written for people and never compared;
what counts is how long ago *this* process saw the record change. Three times guard the change of leaders
(client-go's, leaderelection.go): a leader that could not renew for ``renew_deadline`` gives up, which is before
``lease_duration``, when rivals take over. If the rest of the process has not reacted by then, it is ended hard:
two leaders are worse than none.

:func:`may_take` is the pure heart. On release the holder is read again first, so that a rival's lease is never
blanked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConfigError, ManagerError, NotFound
from manager.meta import now_micro
from manager.resources import LEASES
from manager.types import Obj

log = logging.getLogger("kaito.manager.leader")

_JITTER = 1.2
_FENCED_EXIT = 70


def _identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Which lease to hold, and the times in seconds.

    Raises:
        ConfigError: the times do not leave a leader the time to give up before a rival takes over.
    """

    lease_name: str
    namespace: str
    identity: str = field(default_factory=_identity)
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    release_on_cancel: bool = True

    def __post_init__(self) -> None:
        if not self.lease_name or not self.namespace:
            raise ConfigError("leader election needs a lease name and a namespace")
        if not self.lease_duration > self.renew_deadline > self.retry_period * _JITTER > 0:
            raise ConfigError(
                "leader election needs lease_duration > renew_deadline > retry_period x 1.2, "
                f"not {self.lease_duration}, {self.renew_deadline}, {self.retry_period}"
            )


def may_take(spec: Obj, me: str, seen_at: float, now: float) -> bool:
    """Whether the record allows ``me`` to hold the lease: it is mine, nobody's, or was not renewed for its time.

    ``seen_at`` and ``now`` are monotonic seconds of this process.
    """
    holder = spec.get("holderIdentity") or ""
    if holder in ("", me):
        return True
    return seen_at + float(spec.get("leaseDurationSeconds") or 0) <= now


def next_spec(spec: Obj, election: LeaderElection, now: datetime) -> Obj:
    """The record with which ``election.identity`` takes or keeps the lease."""
    mine = spec.get("holderIdentity") == election.identity
    transitions = int(spec.get("leaseTransitions") or 0)
    return {
        "holderIdentity": election.identity,
        "leaseDurationSeconds": max(1, round(election.lease_duration)),
        "acquireTime": spec["acquireTime"] if mine and spec.get("acquireTime") else now_micro(now),
        "renewTime": now_micro(now),
        "leaseTransitions": transitions if mine or not spec else transitions + 1,
    }


class LeaderElector:
    """An async context manager around the elector's thread.

    Args:
        config: the API server; the elector has a client of its own.
        election: what to hold.
        fence: ends the process when leadership is lost and nobody reacts; replaced in tests.
    """

    def __init__(
        self, config: RestConfig, election: LeaderElection, *, fence: Callable[[], None] | None = None
    ) -> None:
        self._config = config
        self._election = election
        self._fence = fence or _exit_hard
        self._acquired = asyncio.Event()
        self._lost = asyncio.Event()
        self._reacted = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._observed: Obj = {}
        self._lease: Obj | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._leads = False
        self._failure: Exception | None = None

    @property
    def identity(self) -> str:
        """How this process signs the lease."""
        return self._election.identity

    async def acquired(self) -> None:
        """Wait until this process leads.

        Raises:
            ManagerError: the elector itself failed, and will not acquire anything any more.
        """
        await self._acquired.wait()
        if self._failure is not None:
            raise ManagerError(f"leader election failed: {self._failure!r}") from self._failure

    async def lost(self) -> None:
        """Wait until this process has led and does so no more. Whoever waits ends the leader's work and then
        leaves the context; only that stops the hard fence, because work that will not end is a second leader."""
        await self._lost.wait()

    def problem(self) -> str | None:
        """For a health check: a leader whose lease has run out although nothing was reported hangs."""
        if self._leads and time.monotonic() > self._renewed_at + self._election.lease_duration:
            return "the lease was not renewed in its time"
        return None

    async def __aenter__(self) -> Self:
        self._main = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run_thread, name="leader-election", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reacted.set()
        await asyncio.to_thread(self._ready.wait)
        if self._thread_loop is not None and self._stop is not None and not self._thread_loop.is_closed():
            try:
                self._thread_loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                pass  # the thread's loop closed between the check and the call
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, self._election.renew_deadline)

    # ------------------------------------------------------------------ in the elector's thread

    def _run_thread(self) -> None:
        try:
            asyncio.run(self._elect())
        except Exception as error:
            log.exception("leader election failed")
            self._failure = error
            self._call_main(self._acquired.set)  # whoever waits for leadership must hear that it will not come
        finally:
            self._ready.set()
            if self._leads:
                self._tell_lost()

    async def _elect(self) -> None:
        self._stop = asyncio.Event()
        self._thread_loop = asyncio.get_running_loop()
        self._ready.set()
        agent = "kaito/leader-election"
        async with Client(self._config, user_agent=agent, field_manager="leader-election") as client:
            if not await self._acquire(client):
                return
            self._leads = True
            self._call_main(self._acquired.set)
            stopped = await self._renew(client)
            if stopped:
                self._leads = False
                if self._election.release_on_cancel:
                    await self._release(client)
            else:
                self._leads = False
                self._tell_lost()
                await self._guard()

    async def _acquire(self, client: Client) -> bool:
        """Try until it works (True) or the elector is stopped (False)."""
        assert self._stop is not None  # noqa: S101 - set by the only caller
        rng = random.Random()  # noqa: S311 - spreads the rivals, guards nothing
        while True:
            if await self._try(client, self._election.renew_deadline):
                return True
            if await _wait(self._stop, self._election.retry_period * (1 + rng.random() * _JITTER)):
                return False

    async def _renew(self, client: Client) -> bool:
        """Keep the lease; True when stopped, False when it could not be renewed in time."""
        assert self._stop is not None  # noqa: S101 - set by the only caller
        while True:
            if await _wait(self._stop, self._election.retry_period):
                return True
            deadline = self._renewed_at + self._election.renew_deadline
            while not await self._try(client, deadline - time.monotonic()):
                holder = self._observed.get("holderIdentity") or self.identity
                if holder != self.identity or time.monotonic() >= deadline:
                    log.error("lease not renewed lease=%s", self._election.lease_name)
                    return False
                if await _wait(self._stop, min(self._election.retry_period, deadline - time.monotonic())):
                    return True

    async def _try(self, client: Client, seconds: float) -> bool:
        """One attempt to take or keep the lease."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._take(client)
        except (ManagerError, TimeoutError) as error:
            log.info("lease attempt failed lease=%s error=%s", self._election.lease_name, error or "timeout")
            return False

    async def _take(self, client: Client) -> bool:
        election = self._election
        asked = time.monotonic()  # before the request: a slow answer must not make the lease look younger
        mine = self._observed.get("holderIdentity") == election.identity
        if mine and self._lease is not None and asked < self._renewed_at + election.lease_duration:
            try:  # the fast path: one update with the version that is known
                await self._write(client, self._lease, asked)
                return True
            except ManagerError:
                self._lease = None  # somebody changed it: look first
        try:
            lease = await client.get(LEASES, election.lease_name, election.namespace)
        except NotFound:
            spec = next_spec({}, election, datetime.now(UTC))
            metadata = {"name": election.lease_name, "namespace": election.namespace}
            created = await client.create(LEASES, {"metadata": metadata, "spec": spec})
            self._saw(created, asked)
            self._renewed_at = asked
            return True
        spec = lease.get("spec") or {}
        if spec != self._observed:
            self._observed, self._seen_at = spec, time.monotonic()
        if not may_take(spec, election.identity, self._seen_at, time.monotonic()):
            return False
        await self._write(client, lease, asked)
        return True

    async def _write(self, client: Client, lease: Obj, asked: float) -> None:
        spec = next_spec(lease.get("spec") or {}, self._election, datetime.now(UTC))
        self._saw(await client.replace(LEASES, {**lease, "spec": spec}), asked)
        self._renewed_at = asked

    def _saw(self, lease: Obj, at: float) -> None:
        self._lease, self._observed, self._seen_at = lease, lease.get("spec") or {}, at

    async def _release(self, client: Client) -> None:
        """Give the lease back, unless somebody else holds it by now; a failure only costs the rival its wait."""
        try:
            async with asyncio.timeout(self._election.renew_deadline):
                lease = await client.get(LEASES, self._election.lease_name, self._election.namespace)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") != self._election.identity:
                    return
                now = now_micro(datetime.now(UTC))
                free = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
                await client.replace(LEASES, {**lease, "spec": free})
                log.info("lease released lease=%s", self._election.lease_name)
        except (ManagerError, TimeoutError) as error:
            log.warning("lease not released lease=%s error=%s", self._election.lease_name, error or "timeout")

    async def _guard(self) -> None:
        """After a loss: if nobody has reacted when rivals may take over, end the process."""
        while time.monotonic() < self._renewed_at + self._election.lease_duration:
            if self._reacted.is_set():
                return
            await asyncio.sleep(0.05)  # a thread's event has no asyncio side to wait on
        if not self._reacted.is_set():
            self._fence()

    def _tell_lost(self) -> None:
        self._call_main(self._lost.set)

    def _call_main(self, call: Callable[[], None]) -> None:
        try:
            if self._main is not None:
                self._main.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the main loop has ended; nobody needs to know any more


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came within the time."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _exit_hard() -> None:
    log.critical("leadership lost and the process did not stop: exiting now")
    os._exit(_FENCED_EXIT)
