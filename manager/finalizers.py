"""Finalizers: what must be done before an object may go, and the registry that does it.

:class:`Finalizers` keeps the whole contract of one kind. On a live object it sees to it that each registered
finalizer is there; on one that is being deleted it runs each that is still there and takes it off when it is done.
All are run, whatever the others do; what succeeded is written, then what failed is raised.

Writes are merge patches of the finalizers alone with the resourceVersion of the object that was judged: a
finalizer that somebody else has set meanwhile is never lost; the patch meets a ``Conflict`` instead, and the
next reconcile looks again. So a finalizer may run more than once, and must stand that. Semantics:
controller-runtime's ``pkg/finalizer`` and ``controllerutil``. The functions change nothing in place, as those of
``ownership``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from manager.errors import ManagerError, NotFound
from manager.meta import finalizers_of, is_deleting, key, name, namespace, resource_version, with_metadata
from manager.types import Obj, Resource, Result

log = logging.getLogger("kaito.manager.finalizers")

# What a server takes: a qualified name. Without a prefix only Kubernetes' own would be valid.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

Finalize = Callable[[Obj], Awaitable[Result | None]]
"""Does what must be done before the object goes. A result with ``requeue_after`` says that it is not done yet, and
when to ask again; anything else, that it is. Must be idempotent, and quick: it is part of a reconcile."""


def has_finalizer(obj: Obj, finalizer: str) -> bool:
    """Whether the finalizer is there."""
    return finalizer in finalizers_of(obj)


def with_finalizer(obj: Obj, finalizer: str) -> Obj:
    """``obj`` with the finalizer; ``obj`` itself if it has it."""
    present = finalizers_of(obj)
    return obj if finalizer in present else with_metadata(obj, finalizers=[*present, finalizer])


def without_finalizer(obj: Obj, finalizer: str) -> Obj:
    """``obj`` without any occurrence of the finalizer; ``obj`` itself if there is none."""
    present = finalizers_of(obj)
    kept = [entry for entry in present if entry != finalizer]
    return obj if len(kept) == len(present) else with_metadata(obj, finalizers=kept)


class Patcher(Protocol):
    """What the registry needs of a client."""

    async def patch(self, resource: Resource, name: str, patch: Obj, *, namespace: str | None = None) -> Obj:
        """As ``Client.patch``, with a merge patch."""
        ...


@dataclass(frozen=True, slots=True)
class Finalized:
    """What came of it.

    Attributes:
        obj: as the server answered, or as it was given when nothing was written.
        changed: a patch was written.
        deleting: the object is on its way out; there is nothing else for the reconcile to do.
        requeue_after: seconds until the first finalizer that is not done wants to be asked again, or None.
    """

    obj: Obj
    changed: bool = False
    deleting: bool = False
    requeue_after: float | None = None


class Finalizers:
    """The finalizers of one kind. See the module.

    In a reconciler::

        state = await self.finalizers.finalize(obj)
        if state.deleting:
            return Result(requeue_after=state.requeue_after)
    """

    def __init__(self, client: Patcher, resource: Resource) -> None:
        self._client = client
        self._resource = resource
        self._registered: dict[str, Finalize] = {}

    def __repr__(self) -> str:
        return f"<Finalizers {self._resource.group_kind} {', '.join(self._registered) or 'none'}>"

    def register(self, finalizer: str, run: Finalize) -> None:
        """Add one; they run in the order of registration.

        Raises:
            ManagerError: the name is taken, or is not of the form ``domain/name`` that servers demand.
        """
        if finalizer in self._registered:
            raise ManagerError(f"finalizer {finalizer} is already registered")
        if not _NAME.fullmatch(finalizer):
            raise ManagerError(f"finalizer {finalizer!r} must look like example.com/cleanup")
        self._registered[finalizer] = run

    async def finalize(self, obj: Obj) -> Finalized:
        """Add, or run and remove, whatever is registered.

        Raises:
            ExceptionGroup: of what finalizers raised, after the finalizers of the others were removed.
            Conflict: the object has changed since it was read; look again.
            NotFound: it has gone, although it was not being deleted when it was read.
        """
        if not is_deleting(obj):
            wanted = obj
            for finalizer in self._registered:
                wanted = with_finalizer(wanted, finalizer)
            return Finalized(await self._write(obj, wanted), changed=wanted is not obj)
        wanted, waits, failures = obj, [], []
        for finalizer, run in self._registered.items():
            if not has_finalizer(obj, finalizer):
                continue
            try:
                answer = await run(obj)
            except Exception as error:
                error.add_note(f"in finalizer {finalizer} of {self._resource.kind} {key(obj)}")
                failures.append(error)
                continue
            if answer is not None and answer.requeue_after is not None:
                waits.append(answer.requeue_after)
            else:
                wanted = without_finalizer(wanted, finalizer)
        written = wanted
        try:
            written = await self._write(obj, wanted)
        except NotFound:
            pass  # somebody else has let it go: that was the aim
        except ManagerError as error:
            if not failures:
                raise
            failures.append(error)
        if failures:
            raise ExceptionGroup("finalizers failed", failures)
        return Finalized(written, wanted is not obj, deleting=True, requeue_after=min(waits, default=None))

    async def _write(self, obj: Obj, wanted: Obj) -> Obj:
        if wanted is obj:
            return obj
        finalizers = finalizers_of(wanted)
        log.debug("finalizers kind=%s object=%s finalizers=%s", self._resource.kind, key(obj), finalizers)
        patch = {"metadata": {"finalizers": finalizers or None, "resourceVersion": resource_version(obj)}}
        return await self._client.patch(self._resource, name(obj), patch, namespace=namespace(obj) or None)
