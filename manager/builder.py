"""Declaring a controller: what it is for, what it owns, what else concerns it.

    ControllerBuilder(manager).for_(WORKSPACES).owns(DEPLOYMENTS).watches(NODES, users_of).build(reconciler)

Nothing is watched before ``build``, which makes the controller and hands it to the manager. The informers are the
manager's: two controllers that watch the same kind share one. Semantics: controller-runtime's builder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from manager.controller import Controller, ControllerDefaults, Reconciler
from manager.errors import ManagerError
from manager.handlers import Handler, MapFunction, enqueue_mapped, enqueue_owner, enqueue_self
from manager.predicates import Predicate
from manager.ratelimit import RateLimiter
from manager.sources import KindSource, Source
from manager.types import Request, Resource

if TYPE_CHECKING:
    from manager.manager import Manager


class BuilderError(ManagerError):
    """A controller that cannot work as declared."""


@dataclass(frozen=True, slots=True)
class _Watch:
    resource: Resource
    handler: Handler
    predicates: tuple[Predicate, ...]
    only_metadata: bool


class ControllerBuilder:
    """See the module.

    Args:
        manager: whose cache, metrics, defaults and life cycle the controller uses.
        name: unique in the process; default: the kind of ``for_`` in lower case.
    """

    def __init__(self, manager: Manager, name: str | None = None) -> None:
        self._manager = manager
        self._name = name
        self._for: _Watch | None = None
        self._owns: list[tuple[_Watch, bool]] = []  # with whether every owner counts
        self._watches: list[_Watch] = []
        self._sources: list[Source] = []
        self._filters: tuple[Predicate, ...] = ()
        self._options: dict[str, Any] = {}

    def named(self, name: str) -> Self:
        """The controller's name; unique in the process."""
        self._name = name
        return self

    # ------------------------------------------------------------------ what is watched

    def for_(self, resource: Resource, *predicates: Predicate, only_metadata: bool = False) -> Self:
        """The kind that is reconciled; at most once.

        Raises:
            BuilderError: called twice.
        """
        if self._for is not None:
            raise BuilderError(f"controller {self._name or resource.kind}: for_ may be called only once")
        self._for = _Watch(resource, enqueue_self, predicates, only_metadata)
        return self

    def owns(
        self,
        resource: Resource,
        *predicates: Predicate,
        match_every_owner: bool = False,
        only_metadata: bool = False,
    ) -> Self:
        """A kind whose objects have the reconciled one as controller; ``match_every_owner``: as any owner."""
        self._owns.append((_Watch(resource, enqueue_self, predicates, only_metadata), match_every_owner))
        return self

    def watches(
        self, resource: Resource, mapping: MapFunction, *predicates: Predicate, only_metadata: bool = False
    ) -> Self:
        """Any other kind, with the function that tells whom a change concerns."""
        self._watches.append(_Watch(resource, enqueue_mapped(mapping), predicates, only_metadata))
        return self

    def watches_metadata(self, resource: Resource, mapping: MapFunction, *predicates: Predicate) -> Self:
        """The same for objects without anything but their metadata, which saves most of their memory."""
        return self.watches(resource, mapping, *predicates, only_metadata=True)

    def watches_raw_source(self, source: Source) -> Self:
        """Any source, with its own handler and predicates; ``with_event_filter`` does not apply to it."""
        self._sources.append(source)
        return self

    def with_event_filter(self, predicate: Predicate) -> Self:
        """Makes no work of what this refuses, whatever kind it is of; several are AND-ed."""
        self._filters += (predicate,)
        return self

    # ------------------------------------------------------------------ how it works

    def options(
        self,
        *,
        max_concurrent: int | None = None,
        cache_sync_timeout: float | None = None,
        recover_panic: bool | None = None,
        needs_leader: bool | None = None,
        warmup: bool | None = None,
        reconcile_timeout: float | None = None,
        rate_limiter: Callable[[], RateLimiter[Request]] | None = None,
        skip_name_validation: bool | None = None,
    ) -> Self:
        """What differs from the manager's ``ControllerDefaults``, which say what each of them means."""
        given = {
            "max_concurrent": max_concurrent,
            "cache_sync_timeout": cache_sync_timeout,
            "recover_panic": recover_panic,
            "needs_leader": needs_leader,
            "warmup": warmup,
            "reconcile_timeout": reconcile_timeout,
            "rate_limiter": rate_limiter,
            "skip_name_validation": skip_name_validation,
        }
        self._options |= {option: value for option, value in given.items() if value is not None}
        return self

    def build(self, reconciler: Reconciler) -> Controller:
        """Make the controller and add it to the manager.

        Raises:
            BuilderError: it watches nothing, owns something without a kind of its own, or has no name.
            ManagerError: the name is taken.
        """
        resource = self._for.resource if self._for else None
        name = self._name or (resource.kind.lower() if resource else "")
        if not name:
            raise BuilderError("a controller without for_ needs a name: call named()")
        if self._owns and resource is None:
            raise BuilderError(f"controller {name}: owns needs for_, whose kind the owners are of")
        watches = [self._for] if self._for else []
        for owned, every in self._owns:
            assert resource is not None  # noqa: S101 - checked above
            watches.append(replace(owned, handler=enqueue_owner(resource, controller_only=not every)))
        watches += self._watches
        if not watches and not self._sources:
            raise BuilderError(f"controller {name} watches nothing: call for_, watches or watches_raw_source")
        options = self._resolved(resource)
        controller = Controller(
            name,
            reconciler,
            [*map(self._source, watches), *self._sources],
            metrics=self._manager.controller_metrics(name),
            options=options,
            resource=resource,
            abandoned=lambda: self._manager.stopped,
        )
        self._manager.add(
            controller.run,
            name=name,
            needs_leader=options.needs_leader,
            warmup=controller.warmup if options.warmup and options.needs_leader else None,
        )
        return controller

    def _source(self, watch: _Watch) -> Source:
        predicates = (*self._filters, *watch.predicates)
        return KindSource(
            self._manager.cache,
            watch.resource,
            watch.handler,
            *predicates,
            metadata_only=watch.only_metadata,
        )

    def _resolved(self, resource: Resource | None) -> ControllerDefaults:
        defaults = self._manager.controller_defaults
        if resource is not None and (workers := defaults.group_kind_concurrency.get(resource.group_kind)):
            defaults = replace(defaults, max_concurrent=workers)
        return replace(defaults, **self._options)
