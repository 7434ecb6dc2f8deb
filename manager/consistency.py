"""Reading one's own writes: a read of the cache waits until the cache shows what this process wrote before.

In: every write of the client, told before it is sent and after it has ended (``manager.writes``), and the
informers of a cache. Out: for a read, what it has to wait for. A read waits for the writes that began before it,
whoever in this process made them: for their answers, then until the informer has come to the answered resource
version, or has lost the object that was deleted, and until the informer's handlers have dealt with that. Writes
never wait, and a read never waits longer than its deadline.

An informer whose selector the object has left satisfies a write once it has come to its version by any event or
bookmark: the order of a watch is that of versions. A failed write is forgotten, for nothing is known to wait for.
The state is one entry per object written and not yet seen; it is bounded. Semantics: controller-runtime's
read-your-writes consistency (v0.25), on by default here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from manager.errors import StaleCache
from manager.informer import Informer
from manager.meta import is_deleting, name, resource_version, uid
from manager.types import Obj, Resource
from manager.versions import at_least, number
from manager.writes import Write

_MOST = 2_000  # entries per kind; the rest is known as one version that all reads wait for
_SWEEP = 64  # entries after which those that the cache shows already are looked for

_Kind = tuple[str, str]  # group and plural: all versions of a kind are the same objects


@dataclass(slots=True)
class _Demand:
    """What a cache must show of one object."""

    namespace: str
    version: str = ""
    gone: set[str] = field(default_factory=set)  # uids

    def raised(self, version: str, gone: str) -> _Demand:
        """This one and a later write's."""
        newest = self.version if not version or _is_behind(version, self.version) else version
        return _Demand(self.namespace, newest, self.gone | ({gone} if gone else set()))


class _Flight:
    """A write whose answer has not come."""

    __slots__ = ("_ended", "key", "kind", "namespace", "result", "uid", "verb")

    def __init__(self, kind: _Kind, write: Write, known: str) -> None:
        self.kind = kind
        self.verb = write.verb
        self.namespace = write.namespace
        self.key = _key(write.namespace, write.name) if write.name else ""
        self.uid = known
        self.result: tuple[str, _Demand] | None = None
        self._ended: asyncio.Future[None] | None = None

    async def ended(self) -> None:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ended)

    def end(self) -> None:
        if self._ended is not None:
            self._ended.set_result(None)


class _Record:
    """What is known of one kind."""

    def __init__(self) -> None:
        self.informers: list[Informer] = []
        self.flights: dict[_Flight, None] = {}
        self.demands: dict[str, _Demand] = {}
        self.floor = ""  # a version that stands for demands which were too many to keep
        self.sweep_at = _SWEEP


@dataclass(slots=True)
class Pending:
    """What one read waits for."""

    flights: list[_Flight]
    demands: dict[str, _Demand]


class Consistency:
    """See the module. The client's write observer; one for each cache."""

    def __init__(self) -> None:
        self._records: dict[_Kind, _Record] = {}

    def __repr__(self) -> str:
        flights = sum(len(record.flights) for record in self._records.values())
        return f"<Consistency in flight={flights} awaited={sum(len(r.demands) for r in self._records.values())}>"

    # ------------------------------------------------------------------ the cache's

    def attach(self, informer: Informer) -> None:
        """An informer whose readers may have to wait."""
        self._record(informer.resource).informers.append(informer)

    def detach(self, informer: Informer) -> None:
        """It is read no more."""
        record = self._record(informer.resource)
        if informer in record.informers:
            record.informers.remove(informer)

    def pending(self, informer: Informer, namespace: str | None, name: str | None) -> Pending | None:
        """What a read that begins now has to wait for: of one object, or (``name`` None) of a list."""
        record = self._records.get(_kind(informer.resource))
        if record is None or not (record.flights or record.demands or record.floor):
            return None
        if name is not None:
            key = _key(namespace or "", name)
            flights = [flight for flight in record.flights if flight.key == key]
            demands = {key: record.demands[key]} if key in record.demands else {}
        else:
            flights = [f for f in record.flights if namespace is None or f.namespace == namespace]
            demands = {
                key: demand
                for key, demand in record.demands.items()
                if namespace is None or demand.namespace == namespace
            }
        if record.floor:
            demands[""] = _Demand(namespace or "", record.floor)
        return Pending(flights, demands) if flights or demands else None

    async def catch_up(self, informer: Informer, pending: Pending, timeout: float) -> None:
        """Wait for it.

        Raises:
            StaleCache: not within ``timeout`` seconds.
            InformerStopped: it will never come.
        """
        behind: list[str] = []
        try:
            async with asyncio.timeout(timeout):
                demands = dict(pending.demands)
                for flight in pending.flights:
                    behind = [f"the answer to {flight.verb} {flight.key or 'a new object'}"]
                    await flight.ended()
                    if flight.result is not None:
                        key, demand = flight.result
                        demands[key] = demand
                while behind := [key for key, demand in demands.items() if not _shows(informer, key, demand)]:
                    await informer.progress()
                behind = ["its handlers"]
                await informer.handlers_caught_up()
        except TimeoutError:
            self._forget_incomparable(informer.resource, behind)
            where = (
                f"the cache of {informer.resource.plural}, at {informer.store.resource_version or 'nothing yet'},"
            )
            raise StaleCache(
                f"{where} has not caught up with own writes within {timeout:g} s: {', '.join(behind[:3]) or 'all'}"
            ) from None
        self._forget_seen(self._record(informer.resource))

    # ------------------------------------------------------------------ the client's

    def began(self, write: Write) -> object:
        """See ``WriteObserver``."""
        if write.dry_run:
            return None
        record = self._record(write.resource)
        known = ""
        if write.verb == "delete" and write.name:
            known = self._uid(record, _key(write.namespace, write.name))
        flight = _Flight(_kind(write.resource), write, known)
        record.flights[flight] = None
        return flight

    def ended(self, token: object, answer: Obj | None) -> None:
        """See ``WriteObserver``."""
        if not isinstance(token, _Flight):
            return
        record = self._records[token.kind]
        record.flights.pop(token, None)
        if answer is not None:
            self._demand(record, token, answer)
        token.end()

    # ------------------------------------------------------------------ within

    def _demand(self, record: _Record, flight: _Flight, answer: Obj) -> None:
        version, gone = _outcome(flight, answer)
        key = flight.key or _key(flight.namespace, name(answer))
        if not (version or gone):
            return  # a binding, an eviction, a token: the answer is not the object
        before = record.demands.pop(key, None) or _Demand(flight.namespace)
        record.demands[key] = before.raised(version, gone)
        flight.result = key, record.demands[key]
        if len(record.demands) >= record.sweep_at:
            self._forget_seen(record)
            if len(record.demands) >= _MOST:
                self._fold(record, _MOST // 2)
            record.sweep_at = min(max(_SWEEP, 2 * len(record.demands)), _MOST)

    def _fold(self, record: _Record, keep: int) -> None:
        """Make the oldest demands one version for all reads."""
        while len(record.demands) > keep:
            oldest = record.demands.pop(next(iter(record.demands)))
            if number(oldest.version) is not None and _is_behind(record.floor, oldest.version):
                record.floor = oldest.version

    def _forget_seen(self, record: _Record) -> None:
        """Drop what all informers of the kind, and their handlers, are past."""
        if not record.informers or any(not informer.is_settled for informer in record.informers):
            return
        for key, demand in [*record.demands.items()]:
            if all(_shows(informer, key, demand) for informer in record.informers):
                del record.demands[key]
        if record.floor and all(_is_past(informer, record.floor) for informer in record.informers):
            record.floor = ""

    def _forget_incomparable(self, resource: Resource, keys: list[str]) -> None:
        """A version that is no number may have been passed unseen: it is waited for once, not for ever."""
        demands = self._record(resource).demands
        for key in keys:
            if key in demands and demands[key].version and number(demands[key].version) is None:
                del demands[key]

    def _uid(self, record: _Record, key: str) -> str:
        for informer in record.informers:
            if (cached := informer.store.peek(key)) is not None:
                return uid(cached)
        return ""

    def _record(self, resource: Resource) -> _Record:
        return self._records.setdefault(_kind(resource), _Record())


def _kind(resource: Resource) -> _Kind:
    return resource.group, resource.plural


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _is_behind(version: str, other: str) -> bool:
    """Whether the first is certainly the older one."""
    one, two = number(version), number(other)
    return not version or (one is not None and two is not None and one < two)


def _shows(informer: Informer, key: str, demand: _Demand) -> bool:
    reached = informer.reached(demand.namespace)
    if reached is None or not key:
        return reached is None or _is_past(informer, demand.version)
    cached = informer.store.peek(key)
    if demand.version and not at_least(reached, demand.version):
        return cached is not None and resource_version(cached) == demand.version
    return cached is None or uid(cached) not in demand.gone


def _is_past(informer: Informer, version: str) -> bool:
    return at_least(informer.store.resource_version, version)


def _outcome(flight: _Flight, answer: Obj) -> tuple[str, str]:
    """The version to wait for, and the uid that must go; either may be empty."""
    if answer.get("kind") == "Status":
        if flight.verb != "delete":
            return "", ""
        details = answer.get("details") or {}
        return "", str(details.get("uid") or flight.uid)
    version = resource_version(answer)
    if not version:
        return "", ""
    return ("", uid(answer)) if _is_gone(flight.verb, answer) else (version, "")


def _is_gone(verb: str, answer: Obj) -> bool:
    """Whether the object that was answered does not exist any more.

    A deletion that something holds up (finalizers, a grace period) is a change like any other. An update or patch
    that takes the last finalizer from an object that is being deleted ends it.
    """
    metadata = answer.get("metadata") or {}
    if not is_deleting(answer):
        return verb == "delete"
    held = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds")
    if answer.get("kind") == "Namespace":
        held = held or (answer.get("spec") or {}).get("finalizers")
    return not held
