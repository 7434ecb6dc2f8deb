"""The writes that several controllers share: pods, statuses, adoption.

In: a decision. Out: requests to the server, the events that `kubectl describe` shows, and the answers handed to
:class:`OwnWrites`. A refused creation is an event and comes back as the error; what is already gone counts as
deleted. No decision is taken here. An event's ``action`` names the other object where there is one: the recorder
folds events into one that differ in nothing but their note, and each of these is news.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from manager.client import Client
from manager.errors import ApiError, Conflict, NotFound
from manager.events import EventRecorder
from manager.ownwrites import OwnWrites
from manager.store import Store
from manager.types import Obj, Request, Resource

from . import pods as p
from .ownership import Claims, adoption_patch, release_patch
from .patching import merge_patch

log = logging.getLogger("kaito.local.workloads.acting")


def is_namespace_ending(error: ApiError) -> bool:
    """Whether a creation was refused because the namespace is being deleted: no use to try again."""
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


class Owners:
    """The objects that a controller reconciles: read with its own reports laid over, and reported on."""

    def __init__(self, client: Client, resource: Resource, store: Store) -> None:
        self.resource = resource
        self._client = client
        self._store = store
        self._own = OwnWrites(lambda: store.resource_version)

    def get(self, request: Request) -> Obj | None:
        """The newest that is known of the object, or None when it is gone."""
        cached = self._store.get(request.name, request.namespace)
        if cached is None:
            self._own.forget(str(request))
            return None
        seen = self._own.view(str(request), [cached])
        return next(obj for obj in seen if p.uid_of(obj) == p.uid_of(cached))

    async def report(self, obj: Obj, status: Obj, annotations: Mapping[str, str] | None = None) -> None:
        """Bring the server's status to ``status``; nothing is sent when it says that already.

        ``annotations`` go with it, as Kubernetes' controllers write theirs: written to the object itself, an
        annotation is a new generation of a Deployment.
        """
        patch: Obj = {}
        if changed := merge_patch(p.status_of(obj), status):
            patch["status"] = changed
        if annotations:
            patch["metadata"] = {"annotations": dict(annotations)}
        if patch:
            await self.patch(obj, patch, subresource="status")

    async def patch(self, obj: Obj, patch: Obj, *, subresource: str | None = None) -> None:
        """Merge ``patch`` into the server's object, which may have gone meanwhile."""
        name, namespace = p.name_of(obj), p.namespace_of(obj)
        try:
            new = await self._client.patch(
                self.resource, name, patch, namespace=namespace, subresource=subresource
            )
        except NotFound:
            return
        self._own.wrote(str(Request(namespace, name)), new)


class Children:
    """Creates, deletes and claims objects of one kind for their owners."""

    def __init__(self, client: Client, resource: Resource, own: OwnWrites, events: EventRecorder) -> None:
        self._client = client
        self._resource = resource
        self._own = own
        self._events = events

    async def create(self, owner: Obj, group: str, children: Sequence[Obj]) -> list[Obj]:
        """Create them in batches that double while all goes well.

        A full quota is thus noticed after one refusal, not after hundreds.

        Raises:
            ApiError: the first refusal; what was created before stays and is remembered.
        """
        made: list[Obj] = []
        size = 1
        while len(made) < len(children):
            batch = children[len(made) : len(made) + size]
            answers = await asyncio.gather(
                *(self._create_one(owner, group, child) for child in batch), return_exceptions=True
            )
            made += [answer for answer in answers if not isinstance(answer, BaseException)]
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            size *= 2
        return made

    async def _create_one(self, owner: Obj, group: str, child: Obj) -> Obj:
        try:
            made = await self._client.create(self._resource, child, namespace=p.namespace_of(owner))
        except ApiError as error:
            if not is_namespace_ending(error):
                self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self._own.wrote(group, made)
        name = p.name_of(made)
        self._events.event(
            owner, "Normal", "SuccessfulCreate", f"Created pod: {name}", action=f"Create-{name}"[:128]
        )
        return made

    async def delete(self, owner: Obj, group: str, children: Sequence[Obj]) -> None:
        """Ask for their deletion, each by its uid."""
        async with asyncio.TaskGroup() as tasks:
            for child in children:
                tasks.create_task(self._delete_one(owner, group, child))

    async def _delete_one(self, owner: Obj, group: str, child: Obj) -> None:
        try:
            await self._client.delete(self._resource, p.name_of(child), p.namespace_of(child), uid=p.uid_of(child))
        except (NotFound, Conflict):
            # Somebody was faster, or a namesake has taken its place: that child is gone either way.
            self._own.deleted(group, child)
            return
        except ApiError as error:
            self._events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._own.deleted(group, child)
        name = p.name_of(child)
        self._events.event(
            owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}", action=f"Delete-{name}"[:128]
        )

    async def claim(self, owner_resource: Resource, owner: Obj, group: str, claims: Claims) -> list[Obj]:
        """Carry out adoptions and releases; returns everything that now belongs to the owner."""
        kept = list(claims.kept)
        if claims.adopt and await self._is_alive(owner_resource, owner):
            for child in claims.adopt:
                adopted = await self._patch(group, child, adoption_patch(owner, child))
                kept += [adopted] if adopted is not None else []
        for child in claims.release:
            await self._patch(group, child, release_patch(owner, child))
        return kept

    async def _is_alive(self, resource: Resource, owner: Obj) -> bool:
        # The cache may not know yet that the owner is being deleted, and adoption would then kill orphans.
        try:
            live = await self._client.get(resource, p.name_of(owner), p.namespace_of(owner))
        except NotFound:
            return False
        return p.uid_of(live) == p.uid_of(owner) and not p.is_terminating(live)

    async def _patch(self, group: str, child: Obj, patch: Obj) -> Obj | None:
        try:
            changed = await self._client.patch(
                self._resource, p.name_of(child), patch, namespace=p.namespace_of(child)
            )
        except (NotFound, Conflict):
            # It changed meanwhile: its next event brings this owner back here.
            log.debug("claim skipped name=%s", p.name_of(child))
            return None
        self._own.wrote(group, changed)
        return changed
