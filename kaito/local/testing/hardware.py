"""Machines and kubelets, played: an instance that runs becomes a Node, a pod that is bound to it becomes ready.

In: what the cloud did, the pods of the cluster by a watch, and what the test breaks. Out: nodes and statuses.
Every pod is a stub that answers or does not; its kubelet says so. A node that is lost says nothing more, and lets
nothing end. Also the pods' own word, as the operator would hear it over HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

from api import keys
from api.adapters import AdapterList, AdapterState, ObservedAdapter, ObservedAdapters
from controllers.workspace.model import PodReport
from manager.client import Client
from manager.errors import ApiError, Conflict, ManagerError, NotFound
from manager.resources import CONFIGMAPS, NODES, PODS
from manager.types import Obj

_WATCH_SECONDS = 600
_ADDRESSES = 250
_HEARTBEAT_SECONDS = 10.0


class Hardware:
    """See the module; :meth:`run` plays the kubelets.

    Args:
        namespace: whose pods are played; None: all.

    Attributes:
        sick: pods that do not answer, by name: the state of their container.
        lost: nodes whose kubelet is silent.
    """

    def __init__(self, client: Client, clock: Callable[[], datetime], namespace: str | None = None) -> None:
        self._client, self._clock, self._namespace = client, clock, namespace
        self._numbers = itertools.count(1)
        self.sick: dict[str, Obj] = {}
        self.lost: set[str] = set()
        self._nodes: set[str] = set()

    def __repr__(self) -> str:
        return f"<Hardware sick={len(self.sick)} lost={len(self.lost)}>"

    # ------------------------------------------------------------------ nodes

    async def instance_changed(self, instance: Obj) -> None:
        """What a machine does once it runs, or is gone: for the cloud's ``on_change``."""
        name = str(instance["nodeName"])
        if instance["state"] == "Gone":
            self.lost.discard(name)
            self._nodes.discard(name)
            await self._unless_absent(self._client.delete(NODES, name))
        if instance["state"] != "Running":
            return
        wanted = instance["request"]
        labels = {**wanted["labels"], "node.kubernetes.io/instance-type": instance["instanceType"]}
        spec = {"taints": wanted["taints"], "providerID": instance["providerID"]}
        await self._client.create(NODES, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        await self._report_node(name, "True", wanted.get("capacity") or {})
        self._nodes.add(name)

    async def beat(self) -> None:
        """Heartbeats of all nodes that are not lost, until cancelled: for clusters that mark silent ones."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            for name in self._nodes - self.lost:
                await self._report_node(name, "True")

    async def lose(self, node: str) -> None:
        """The node goes silent; who looks after nodes says so."""
        self.lost.add(node)
        await self._report_node(node, "Unknown")

    async def find(self, node: str) -> None:
        """The node is back, and its kubelet looks at its pods."""
        self.lost.discard(node)
        await self._report_node(node, "True")
        for pod in await self._pods(node):
            await self._unless_absent(self._play(pod))

    async def _report_node(self, name: str, ready: str, capacity: Obj | None = None) -> None:
        condition = {"type": "Ready", "status": ready, "reason": "Played", "message": "played"}
        condition |= {"lastHeartbeatTime": self._now(), "lastTransitionTime": self._now()}
        status: Obj = {"conditions": [condition]}
        if capacity is not None:
            amounts = {"cpu": "96", "memory": "880Gi", "pods": "100", "ephemeral-storage": "1000Gi", **capacity}
            status |= {"capacity": amounts, "allocatable": amounts}
        await self._unless_absent(self._client.patch(NODES, name, {"status": status}, subresource="status"))

    # ------------------------------------------------------------------ pods

    async def run(self) -> None:
        """Play the kubelets until cancelled."""
        while True:
            try:
                await self._follow()
            except (ApiError, ManagerError):
                await asyncio.sleep(0.05)  # the server went away or has forgotten: from the start

    async def sicken(self, pod: str, namespace: str, state: Obj | None) -> None:
        """The stub in a pod stops answering, its container in the given state; None: it answers again."""
        if state is None:
            self.sick.pop(pod, None)
        else:
            self.sick[pod] = state
        try:
            await self._play(await self._client.get(PODS, pod, namespace))
        except (NotFound, Conflict):
            return

    def answers(self, pod: Obj) -> bool:
        """Whether the stub's ``/health`` would be 200: it runs on a node that is there, and nothing ails it."""
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        return bool(node) and node not in self.lost and pod["metadata"]["name"] not in self.sick

    async def _follow(self) -> None:
        listed = await self._client.list(PODS, self._namespace)
        for pod in listed.items:
            await self._unless_absent(self._play(pod))
        version = listed.resource_version
        watch = self._client.watch(PODS, self._namespace, resource_version=version, timeout_seconds=_WATCH_SECONDS)
        async with aclosing(watch) as events:
            async for event in events:
                if event.type in ("ADDED", "MODIFIED"):
                    await self._unless_absent(self._play(event.object))
                elif event.type == "DELETED":
                    self.sick.pop(event.object["metadata"]["name"], None)

    async def _play(self, pod: Obj) -> None:
        meta, node = pod["metadata"], str((pod.get("spec") or {}).get("nodeName") or "")
        if node in self.lost:
            return
        if meta.get("deletionTimestamp"):
            await self._client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace_seconds=0)
            return
        if not node:
            return
        status = self._status(pod)
        if status is not None:
            await self._client.patch(
                PODS, meta["name"], {"status": status}, namespace=meta["namespace"], subresource="status"
            )

    def _status(self, pod: Obj) -> Obj | None:
        """What the kubelet reports; None when it has said so already."""
        before = pod.get("status") or {}
        told = before.get("containerStatuses") or []
        state = self.sick.get(pod["metadata"]["name"]) or {"running": {"startedAt": self._now()}}
        ready = self.answers(pod)
        if told and told[0]["ready"] == ready and set(told[0]["state"]) == set(state):
            return None
        restarts = int(told[0].get("restartCount") or 0) if told else 0
        container = pod["spec"]["containers"][0]
        number = next(self._numbers)
        return {
            "phase": "Running",
            "podIP": before.get("podIP") or f"10.77.{number // _ADDRESSES % _ADDRESSES}.{number % _ADDRESSES + 1}",
            "startTime": before.get("startTime") or self._now(),
            "conditions": [
                {"type": kind, "status": str(ready), "lastTransitionTime": self._now()}
                for kind in ("Ready", "ContainersReady")
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": ready,
                    "started": ready,
                    "restartCount": restarts + bool(told and ready),
                    "state": state,
                }
            ],
        }

    # ------------------------------------------------------------------ the pods' own word

    async def read(self, pod: Obj) -> PodReport:
        """What the server in the pod says: it follows the list of adapters at once. See ``PodReader``."""
        if not self.answers(pod):
            return PodReport(failed="connection refused")
        meta = pod["metadata"]
        name = (meta.get("labels") or {}).get(keys.WORKSPACE_LABEL, "") + keys.ADAPTERS_CONFIG_SUFFIX
        try:
            stored = await self._client.get(CONFIGMAPS, name, meta["namespace"])
        except NotFound:
            return PodReport()
        wanted = AdapterList.model_validate(json.loads(stored["data"][keys.ADAPTERS_CONFIG_KEY]))
        loaded = tuple(
            ObservedAdapter(name=item.name, state=AdapterState.LOADED, image=item.image)
            for item in wanted.adapters
        )
        return PodReport(adapters=ObservedAdapters(revision=wanted.revision, adapters=loaded))

    async def close(self) -> None:
        """Nothing to let go of."""

    # ------------------------------------------------------------------ helpers

    async def _pods(self, node: str) -> list[Obj]:
        found = await self._client.list(PODS, self._namespace, field_selector=f"spec.nodeName={node}")
        return found.items

    async def _unless_absent(self, work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except (NotFound, Conflict):
            return  # it left while we looked, or is a namesake by now

    def _now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")
