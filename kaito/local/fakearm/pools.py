"""The agent pools of one cluster and the operations on them, as AKS keeps them.

In: accepted requests, and the end of operations. Out: pools as JSON and the nodes that appear and go. The state
is here and nowhere else; there are no clocks and no HTTP. A pool is ``Creating`` from its PUT until its operation
ends, and what the operation did is visible on the pool before the operation says that it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kaito.local.fakearm.answers import Answer
from kaito.local.fakearm.nodes import node_object

Json = dict[str, Any]
OnNode = Callable[[str, Json], Awaitable[None]]  # "added" or "deleted", and the node

KUBERNETES = "1.33.5"


@dataclass
class Operation:
    """One long-running operation. ``outcome`` and ``error`` are how it is going to end."""

    id: str
    verb: str
    pool: str
    status: str = "InProgress"
    outcome: str = "Succeeded"
    error: Answer | None = None

    def body(self) -> Json:
        """What a poll answers."""
        body: Json = {"name": self.id, "status": self.status, "startTime": "2026-01-01T00:00:00Z"}
        if self.status in ("Failed", "Canceled") and self.error is not None:
            body["error"] = {"code": self.error.code, "message": self.error.message}
        return body


@dataclass
class Pools:
    """One cluster.

    Attributes:
        changed: called after every change.
        most: the largest number of operations that were under way together; the proof of a limit.
        count: of all operations so far.
    """

    subscription: str
    group: str
    cluster: str
    location: str
    on_node: OnNode | None = None
    pools: dict[str, Json] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None
    most: int = 0
    count: int = 0

    @property
    def node_group(self) -> str:
        return f"MC_{self.group}_{self.cluster}_{self.location}"

    def path(self, pool: str = "") -> str:
        """ARM's path of the collection, or of one pool."""
        base = (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{self.cluster}/agentPools"
        )
        return f"{base}/{pool}" if pool else base

    def under_way(self) -> list[Operation]:
        return [operation for operation in self.operations.values() if operation.status == "InProgress"]

    def start(self, verb: str, pool: str, body: Json, now: datetime) -> Operation:
        """Accept a creation (or update) or a deletion."""
        self.count += 1
        operation = Operation(f"op-{self.count:06d}", verb, pool)
        self.operations[operation.id] = operation
        self.most = max(self.most, len(self.under_way()))
        if verb == "delete":
            self.pools[pool]["properties"]["provisioningState"] = "Deleting"
            self.changed()
            return operation
        known = self.pools.get(pool)
        properties: Json = {**(body.get("properties") or {})}
        properties["osDiskSizeGB"] = properties.get("osDiskSizeGB") or 128
        properties |= {
            "provisioningState": "Creating" if known is None else "Updating",
            "powerState": {"code": "Running"},
            "currentOrchestratorVersion": KUBERNETES,
            "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202611.01.0",
        }
        created = known["systemData"]["createdAt"] if known else now.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.pools[pool] = {
            "id": self.path(pool),
            "name": pool,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": properties,
            "systemData": {"createdAt": created},
        }
        self.changed()
        return operation

    async def end(self, operation: Operation) -> None:
        """Bring an operation to its outcome: the node first, then the pool, then the operation."""
        if operation.status != "InProgress":
            return
        if operation.outcome == "Succeeded":
            await self._succeed(operation)
        elif operation.pool in self.pools:
            self._fail(operation)
        operation.status = operation.outcome
        self.changed()

    async def _succeed(self, operation: Operation) -> None:
        pool = self.pools.get(operation.pool)
        if pool is None:
            return
        node = self.node(operation.pool)
        if self.on_node is not None:
            await self.on_node("deleted" if operation.verb == "delete" else "added", node)
        if operation.verb == "delete":
            del self.pools[operation.pool]
        else:
            pool["properties"]["provisioningState"] = "Succeeded"

    def _fail(self, operation: Operation) -> None:
        properties = self.pools[operation.pool]["properties"]
        properties["provisioningState"] = operation.outcome
        if operation.error is not None:
            error = {"code": operation.error.code, "message": operation.error.message}
            properties["status"] = {"provisioningError": error}

    def node(self, pool: str) -> Json:
        """The Node object of a pool."""
        return node_object(
            pool,
            self.pools[pool]["properties"],
            subscription=self.subscription,
            node_group=self.node_group,
            location=self.location,
        )
