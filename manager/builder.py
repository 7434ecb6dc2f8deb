"""Declaring a controller: what it is for, what it owns, what else concerns it.

    ControllerBuilder(manager, "workspace").for_(WORKSPACES).owns(DEPLOYMENTS).watches(NODES, users_of).build(r)

Semantics: controller-runtime's builder. The informers are the manager's; two controllers that watch the same kind
share one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from manager.controller import Controller, Reconciler
from manager.errors import ManagerError
from manager.handlers import MapFunction, enqueue, itself, owner
from manager.informer import Registration
from manager.predicates import Predicate
from manager.queue import PriorityQueue
from manager.types import Request, Resource

if TYPE_CHECKING:
    from manager.manager import Manager

_Watch = tuple[Resource, MapFunction, tuple[Predicate, ...]]


class BuilderError(ManagerError):
    """A controller that cannot work as declared."""


class ControllerBuilder:
    """See the module.

    Args:
        manager: whose cache, metrics and life cycle the controller uses.
        name: unique in the process.
    """

    def __init__(self, manager: Manager, name: str) -> None:
        self._manager = manager
        self._name = name
        self._for: Resource | None = None
        self._watches: list[_Watch] = []
        self._max_concurrent = 1
        self._timeout: float | None = None
        self._needs_leader = True

    def for_(self, resource: Resource, *predicates: Predicate) -> Self:
        """The kind that is reconciled; at most once.

        Raises:
            BuilderError: called twice.
        """
        if self._for is not None:
            raise BuilderError(f"controller {self._name}: for_ may be called only once")
        self._for = resource
        self._watches.append((resource, itself, predicates))
        return self

    def owns(self, resource: Resource, *predicates: Predicate, controller_only: bool = True) -> Self:
        """A kind whose objects have the reconciled one as owner.

        Raises:
            BuilderError: there is no ``for_`` before it.
        """
        if self._for is None:
            raise BuilderError(f"controller {self._name}: owns needs for_ first")
        self._watches.append((resource, owner(self._for, controller_only=controller_only), predicates))
        return self

    def watches(self, resource: Resource, mapping: MapFunction, *predicates: Predicate) -> Self:
        """Any other kind, with the function that tells whom a change concerns."""
        self._watches.append((resource, mapping, predicates))
        return self

    def options(
        self, *, max_concurrent: int = 1, reconcile_timeout: float | None = None, needs_leader: bool = True
    ) -> Self:
        """Workers (default 1), a limit for one reconcile in seconds, and whether only the leader runs it."""
        self._max_concurrent = max_concurrent
        self._timeout = reconcile_timeout
        self._needs_leader = needs_leader
        return self

    def build(self, reconciler: Reconciler) -> Controller:
        """Make the controller and add it to the manager.

        Raises:
            BuilderError: it watches nothing, or the name is taken.
        """
        if not self._watches:
            raise BuilderError(f"controller {self._name} watches nothing")
        cache = self._manager.cache
        informers = [(cache.informer(resource), mapping, checks) for resource, mapping, checks in self._watches]

        def start(queue: PriorityQueue[Request]) -> list[Registration]:
            return [
                informer.add_handler(enqueue(queue, mapping, checks)) for informer, mapping, checks in informers
            ]

        controller = Controller(
            self._name,
            reconciler,
            start,
            self._manager.controller_metrics(self._name),
            max_concurrent=self._max_concurrent,
            reconcile_timeout=self._timeout,
        )
        self._manager.add(controller.run, name=self._name, needs_leader=self._needs_leader)
        return controller
