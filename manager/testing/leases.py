"""A Lease that exists only here, for elections in virtual time: with distance, losses, and partitions on request.

In: the same calls that ``lease.LeaseLock`` sends to an API server. Out: the same answers and errors, by the same
rules (a version per write, ``Conflict``, ``AlreadyExists``), after the latency of both ways. A partitioned
candidate's requests are lost on their way there, and so are answers that are on their way back, although what was
asked has been done. Every request is on record.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque

from manager.errors import AlreadyExists, Conflict, ConnectionFailed, ManagerError, NotFound
from manager.lease import LeaderElection, Record
from manager.types import Obj


class LeaseBoard:
    """The server's side.

    Args:
        latency: seconds that one way takes at most; drawn evenly from zero.
    """

    def __init__(self, rng: random.Random | None = None, *, latency: float = 0.0) -> None:
        self._rng = rng or random.Random(0)  # noqa: S311 - a played network
        self._latency = latency
        self._version = 0
        self._changed = asyncio.Event()
        self.lease: Obj | None = None
        self.requests: list[tuple[str, str]] = []
        """Identity and verb of every request that was sent."""
        self.partitioned: set[str] = set()
        """Identities that reach nobody."""
        self.failures: defaultdict[str, deque[ManagerError]] = defaultdict(deque)
        """What the next requests with this verb fail with."""

    @property
    def record(self) -> Record:
        """What the lease says; empty if there is none."""
        return Record.from_spec((self.lease or {}).get("spec") or {})

    def lock(self, election: LeaderElection) -> BoardLock:
        """One candidate's access."""
        return BoardLock(self, election)

    def put(self, record: Record) -> None:
        """Write, as somebody else would."""
        self._version += 1
        spec = record.to_spec()
        self.lease = {"metadata": {"name": "l", "resourceVersion": str(self._version)}, "spec": spec}
        self._tell()

    def remove(self) -> None:
        """Delete, as somebody else would."""
        self.lease = None
        self._tell()

    async def freed(self, who: str) -> None:
        """Wait until the lease is nobody's."""
        while who in self.partitioned or (self.lease is not None and self.record.holder):
            await self._changed.wait()
        await self.travel(who, 1.0)

    async def travel(self, who: str, patience: float) -> None:
        """One way of a request."""
        await asyncio.sleep(self._rng.random() * self._latency)
        if who in self.partitioned:
            await asyncio.sleep(patience)
            raise ConnectionFailed(f"{who} reaches nobody")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class BoardLock:
    """See ``lease.Lock``."""

    def __init__(self, board: LeaseBoard, election: LeaderElection) -> None:
        self._board, self._who, self._patience = board, election.identity, election.request_timeout

    async def get(self) -> Obj:
        """See ``lease.Lock``."""
        await self._arrive("get")
        lease = self._board.lease
        if lease is None:
            raise NotFound(404, "NotFound", "no lease")
        await self._board.travel(self._who, self._patience)
        return lease

    async def create(self, record: Record) -> Obj:
        """See ``lease.Lock``."""
        await self._arrive("create")
        if self._board.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "there is a lease")
        return await self._put(record)

    async def update(self, lease: Obj, record: Record) -> Obj:
        """See ``lease.Lock``."""
        await self._arrive("update")
        current = self._board.lease
        if current is None:
            raise NotFound(404, "NotFound", "no lease")
        if current["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "the lease changed")
        return await self._put(record)

    async def freed(self) -> None:
        """See ``lease.Lock``."""
        await self._board.freed(self._who)

    async def _put(self, record: Record) -> Obj:
        self._board.put(record)
        stored = self._board.lease or {}
        await self._board.travel(self._who, self._patience)
        return stored

    async def _arrive(self, verb: str) -> None:
        self._board.requests.append((self._who, verb))
        await self._board.travel(self._who, self._patience)
        if self._board.failures[verb]:
            raise self._board.failures[verb].popleft()
