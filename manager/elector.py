"""The algorithm of leader election: take the lease, keep it, give it back. No threads, no process, no wall clock.

In: a lock (``lease.LeaseLock``, or a played one), a monotonic clock, a random generator. Out: :meth:`acquire`
ends when the lease is held, :meth:`renew` when it is lost; ``renewed_at`` is when the last successful request
was sent, which is the moment from which everybody's patience counts. What decides is how long ago *this*
candidate saw the record change; times in the record are never looked at, so clocks may be hours apart.
Cancelling is always safe: whoever cancels calls :meth:`release`. Semantics: client-go's leaderelection.go, with
these differences. For safety: a leader that sees another's name in the record stops at once; it gives up in good
time even if the three periods are chosen so that client-go would be late; the holder that release looks at is
the one just read, not the one remembered, so that a rival's lease is never blanked. For speed: a candidate
watches for the release, and looks when the record that it saw ends, instead of at its next poll only.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from manager.errors import Conflict, Forbidden, ManagerError, MethodNotAllowed, NotFound
from manager.lease import JITTER, LeaderElection, Lock, Record, may_take
from manager.types import Obj

log = logging.getLogger("kaito.manager.leader")

_AFTER_END = 0.01  # seconds; timers may be early by a clock's tick


def boottime() -> float:
    """Monotonic seconds that also pass while the machine is suspended, as a lease does, where the system has
    them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def utc_now() -> datetime:
    """The wall clock, for the timestamps that people read."""
    return datetime.now(UTC)


class Elector:
    """See the module. One candidate, for one time of leadership.

    Args:
        clock: monotonic seconds.
        wall: the wall clock, for the record's timestamps alone.
        rng: stretches the pauses of candidates, so that they do not all ask at once.
        renewed: called after every success, with the new ``renewed_at``.
    """

    def __init__(
        self,
        lock: Lock,
        election: LeaderElection,
        *,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        renewed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._lock = lock
        self._election = election
        self._clock = clock
        self._wall = wall
        self._rng = rng or random.Random()  # noqa: S311 - spreads the rivals, guards nothing
        self._renewed = renewed
        self._lease: Obj | None = None  # as last read or written
        self._spec: Obj = {}  # of the lease, as last seen; compared raw
        self._seen_at = 0.0  # when it was first seen so
        self._wrote = False
        self._freed = asyncio.Event()
        self.renewed_at = 0.0

    def __repr__(self) -> str:
        return f"<Elector {self._election.identity} sees={self._holder or 'nobody'}>"

    @property
    def _holder(self) -> str:
        return str(self._spec.get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Return when the lease is held. Tries at once, then every retry period, and when it is seen to be
        free."""
        listening = asyncio.create_task(self._listen(), name="lease-freed")
        try:
            while not await self._attempt(None):
                pause = self._election.retry_period * (1 + self._rng.random() * JITTER)
                # Only after a crash does the record stand still so long that its end comes before the next poll.
                # Candidates saw the last renewal at different times, so they do not all wake at once.
                if (left := self._expires_in()) > 0:
                    pause = min(pause, left + _AFTER_END)
                if self._holder in ("", self._election.identity):
                    await asyncio.sleep(
                        pause
                    )  # it is free, and the attempt failed: an error, or others were quicker
                    continue
                self._freed.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._freed.wait()
                except TimeoutError:
                    continue
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _expires_in(self) -> float:
        return self._seen_at + Record.from_spec(self._spec).duration - self._clock()

    async def renew(self) -> None:
        """Keep the lease; return when it is lost."""
        election = self._election
        margin = (election.lease_duration - election.renew_deadline) / 2
        while True:
            await asyncio.sleep(election.retry_period)
            deadline = self._clock() + election.renew_deadline
            # With sane times the first is the earlier one; the second leaves the work the time to end in any case.
            deadline = min(deadline, self.renewed_at + election.lease_duration - margin)
            while not await self._attempt(deadline):
                left = deadline - self._clock()
                if self._holder != election.identity:
                    log.error("lease lost lease=%s holder=%s", election.lease_name, self._holder or "nobody")
                    return
                if left <= 0:
                    log.error("lease not renewed in time lease=%s", election.lease_name)
                    return
                await asyncio.sleep(min(election.retry_period, left))

    async def release(self) -> None:
        """Give the lease back if it is held; after a cancelled attempt it may be, without anybody knowing. A
        failure only costs the next leader its wait. Takes the renew deadline at most."""
        if not self._wrote:
            return
        try:
            async with asyncio.timeout(self._election.renew_deadline):
                while not await self._release():
                    await asyncio.sleep(min(0.1, self._election.retry_period))
        except (ManagerError, TimeoutError) as error:
            log.warning("lease not released lease=%s error=%s", self._election.lease_name, error or "timeout")

    # ------------------------------------------------------------------ one attempt

    async def _attempt(self, deadline: float | None) -> bool:
        try:
            async with asyncio.timeout(None if deadline is None else max(deadline - self._clock(), 0.0)):
                return await self._take()
        except (ManagerError, TimeoutError) as error:
            log.info("lease attempt failed lease=%s error=%s", self._election.lease_name, error or "timeout")
            return False

    async def _take(self) -> bool:
        election = self._election
        if self._lease is not None and self._holder == election.identity:
            if self._clock() < self._seen_at + election.lease_duration:
                try:  # the fast path: one update of the version that is known
                    await self._write(self._lease)
                    return True
                except ManagerError as error:
                    log.debug("lease fast path failed lease=%s error=%s", election.lease_name, error)
            self._lease = None  # whatever stands in the way, look first
        try:
            lease = await self._lock.get()
        except NotFound:
            await self._write(None)
            return True
        spec = lease.get("spec") or {}
        if spec != self._spec:
            self._spec, self._seen_at = spec, self._clock()
        if not may_take(Record.from_spec(spec), election.identity, self._seen_at, self._clock()):
            return False
        await self._write(lease)
        return True

    async def _write(self, lease: Obj | None) -> None:
        """Write a record that is mine; the times count from before the request: an answer that comes late must not
        make the lease look younger than others see it."""
        asked = self._clock()
        self._wrote = True
        now = self._wall()
        if lease is None:
            first = Record().held_by(self._election, now)
            stored = await self._lock.create(Record(first.holder, first.duration, now, now, 0))
        else:
            record = Record.from_spec(lease.get("spec") or {})
            stored = await self._lock.update(lease, record.held_by(self._election, now))
        self._lease = stored
        self._spec, self._seen_at = stored.get("spec") or {}, asked
        self.renewed_at = asked
        self._renewed(asked)

    async def _release(self) -> bool:
        """Whether it is settled: not mine, or given back. False asks for another look."""
        try:
            lease = await self._lock.get()
        except NotFound:
            return True
        record = Record.from_spec(lease.get("spec") or {})
        if record.holder != self._election.identity:
            return True
        try:
            await self._lock.update(lease, record.released(self._wall()))
        except Conflict:
            return False
        log.info("lease released lease=%s", self._election.lease_name)
        return True

    async def _listen(self) -> None:
        """Cut a candidate's pause short when the lease becomes free. Without it (no permission to watch) the next
        attempt comes in its own time, so nothing here is an error."""
        while True:
            try:
                await self._lock.freed()
                self._freed.set()
            except (Forbidden, MethodNotAllowed, NotFound) as error:
                log.info("lease not watched, polling only lease=%s error=%s", self._election.lease_name, error)
                return
            except ManagerError as error:
                log.debug("watch of the lease ended lease=%s error=%s", self._election.lease_name, error)
            await asyncio.sleep(self._election.retry_period)
