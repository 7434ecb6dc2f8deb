"""Objects and their history in SQLite, mirrored in memory.

In: writes, one at a time, from the event loop. Out: records (decoded object and its bytes), snapshots at a
revision, and every committed change in order to subscribers. This module alone owns the database file; one
rising integer numbers every change of every resource, and it never repeats or goes back, restarts included.

A call returns only after its transaction is in the write-ahead log. ``synchronous=NORMAL`` is enough for the
promise that killing the process loses nothing acknowledged: the log has left the process by then, and only
the loss of the whole machine (power, kernel) can drop the last moments, without damage. A commit costs about
50 µs, so writes run on the loop; the copying of the log into the database file, which waits for the disk,
runs in a thread (``checkpoint``). Objects handed out are shared and must not be changed.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from kaito.local.apiserver.errors import ApiServerError
from manager.types import Obj

__all__ = [
    "Change",
    "Compacted",
    "Exists",
    "Missing",
    "Record",
    "Stale",
    "Storage",
    "StorageDamaged",
    "WriteFailed",
]

_log = logging.getLogger("kaito.local.apiserver.storage")
_FORMAT = "1"
_KEEP_CHANGES = 10_000  # about an hour of a busy laptop cluster, and well under 100 MB
_COMPACT_EVERY = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name));
CREATE TABLE IF NOT EXISTS changes (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, type TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
    previous_revision INTEGER NOT NULL, previous BLOB);
CREATE INDEX IF NOT EXISTS changes_by_resource ON changes (resource, revision);
"""


class StorageDamaged(ApiServerError):
    """The database file cannot be used; the message says what to do."""


class WriteFailed(ApiServerError):
    """A write did not reach the disk and did not happen; the message says why."""


class Exists(Exception):
    """Create of a key that is taken."""


class Missing(Exception):
    """Update or delete of a key that is not there."""


class Stale(Exception):
    """The object has another revision than the writer had read."""


class Compacted(Exception):
    """The history asked for has been dropped."""


@dataclass(frozen=True, slots=True)
class Record:
    """One object at one revision; ``obj`` is shared and read-only, ``raw`` is its JSON."""

    namespace: str
    name: str
    revision: int
    obj: Obj
    raw: bytes

    def copy(self) -> Obj:
        """A fresh object that the caller may change."""
        fresh: Obj = orjson.loads(self.raw)
        return fresh


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write. ``record`` of a deletion is the last state, with the deletion's revision."""

    type: str  # ADDED, MODIFIED or DELETED
    resource: str
    record: Record
    previous: Record | None


Subscriber = Callable[[Change], None]


class Storage:
    """The objects of all resources. Not thread-safe: everything but ``checkpoint`` is for the loop's thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the database.

        Raises:
            StorageDamaged: the file is no database, is damaged, or was written in another format.
        """
        self.path = path
        self.revision = 0
        self.compacted = 0
        self._objects: dict[str, dict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
        self._subscribers: dict[str, list[Subscriber]] = defaultdict(list)
        self._observers: list[Subscriber] = []
        self._since_compaction = 0
        try:
            self._db = self._open()
            self._load()
        except (sqlite3.DatabaseError, orjson.JSONDecodeError, ValueError) as error:
            raise StorageDamaged(
                f"the database {path} cannot be used ({error}); move it away with "
                f"'mv {path} {path}.broken' and start again with an empty cluster"
            ) from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=1.0)
        try:
            self.path.chmod(0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA wal_autocheckpoint=0")
            _check_file(db)
        except BaseException:
            db.close()
            raise
        return db

    def _load(self) -> None:
        row = self._db.execute("SELECT value FROM meta WHERE key='compacted'").fetchone()
        self.compacted = int(row[0])
        newest = self._db.execute("SELECT max(revision) FROM changes").fetchone()[0]
        self.revision = max(self.compacted, newest or 0)
        for resource, namespace, name, revision, body in self._db.execute(
            "SELECT resource, namespace, name, revision, body FROM objects"
        ):
            record = Record(namespace, name, revision, orjson.loads(body), body)
            self._objects[resource][namespace][name] = record

    def close(self) -> None:
        """Write the log back and close; the storage cannot be used afterwards."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the log stays beside the file and is read at the next start
        self._db.close()

    def checkpoint(self) -> None:
        """Copy the log into the file, on a connection of its own: safe in any thread, never blocks writers."""
        try:
            db = sqlite3.connect(self.path, timeout=0.1)
        except sqlite3.Error:
            return  # another attempt follows; the log only grows meanwhile
        try:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            return
        finally:
            db.close()

    # ------------------------------------------------------------------ reads

    def get(self, resource: str, namespace: str, name: str) -> Record | None:
        """The current state of one object; the namespace of a cluster-scoped one is empty."""
        spaces = self._objects.get(resource)
        objects = spaces.get(namespace) if spaces else None
        return objects.get(name) if objects else None

    def all(self, resource: str, namespace: str | None = None) -> list[Record]:
        """The current objects, ordered by namespace and name; of all namespaces when None."""
        spaces = self._objects.get(resource, {})
        if namespace is not None:
            objects = spaces.get(namespace, {})
            return [objects[name] for name in sorted(objects)]
        return [spaces[space][name] for space in sorted(spaces) for name in sorted(spaces[space])]

    def count(self, resource: str) -> int:
        """How many objects there are."""
        return sum(len(objects) for objects in self._objects.get(resource, {}).values())

    def counts(self) -> dict[str, int]:
        """Object count per resource, for metrics."""
        return {resource: self.count(resource) for resource in self._objects}

    def all_at(self, resource: str, namespace: str | None, revision: int) -> list[Record]:
        """The objects as they were at ``revision``: today's with the later changes taken back.

        Raises:
            Compacted: the history does not reach back that far.
        """
        if revision == self.revision:
            return self.all(resource, namespace)
        state = {(r.namespace, r.name): r for r in self.all(resource, namespace)}
        for change in reversed(self.changes(resource, revision)):
            key = (change.record.namespace, change.record.name)
            if namespace is not None and key[0] != namespace:
                continue
            if change.previous is None:
                state.pop(key, None)
            else:
                state[key] = change.previous
        return [state[key] for key in sorted(state)]

    def changes(self, resource: str, after: int) -> list[Change]:
        """Every change of the resource with a revision above ``after``, oldest first.

        Raises:
            Compacted: some of them are gone.
        """
        if after < self.compacted:
            raise Compacted(f"{after} ({self.compacted})")
        return list(self._changes(resource, after))

    def _changes(self, resource: str, after: int) -> Iterator[Change]:
        for revision, kind, namespace, name, body, previous_revision, previous in self._db.execute(
            "SELECT revision, type, namespace, name, body, previous_revision, previous FROM changes"
            " WHERE resource=? AND revision>? ORDER BY revision",
            (resource, after),
        ):
            before = (
                Record(namespace, name, previous_revision, orjson.loads(previous), previous)
                if previous is not None
                else None
            )
            yield Change(kind, resource, Record(namespace, name, revision, orjson.loads(body), body), before)

    # ------------------------------------------------------------------ writes

    def create(self, resource: str, namespace: str, name: str, obj: Obj) -> Record:
        """Store a new object; its ``metadata.resourceVersion`` is set here.

        Raises:
            Exists: the key is taken.
        """
        if self.get(resource, namespace, name) is not None:
            raise Exists(name)
        return self._commit("ADDED", resource, namespace, name, obj, None)

    def update(self, resource: str, namespace: str, name: str, obj: Obj, *, expected: int) -> Record:
        """Replace an object that still has revision ``expected``.

        Raises:
            Missing: it is gone.
            Stale: it has changed.
        """
        return self._commit(
            "MODIFIED", resource, namespace, name, obj, self._current(resource, namespace, name, expected)
        )

    def delete(
        self, resource: str, namespace: str, name: str, *, expected: int, final: Obj | None = None
    ) -> Record:
        """Remove an object that still has revision ``expected``; watchers see ``final`` (or its last state).

        Raises:
            Missing: it is gone.
            Stale: it has changed.
        """
        current = self._current(resource, namespace, name, expected)
        return self._commit("DELETED", resource, namespace, name, final or current.copy(), current)

    def _current(self, resource: str, namespace: str, name: str, expected: int) -> Record:
        current = self.get(resource, namespace, name)
        if current is None:
            raise Missing(name)
        if current.revision != expected:
            raise Stale(name)
        return current

    def _commit(
        self, kind: str, resource: str, namespace: str, name: str, obj: Obj, previous: Record | None
    ) -> Record:
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        raw = orjson.dumps(obj)
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            if kind == "DELETED":
                db.execute(
                    "DELETE FROM objects WHERE resource=? AND namespace=? AND name=?",
                    (resource, namespace, name),
                )
            else:
                db.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)",
                    (resource, namespace, name, revision, raw),
                )
            db.execute(
                "INSERT INTO changes VALUES (?,?,?,?,?,?,?,?)",
                (
                    revision,
                    resource,
                    kind,
                    namespace,
                    name,
                    raw,
                    previous.revision if previous else 0,
                    previous.raw if previous else None,
                ),
            )
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise WriteFailed(f"cannot write {self.path}: {error}; free disk space, then try again") from error
        self.revision = revision
        record = Record(namespace, name, revision, obj, raw)
        if kind == "DELETED":
            del self._objects[resource][namespace][name]
        else:
            self._objects[resource][namespace][name] = record
        change = Change(kind, resource, record, previous)
        for subscriber in [*self._subscribers.get(resource, ()), *self._observers]:
            subscriber(change)
        self._since_compaction += 1
        if self._since_compaction >= _COMPACT_EVERY:
            self.compact(self.revision - _KEEP_CHANGES)
        return record

    def compact(self, revision: int) -> None:
        """Drop the history up to and including ``revision``; reads of it raise Compacted afterwards."""
        self._since_compaction = 0
        revision = min(revision, self.revision)
        if revision <= self.compacted:
            return
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM changes WHERE revision<=?", (revision,))
            db.execute("UPDATE meta SET value=? WHERE key='compacted'", (str(revision),))
            db.execute("COMMIT")
        except sqlite3.Error as error:  # the history stays longer; nothing is lost
            if db.in_transaction:
                db.execute("ROLLBACK")
            _log.warning("cannot compact error=%s", error)
            return
        self.compacted = revision

    # ------------------------------------------------------------------ subscribers

    def subscribe(self, resource: str, subscriber: Subscriber) -> Callable[[], None]:
        """Tell ``subscriber`` of every change from now on, inside the commit; returns how to stop it.

        A subscriber must not write and must not raise.
        """
        self._subscribers[resource].append(subscriber)
        return lambda: self._subscribers[resource].remove(subscriber)

    def observe(self, subscriber: Subscriber) -> None:
        """Like :meth:`subscribe`, for all resources and for good."""
        self._observers.append(subscriber)


def _check_file(db: sqlite3.Connection) -> None:
    problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
    db.executescript(_SCHEMA)
    row = db.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    if row is None:
        db.execute("INSERT INTO meta VALUES ('format', ?), ('compacted', '0')", (_FORMAT,))
    elif row[0] != _FORMAT:
        raise ValueError(f"its format is {row[0]}, this program reads {_FORMAT}")
