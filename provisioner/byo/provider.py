"""The provider of clusters whose nodes somebody else brings: it has no instances and makes none.

In: calls of the Machine controller. Out: answers that are true at once, without a request to anybody. A creation
is refused for good, with what to do instead; a deletion finds nothing, so that a Machine that was made by mistake
can leave. It claims no node: whose they are, it cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provisioner.errors import CreationDisabled, NotFound
from provisioner.protocol import Instance, InstanceRequest


class ByoProvider:
    """Nodes of the user's own; implements :class:`provisioner.protocol.CloudProvider`."""

    name = "byo"
    poll_interval = 60.0

    def instance_name(self, machine: str, uid: str, provider_id: str = "") -> str:
        return machine

    def instance_of(self, node: Mapping[str, Any]) -> str:
        return ""

    async def create(self, request: InstanceRequest) -> Instance:
        raise CreationDisabled(
            f"this cluster brings its own nodes (--provider=byo), so no {request.instance_types[0]} is created"
        )

    async def get(self, name: str) -> Instance:
        raise NotFound(f"there is no instance {name}: this cluster brings its own nodes")

    async def resume(self, name: str, operation: str) -> Instance:
        return await self.get(name)

    async def list(self) -> list[Instance]:
        return []

    async def delete(self, name: str) -> str:
        raise NotFound(f"there is no instance {name}: this cluster brings its own nodes")

    async def close(self) -> None:
        """Nothing is open."""
