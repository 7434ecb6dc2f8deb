"""What keeps a source of ever different events from becoming a source of writes. Pure; time is an argument.

Repeats of one event are counted (``event_series``) and cost nothing. Here is what bounds the rest, per object:

- Similar events, which differ in their actions (their notes never matter), are told apart nine times; a tenth
  within ten minutes, and whatever comes after it, is combined into one. It stays so until ten minutes have
  passed without.
- A new Event costs a token of its source and object: 25 at first, then one each five minutes. Without a token the
  occurrence is dropped. client-go charges repeats too, so that its counts stop at 25; here they go on.

Semantics: client-go's legacy correlator (``tools/record``: EventAggregator, EventSourceObjectSpamFilter), which
compares messages where ours compares actions, since events.k8s.io never tells events apart by their notes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from manager.event_series import EventKey

SIMILAR = 10
SIMILAR_SECONDS = 600.0
BURST = 25
REFILL_SECONDS = 300.0
MOST_ENTRIES = 4096
COMBINED_ACTION = "Combined"
COMBINED_NOTE = "(combined from similar events): "


@dataclass(slots=True)
class _Group:
    actions: set[str] = field(default_factory=set)
    last: float = float("-inf")


class Aggregator:
    """Says under which key an occurrence is to be counted."""

    def __init__(self, similar: int = SIMILAR, seconds: float = SIMILAR_SECONDS, most: int = MOST_ENTRIES) -> None:
        self._similar, self._seconds, self._most = similar, seconds, most
        self._groups: dict[EventKey, _Group] = {}  # the longest unused first

    def key(self, key: EventKey, now: float) -> EventKey:
        """The key itself, or that of the combined event."""
        group_key = key._replace(action="")
        group = self._groups.pop(group_key, None)
        if group is None or now - group.last > self._seconds:
            group = _Group()
        group.last = now
        self._groups[group_key] = group
        if len(self._groups) > self._most:
            del self._groups[next(iter(self._groups))]
        if key.action in group.actions:
            return key
        if len(group.actions) + 1 < self._similar:
            group.actions.add(key.action)
            return key
        return key._replace(action=COMBINED_ACTION)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class SpamFilter:
    """A token bucket for each source and object."""

    def __init__(
        self, burst: int = BURST, refill_seconds: float = REFILL_SECONDS, most: int = MOST_ENTRIES
    ) -> None:
        self._burst, self._refill, self._most = burst, refill_seconds, most
        self._buckets: dict[Hashable, _Bucket] = {}  # the longest unused first

    def admits(self, source: Hashable, now: float) -> bool:
        """Whether the source may have a new Event now; takes the token."""
        bucket = self._buckets.pop(source, None)
        if bucket is None:
            bucket = _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) / self._refill)
        bucket.at = now
        self._buckets[source] = bucket
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
