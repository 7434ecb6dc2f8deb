"""Node objects: registration, status, lease. One `NodeKeeper` per node that this agent plays.

In: what the node is (`NodeSpec`). Out: a Node object that is Ready, a lease in kube-node-lease that is
renewed every 10 s (20 s where there are many), and a status that is written when it changed or is five
minutes old. As with a kubelet, a Node that somebody deletes comes back only when the agent starts anew; the
agent's own node comes back at once, since nothing else makes it. Failing to reach the API server is retried
for ever and ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kaito.local.node.status import rfc3339
from manager.client import Client, PatchType
from manager.errors import AlreadyExists, ApiError, ManagerError, NotFound
from manager.resources import LEASES, NAMESPACES, NODES
from manager.types import Obj

log = logging.getLogger("kaito.local.node.nodes")

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
_MANY_NODES, _RENEW_MANY_SECONDS = 100, 20.0  # one process plays all kubelets here; half the grace is enough
STATUS_SECONDS = 300.0  # a kubelet's nodeStatusReportFrequency
SIMULATED_LABEL = "kaito.sh/simulated"
SIMULATED_NOTE = (
    "This node is simulated by `kaito node`: its containers are processes of this machine, its GPUs do not exist."
)
_VERSION = "v1.36.0+kaito.local"
_RETRY = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node. `capacity` holds everything, cpu and memory included."""

    name: str
    capacity: Mapping[str, str]
    kubelet_port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Obj, ...] = ()
    provider_id: str = ""
    permanent: bool = False


def host_capacity(disk: Path) -> dict[str, str]:
    """What this machine has; `disk` names the file system that pods write to."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    space = os.statvfs(disk)
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{pages // 1024}Ki",
        "pods": "110",
        "ephemeral-storage": f"{space.f_blocks * space.f_frsize // 1024}Ki",
    }


def instance_node(instance: Obj, host: Mapping[str, str], kubelet_port: int) -> NodeSpec:
    """The node of an instance of the local cloud."""
    return NodeSpec(
        name=instance["nodeName"],
        capacity={**host, **instance["capacity"]},
        kubelet_port=kubelet_port,
        labels={
            **instance["labels"],
            "node.kubernetes.io/instance-type": instance["instanceType"],
            SIMULATED_LABEL: "true",
        },
        annotations={SIMULATED_LABEL: SIMULATED_NOTE},
        taints=tuple(instance["taints"]),
        provider_id=instance["providerID"],
    )


def node_object(spec: NodeSpec) -> Obj:
    """The object to register, without status."""
    machine = platform.machine()
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    labels = {
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": spec.name,
        **spec.labels,
    }
    body: Obj = {
        "metadata": {"name": spec.name, "labels": labels, "annotations": dict(spec.annotations)},
        "spec": {},
    }
    if spec.taints:
        body["spec"]["taints"] = [{k: v for k, v in taint.items() if v} for taint in spec.taints]
    if spec.provider_id:
        body["spec"]["providerID"] = spec.provider_id
    return body


def node_status(spec: NodeSpec, now: float, transitions: Mapping[str, str]) -> Obj:
    """The node's status; `transitions` are the times since when conditions have held."""
    stamp = rfc3339(now)
    conditions = [
        _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "memory is not watched"),
        _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "disk is not watched"),
        _condition("PIDPressure", "False", "KubeletHasSufficientPID", "process ids are not watched"),
        _condition("Ready", "True", "KubeletReady", "the local node agent runs containers as processes"),
    ]
    for condition in conditions:
        condition["lastHeartbeatTime"] = stamp
        condition["lastTransitionTime"] = transitions.get(condition["type"], stamp)
    return {
        "capacity": dict(spec.capacity),
        "allocatable": dict(spec.capacity),
        "conditions": conditions,
        # The API server dials the first type it prefers, and that is Hostname: it must resolve.
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": "localhost"},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.kubelet_port}},
        "nodeInfo": {
            "architecture": node_object(spec)["metadata"]["labels"]["kubernetes.io/arch"],
            "bootID": _read("/proc/sys/kernel/random/boot_id"),
            "machineID": _read("/etc/machine-id"),
            "systemUUID": "",
            "kernelVersion": platform.release(),
            "osImage": f"{platform.system()} (local processes)",
            "containerRuntimeVersion": "local://1",
            "kubeletVersion": _VERSION,
            "kubeProxyVersion": _VERSION,
            "operatingSystem": "linux",
        },
    }


def _condition(kind: str, status: str, reason: str, message: str) -> Obj:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def renewal(nodes: int) -> float:
    """Seconds between two renewals of a lease, where one process keeps so many nodes."""
    return RENEW_SECONDS if nodes <= _MANY_NODES else _RENEW_MANY_SECONDS


class NodeKeeper:
    """Keeps one Node and its lease alive."""

    def __init__(
        self, client: Client, spec: NodeSpec, clock: Callable[[], float], nodes: Callable[[], int] = lambda: 1
    ) -> None:
        """``nodes`` tells how many nodes this process keeps."""
        self.spec = spec
        self._client = client
        self._clock = clock
        self._nodes = nodes
        self._transitions: dict[str, str] = {}
        self._gone = False

    def __repr__(self) -> str:
        return f"<NodeKeeper {self.spec.name}{' gone' if self._gone else ''}>"

    async def register(self) -> None:
        """Create the Node, or take over the one that is there, and make it Ready.

        A Node is created with its status, as a kubelet does: one that is not Ready for a moment is tainted and
        freed of it again, by controllers that get in the way of those who wait for it.

        Raises:
            ManagerError: the API server did not accept it; try again.
        """
        body = node_object(self.spec)
        try:
            node = await self._client.create(NODES, {**body, "status": self._status()})
            await self._begin_lease(str(node["metadata"]["uid"]))
            self._gone = False
            return
        except AlreadyExists:
            node = await self._client.patch(NODES, self.spec.name, _takeover(body), type=PatchType.STRATEGIC)
        self._gone = False
        for condition in (node.get("status") or {}).get("conditions") or []:
            if condition.get("lastTransitionTime") and condition["status"] == _wanted(condition["type"]):
                self._transitions[condition["type"]] = condition["lastTransitionTime"]
        await self._write_status()
        await self._renew(str(node["metadata"]["uid"]))

    async def run(self) -> None:
        """Renew until cancelled."""
        failures, written = 0, self._clock()
        while True:
            delay = _RETRY[min(failures, len(_RETRY) - 1)] if failures else renewal(self._nodes())
            await asyncio.sleep(delay)
            if self._gone and not self.spec.permanent:
                continue
            try:
                if self._gone:
                    await self.register()
                else:
                    await self._renew(None)
                if self._clock() - written >= STATUS_SECONDS:
                    await self._write_status()
                    written = self._clock()
                failures = 0
            except NotFound:
                self._gone = True
                log.warning("node was deleted by somebody node=%s", self.spec.name)
            except ManagerError as err:
                failures += 1
                log.log(
                    logging.WARNING if isinstance(err, ApiError) else logging.INFO,
                    "node not renewed node=%s error=%s",
                    self.spec.name,
                    err,
                )

    async def remove(self) -> None:
        """Delete the Node and its lease; a Node that a finalizer keeps takes no more pods."""
        try:
            await self._client.patch(NODES, self.spec.name, {"spec": {"unschedulable": True}})
        except NotFound:
            pass
        for resource, namespace in ((LEASES, LEASE_NAMESPACE), (NODES, None)):
            try:
                await self._client.delete(resource, self.spec.name, namespace)
            except NotFound:
                pass

    async def _write_status(self) -> None:
        await self._client.patch(
            NODES, self.spec.name, {"status": self._status()}, type=PatchType.STRATEGIC, subresource="status"
        )

    def _status(self) -> Obj:
        status = node_status(self.spec, self._clock(), self._transitions)
        self._transitions = {c["type"]: c["lastTransitionTime"] for c in status["conditions"]}
        return status

    async def _renew(self, uid: str | None) -> None:
        try:
            patch = {"spec": self._lease_fields()}
            await self._client.patch(LEASES, self.spec.name, patch, namespace=LEASE_NAMESPACE)
            return
        except NotFound:
            pass
        if uid is None:
            # Raises NotFound when the Node itself is what is gone.
            uid = str((await self._client.get(NODES, self.spec.name))["metadata"]["uid"])
        await self._begin_lease(uid)

    def _lease_fields(self) -> Obj:
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": self.spec.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}

    async def _begin_lease(self, uid: str) -> None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.spec.name, "uid": uid}
        lease: Obj = {
            "metadata": {"name": self.spec.name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
            "spec": self._lease_fields(),
        }
        try:
            await self._client.create(LEASES, lease)
        except NotFound:
            await self._client.create(NAMESPACES, {"metadata": {"name": LEASE_NAMESPACE}})
            await self._client.create(LEASES, lease)
        except AlreadyExists:
            await self._client.patch(LEASES, self.spec.name, lease, namespace=LEASE_NAMESPACE)  # of an older Node


def _takeover(body: Obj) -> Obj:
    """A patch for a Node that is there already: taints and unschedulable are its users' by now."""
    spec = {k: v for k, v in body["spec"].items() if k == "providerID"}
    return {"metadata": {k: body["metadata"][k] for k in ("labels", "annotations")}, "spec": spec}


def _wanted(kind: str) -> str:
    return "True" if kind == "Ready" else "False"
