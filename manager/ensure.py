"""Make an object be there, and be as a function wants it; write nothing when it is.

In: a key and a function that changes a private copy of the object in place. Out: the object as the server has
it, and what was done. The read goes through the client given: a cached one saves the request, and its staleness
costs at most an ``AlreadyExists`` or a ``Conflict``, which the next reconcile settles. What the function leaves
alone, the server's defaults and other writers' fields among it, stays; what is written is the difference, as a
merge patch, so an unknown field is never lost. Semantics: controller-runtime's ``controllerutil.CreateOrUpdate``
and ``CreateOrPatch``. For objects that are ours alone, ``client.apply`` is simpler.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from manager.errors import ManagerError, NotFound
from manager.patches import merge_patch, private_copy
from manager.types import Obj, Resource

Mutate = Callable[[Obj], None]


class Operation(StrEnum):
    """What was done."""

    UNCHANGED = "unchanged"
    CREATED = "created"
    UPDATED = "updated"
    UPDATED_STATUS = "updatedStatus"
    """Both the object and its status were written."""
    UPDATED_STATUS_ONLY = "updatedStatusOnly"


class Ensured(NamedTuple):
    """The object as the server answered last, and what was done to it."""

    obj: Obj
    operation: Operation


class Renamed(ManagerError):
    """The function changed the object's name or namespace; a bug of the function."""


class ReadWriter(Protocol):
    """What is needed of a client."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """As ``Client.get``."""
        ...

    async def create(self, resource: Resource, obj: Obj, *, namespace: str | None = None) -> Obj:
        """As ``Client.create``."""
        ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Obj,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Obj:
        """As ``Client.patch``, with a merge patch."""
        ...


async def create_or_update(
    client: ReadWriter, resource: Resource, name: str, mutate: Mutate, *, namespace: str | None = None
) -> Ensured:
    """Create the object or bring it in line, unless somebody has changed it since it was read.

    ``.status`` is left alone, except by kinds that have no status subresource.

    Args:
        client: reads and writes.
        resource: of the object.
        name: of the object.
        mutate: gets a copy of the object to change in place: the server's, or one that has only its name yet.
        namespace: of the object; None for cluster-scoped ones.

    Raises:
        Conflict: it was changed meanwhile (or the read came from a stale cache); look again.
        AlreadyExists: it was created meanwhile; look again.
        Renamed: ``mutate`` changed the object's name or namespace.
        ManagerError: the read failed (nothing was written then), or a write.
    """
    present = await _read(client, resource, name, namespace)
    wanted = _mutated(resource, name, namespace, present, mutate)
    if present is None:
        return Ensured(await client.create(resource, wanted, namespace=namespace), Operation.CREATED)
    patch = merge_patch(present, wanted)
    if not patch:
        return Ensured(present, Operation.UNCHANGED)
    patch.setdefault("metadata", {})["resourceVersion"] = present["metadata"].get("resourceVersion")
    return Ensured(await client.patch(resource, name, patch, namespace=namespace), Operation.UPDATED)


async def create_or_patch(
    client: ReadWriter, resource: Resource, name: str, mutate: Mutate, *, namespace: str | None = None
) -> Ensured:
    """Create the object or bring it and its status in line, whoever else writes to it.

    Only what ``mutate`` changed is sent, without a guard: two writers of different fields do not disturb each
    other. Unlike controller-runtime's, it also writes the status of an object that it has created.

    Args:
        client: reads and writes.
        resource: of the object; has a status subresource if ``mutate`` sets ``status``.
        name: of the object.
        mutate: as of :func:`create_or_update`.
        namespace: of the object; None for cluster-scoped ones.

    Raises:
        AlreadyExists: it was created meanwhile; look again.
        Renamed: ``mutate`` changed the object's name or namespace.
        ManagerError: the read failed (nothing was written then), or a write.
    """
    present = await _read(client, resource, name, namespace)
    wanted = _mutated(resource, name, namespace, present, mutate)
    if present is None:
        created = await client.create(resource, wanted, namespace=namespace)
        status = merge_patch(_status(created), _status(wanted))
        if status:
            created = await client.patch(resource, name, status, namespace=namespace, subresource="status")
        return Ensured(created, Operation.CREATED)
    patch = merge_patch(_without_status(present), _without_status(wanted))
    status = merge_patch(_status(present), _status(wanted))
    written = present
    if patch:
        written = await client.patch(resource, name, patch, namespace=namespace)
    if status:
        written = await client.patch(resource, name, status, namespace=namespace, subresource="status")
        return Ensured(written, Operation.UPDATED_STATUS if patch else Operation.UPDATED_STATUS_ONLY)
    return Ensured(written, Operation.UPDATED if patch else Operation.UNCHANGED)


async def _read(client: ReadWriter, resource: Resource, name: str, namespace: str | None) -> Obj | None:
    try:
        return await client.get(resource, name, namespace)
    except NotFound:
        return None


def _mutated(resource: Resource, name: str, namespace: str | None, present: Obj | None, mutate: Mutate) -> Obj:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    blank: Obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    wanted = blank if present is None else private_copy(present)
    mutate(wanted)
    after = wanted.get("metadata") or {}
    if after.get("name") != name or (after.get("namespace") or None) != (namespace or None):
        raise Renamed(
            f"the function made {resource.kind} {namespace or ''}/{name} into "
            f"{after.get('namespace') or ''}/{after.get('name')}"
        )
    return wanted


def _status(obj: Obj) -> Obj:
    return {"status": obj["status"]} if "status" in obj else {}


def _without_status(obj: Obj) -> Obj:
    return {field: value for field, value in obj.items() if field != "status"}
