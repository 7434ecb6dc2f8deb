"""A cloud provider that is timed: what each call took, and what was refused. Karpenter's two families.

In: calls of the controllers. Out: the same calls of the real provider, and ``karpenter_cloudprovider_*``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from provisioner import CloudProvider, Instance, InstanceRequest
from provisioner.errors import CloudError

T = TypeVar("T")
_LABELS = ("controller", "method", "provider")


class MeteredProvider:
    """See the module."""

    def __init__(self, provider: CloudProvider, registry: CollectorRegistry, controller: str = "machine") -> None:
        self._provider = provider
        self._controller = controller
        self._seconds = Histogram(
            "karpenter_cloudprovider_duration_seconds", "What calls of the cloud took.", _LABELS, registry=registry
        )
        self._errors = Counter(
            "karpenter_cloudprovider_errors",
            "Calls of the cloud that were refused.",
            (*_LABELS, "error"),
            registry=registry,
        )

    def __repr__(self) -> str:
        return f"<MeteredProvider {self._provider!r}>"

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def poll_interval(self) -> float:
        return self._provider.poll_interval

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        return self._provider.instance_name(machine, uid, provider_id)

    def instance_of(self, node: Mapping[str, Any]) -> str:
        return self._provider.instance_of(node)

    async def create(self, request: InstanceRequest) -> Instance:
        return await self._timed("Create", self._provider.create(request))

    async def get(self, name: str) -> Instance:
        return await self._timed("Get", self._provider.get(name))

    async def resume(self, name: str, operation: str) -> Instance:
        return await self._timed("Resume", self._provider.resume(name, operation))

    async def list(self) -> list[Instance]:
        return await self._timed("List", self._provider.list())

    async def delete(self, name: str) -> str:
        return await self._timed("Delete", self._provider.delete(name))

    async def close(self) -> None:
        await self._provider.close()

    async def _timed(self, method: str, call: Awaitable[T]) -> T:
        labels, began = (self._controller, method, self._provider.name), time.monotonic()
        try:
            return await call
        except CloudError as error:
            self._errors.labels(*labels, error.reason).inc()
            raise
        finally:
            self._seconds.labels(*labels).observe(time.monotonic() - began)
