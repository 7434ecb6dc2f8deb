"""CustomResourceDefinitions come alive, and go together with their objects.

In: CRDs on their way into storage, and every committed change. Out: their status (accepted names, Established,
stored versions), the registry's types, and, for a CRD that is being deleted, the deletion of its objects and
then of the CRD itself. A real server does this in controllers a moment later; here a CRD is established by
the write that creates it, so that the next request can use it. The cleaning runs in one task of the server,
never inside a commit.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable

from kaito.local.apiserver.deletion import DeleteOptions, decide
from kaito.local.apiserver.errors import ApiServerError
from kaito.local.apiserver.registry import Registry, ResourceType
from kaito.local.apiserver.storage import Change, Missing, Stale, Storage
from manager.types import Obj

__all__ = ["CLEANUP", "CRDS", "CrdKeeper", "establish", "is_terminating"]

CRDS = "apiextensions.k8s.io/customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"

_log = logging.getLogger("kaito.local.apiserver.crds")


def is_terminating(crd: Obj) -> bool:
    """Whether it is being deleted, so that it takes no new objects."""
    return bool(crd["metadata"].get("deletionTimestamp"))


def establish(crd: Obj, old: Obj | None, registry: Registry, *, now: str) -> None:
    """Fill in the status of a CRD that is about to be stored."""
    spec = crd["spec"]
    names = spec.get("names") or {}
    group = str(spec.get("group") or "")
    problem = _name_conflict(crd, registry)
    status: Obj = crd.setdefault("status", {}) or {}
    crd["status"] = status
    conditions = [
        _condition(
            "NamesAccepted",
            not problem,
            "NoConflicts" if not problem else "NamesConflict",
            problem or "no conflicts found",
        ),
        _condition(
            "Established",
            not problem,
            "InitialNamesAccepted" if not problem else "NotAccepted",
            "the initial names have been accepted" if not problem else "not all names are accepted",
        ),
    ]
    if is_terminating(crd):
        conditions.append(
            _condition("Terminating", True, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        )
    before = {c["type"]: c for c in ((old or {}).get("status") or {}).get("conditions") or ()}
    for condition in conditions:
        previous = before.get(condition["type"])
        same = previous is not None and previous.get("status") == condition["status"]
        condition["lastTransitionTime"] = previous["lastTransitionTime"] if previous and same else now
    status["conditions"] = conditions
    status["acceptedNames"] = {} if problem else dict(names)
    stored = list(status.get("storedVersions") or ((old or {}).get("status") or {}).get("storedVersions") or ())
    for version in spec.get("versions") or ():
        if version.get("storage") and version.get("name") not in stored:
            stored.append(version["name"])
    status["storedVersions"] = stored
    if old is None and group:
        finalizers = crd["metadata"].setdefault("finalizers", [])
        if CLEANUP not in finalizers:
            finalizers.append(CLEANUP)


def _condition(kind: str, value: bool, reason: str, message: str) -> Obj:
    return {"type": kind, "status": str(value), "reason": reason, "message": message}


def _name_conflict(crd: Obj, registry: Registry) -> str:
    spec = crd["spec"]
    own = {id(found) for found in registry.crd_types(str(crd["metadata"].get("name")))}
    names = spec.get("names") or {}
    for found in registry.all():
        if found.group != spec.get("group") or id(found) in own:
            continue
        for field, taken in (("kind", found.kind), ("plural", found.plural)):
            if names.get(field) == taken:
                return f'"{taken}" is already in use'
    return ""


class CrdKeeper:
    """Keeps the registry in step with the stored CRDs, and empties those that are being deleted."""

    def __init__(self, storage: Storage, registry: Registry, clock: Callable[[], dt.datetime]) -> None:
        self._storage = storage
        self._registry = registry
        self._clock = clock
        self._work = asyncio.Event()
        self._terminating: set[str] = set()
        self.changed: Callable[[], None] = lambda: None  # told when what is served has changed
        for record in storage.all(CRDS):
            self._take(record.obj)
        storage.observe(self._observe)

    def terminating(self, resource: ResourceType) -> bool:
        """Whether the type's CRD is being deleted."""
        return resource.is_crd and f"{resource.plural}.{resource.group}" in self._terminating

    def crd(self, resource: ResourceType) -> Obj | None:
        """The CRD that defines the type."""
        record = self._storage.get(CRDS, "", f"{resource.plural}.{resource.group}")
        return record.obj if record else None

    def _observe(self, change: Change) -> None:
        name = change.record.name
        if change.resource == CRDS:
            if change.type == "DELETED":
                self._registry.remove_crd(name)
                self._terminating.discard(name)
            else:
                self._take(change.record.obj)
            self.changed()
        elif change.type == "DELETED" and self._terminating:
            self._work.set()  # perhaps the last object of a CRD that waits for it

    def _take(self, crd: Obj) -> None:
        accepted = any(
            c.get("type") == "Established" and c.get("status") == "True"
            for c in (crd.get("status") or {}).get("conditions") or ()
        )
        if accepted:
            self._registry.add_crd(crd)
        else:
            self._registry.remove_crd(crd)
        if is_terminating(crd):
            self._terminating.add(crd["metadata"]["name"])
            self._work.set()

    async def run(self) -> None:
        """Empty terminating CRDs until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for name in sorted(self._terminating):
                try:
                    await self._empty(name)
                except (Stale, Missing):
                    self._work.set()  # a writer came between; look again
                except ApiServerError as error:
                    _log.error("cannot empty CRD crd=%s error=%s", name, error)
            await asyncio.sleep(0)

    async def _empty(self, name: str) -> None:
        record = self._storage.get(CRDS, "", name)
        if record is None or CLEANUP not in (record.obj["metadata"].get("finalizers") or ()):
            return
        types = self._registry.crd_types(name)
        if types:
            resource = types[0]
            for index, one in enumerate(self._storage.all(resource.storage_key)):
                verdict = decide(resource, one.copy(), DeleteOptions(propagation="Background"), self._clock())
                if verdict.remove:
                    self._storage.delete(resource.storage_key, one.namespace, one.name, expected=one.revision)
                elif verdict.obj is not None:
                    self._storage.update(
                        resource.storage_key, one.namespace, one.name, verdict.obj, expected=one.revision
                    )
                if index % 100 == 99:
                    await asyncio.sleep(0)
            if self._storage.count(resource.storage_key):
                return  # finalizers; their removal wakes this task
        record = self._storage.get(CRDS, "", name)
        if record is None:
            return
        final = record.copy()
        finalizers = [f for f in final["metadata"].get("finalizers") or () if f != CLEANUP]
        if finalizers:
            final["metadata"]["finalizers"] = finalizers
            self._storage.update(CRDS, "", name, final, expected=record.revision)
        else:
            final["metadata"].pop("finalizers", None)
            self._storage.delete(CRDS, "", name, expected=record.revision, final=final)
