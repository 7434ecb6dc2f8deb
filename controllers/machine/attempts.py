"""How often the cloud refused each Machine, so that it is asked ever more rarely; and when it wants to be asked.

In: refusals as they happen. Out: the time of the next attempt. This is a rate limiter like a queue's and no
part of the world: it starts empty, and an operator that was restarted asks once at once. Creating and deleting
are counted apart, so that a Machine that waits for quota can still be deleted immediately, and an edit of the
Machine starts afresh.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controllers.machine.model import Attempts
from manager.types import Obj
from provisioner.errors import CloudError

_Key = tuple[str, bool, int]  # uid, deleting, generation


class AttemptBook:
    """Failed attempts by Machine. One event loop only; entries go when their Machine does."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[_Key, Attempts]] = {}

    def __repr__(self) -> str:
        return f"<AttemptBook machines={len(self._by_name)}>"

    def of(self, machine: Obj) -> Attempts:
        """What is known about this very Machine; a namesake made anew starts afresh."""
        return self._by_name.get(machine["metadata"]["name"], {}).get(_key(machine), Attempts())

    def failed(self, machine: Obj, error: CloudError, now: datetime) -> Attempts:
        """Count a refusal and set the time of the next attempt.

        A terminal one ends the attempts to create; a deletion is never given up, because something is left then.
        """
        before = self.of(machine)
        count, since = before.failed + 1, before.since or now
        if error.terminal and not machine["metadata"].get("deletionTimestamp"):
            entry = Attempts(count, given_up=True, since=since)
        else:
            entry = Attempts(count, now + timedelta(seconds=error.retry_delay(count)), since=since)
        self._by_name.setdefault(machine["metadata"]["name"], {})[_key(machine)] = entry
        return entry

    def forget(self, name: str) -> None:
        """The Machine works, or is gone."""
        self._by_name.pop(name, None)


class LookBook:
    """When each operation that is under way is worth the next look.

    Reconciles come for many reasons, our own writes among them, and each look is a request. Only a node that was
    not there at the last look is a reason to look sooner.
    """

    def __init__(self) -> None:
        self._next: dict[str, tuple[str, bool, datetime, bool]] = {}  # name -> uid, deleting, when, with a node

    def __repr__(self) -> str:
        return f"<LookBook machines={len(self._next)}>"

    def not_before(self, machine: Obj, now: datetime, *, joined: bool) -> datetime | None:
        """When to look next; None is now."""
        entry = self._next.get(machine["metadata"]["name"])
        if entry is None or entry[:2] != _key(machine)[:2] or entry[2] <= now or (joined and not entry[3]):
            return None
        return entry[2]

    def looked(self, machine: Obj, next_at: datetime, *, joined: bool) -> None:
        """An operation is under way; the cloud wants to be asked again then."""
        uid, deleting, _ = _key(machine)
        self._next[machine["metadata"]["name"]] = (uid, deleting, next_at, joined)

    def forget(self, name: str) -> None:
        """Nothing is under way any more."""
        self._next.pop(name, None)


def _key(machine: Obj) -> _Key:
    meta = machine["metadata"]
    return str(meta["uid"]), bool(meta.get("deletionTimestamp")), int(meta.get("generation") or 0)
