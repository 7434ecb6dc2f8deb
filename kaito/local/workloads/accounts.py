"""What every namespace is born with: the service account ``default`` and the authorities' certificate.

In: namespaces that are not being deleted. Out: the two objects, made again when somebody removes them.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.errors import AlreadyExists, ApiError
from manager.manager import Manager
from manager.resources import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS
from manager.types import Obj, Request, Resource, Result

from . import pods as p
from .acting import is_namespace_ending
from .world import World

_ROOT_CA = "kube-root-ca.crt"


class AccountReconciler:
    """Furnishes namespaces."""

    def __init__(self, manager: Manager, world: World, ca: bytes | None) -> None:
        self._client = manager.live
        self._namespaces = world.namespaces
        self._accounts = manager.cache.informer(SERVICEACCOUNTS).store
        self._configmaps = manager.cache.informer(CONFIGMAPS).store
        self._ca = ca.decode() if ca else None

    async def reconcile(self, request: Request) -> Result:
        """Create what is missing."""
        namespace = self._namespaces.get(request.name)
        if namespace is None or p.is_terminating(namespace):
            return Result()
        if self._accounts.get("default", request.name) is None:
            await self._create(SERVICEACCOUNTS, request.name, {"metadata": {"name": "default"}})
        if self._ca is not None and self._configmaps.get(_ROOT_CA, request.name) is None:
            note = "The certificate to check the API server with; made anew when it is removed."
            metadata = {"name": _ROOT_CA, "annotations": {"kubernetes.io/description": note}}
            await self._create(CONFIGMAPS, request.name, {"metadata": metadata, "data": {"ca.crt": self._ca}})
        return Result()

    async def _create(self, resource: Resource, namespace: str, obj: Obj) -> None:
        try:
            await self._client.create(resource, obj, namespace=namespace)
        except AlreadyExists:
            return
        except ApiError as error:
            if not is_namespace_ending(error):
                raise


def _namespace_of_account(obj: Obj) -> Iterable[Request]:
    return [Request("", p.namespace_of(obj))] if p.name_of(obj) == "default" else []


def _namespace_of_certificate(obj: Obj) -> Iterable[Request]:
    return [Request("", p.namespace_of(obj))] if p.name_of(obj) == _ROOT_CA else []


def add(manager: Manager, world: World, ca: bytes | None) -> None:
    """Register the controller. ``ca`` is the PEM of the authorities, or None to publish none."""
    reconciler = AccountReconciler(manager, world, ca)
    builder = ControllerBuilder(manager, "serviceaccount").for_(NAMESPACES)
    builder.watches(SERVICEACCOUNTS, _namespace_of_account)
    builder.watches(CONFIGMAPS, _namespace_of_certificate).build(reconciler)
