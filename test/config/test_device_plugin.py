"""The NVIDIA device plugin that config/default ships: where it runs, and how little it may."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from api import keys
from manager.client import Client
from manager.errors import AlreadyExists
from manager.resources import DAEMONSETS, NAMESPACES, NODES, PODS

FILE = Path(__file__).parents[2] / "config" / "device-plugin" / "daemonset.yaml"
ACCOUNT, DAEMONSET = list(yaml.safe_load_all(FILE.read_text()))
POD = DAEMONSET["spec"]["template"]["spec"]


def test_it_may_do_nothing() -> None:
    """No role, no token, no privileges; its image is public and of one version."""
    (container,) = POD["containers"]
    assert ACCOUNT["automountServiceAccountToken"] is POD["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not POD.get("hostNetwork") and not POD.get("hostPID")
    assert [volume["hostPath"]["path"] for volume in POD["volumes"]] == ["/var/lib/kubelet/device-plugins"]
    assert re.fullmatch(r"nvcr\.io/nvidia/k8s-device-plugin:v\d+\.\d+\.\d+", container["image"])
    for path in (FILE.parents[1] / "rbac").glob("*.yaml"):
        assert "device-plugin" not in path.read_text()


def test_it_goes_where_our_taints_are() -> None:
    """It tolerates the taint of our Machines, NVIDIA's own, and that of spot machines."""
    tolerated = {item["key"] for item in POD["tolerations"]}
    assert {keys.GPU_TAINT_KEY, "nvidia.com/gpu", "kubernetes.azure.com/scalesetpriority"} <= tolerated
    (ours,) = (item for item in POD["tolerations"] if item["key"] == keys.GPU_TAINT_KEY)
    assert (ours["value"], ours["effect"]) == (keys.GPU_TAINT_VALUE, keys.GPU_TAINT_EFFECT)


async def test_it_runs_on_gpu_nodes_alone(cluster: Any, namespace: str) -> None:
    """On a cluster with Kubernetes' controllers: a pod for each kind of GPU node, none for the others."""
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    gpu_taint = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    nvidias = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    nodes: dict[str, tuple[dict[str, str], list[dict[str, str]]]] = {
        f"{namespace}-ours": ({keys.MACHINE_TYPE_LABEL: "gpu"}, [gpu_taint]),
        f"{namespace}-theirs": ({keys.ACCELERATOR_LABEL: "nvidia"}, [nvidias]),
        f"{namespace}-plain": ({}, []),
        f"{namespace}-cpu": ({keys.MACHINE_TYPE_LABEL: "cpu"}, []),
        f"{namespace}-other": ({keys.ACCELERATOR_LABEL: "nvidia"}, [{"key": "mine", "effect": "NoSchedule"}]),
    }
    async with Client(cluster.config) as client:
        try:
            await client.create(NAMESPACES, {"metadata": {"name": "kaito-system"}})
        except AlreadyExists:
            pass  # another test of this session needs it too
        await client.request("POST", "/api/v1/namespaces/kaito-system/serviceaccounts", body=ACCOUNT)
        for name, (more, taints) in nodes.items():
            body = {"metadata": {"name": name, "labels": {**labels, **more}}, "spec": {"taints": taints}}
            await client.create(NODES, body)
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
            status = {"conditions": [{**ready, "reason": "Played", "message": "played"}]}
            await client.patch(NODES, name, {"status": status}, subresource="status")
        try:
            await client.create(DAEMONSETS, DAEMONSET)
            async with asyncio.timeout(30):
                while True:
                    pods = (await client.list(PODS, "kaito-system")).items
                    placed = {
                        term["matchFields"][0]["values"][0]
                        for pod in pods
                        for term in pod["spec"]["affinity"]["nodeAffinity"][
                            "requiredDuringSchedulingIgnoredDuringExecution"
                        ]["nodeSelectorTerms"]
                    }
                    found = await client.get(DAEMONSETS, DAEMONSET["metadata"]["name"], "kaito-system")
                    wanted = (found.get("status") or {}).get("desiredNumberScheduled")
                    if wanted == 2 and len(placed) == 2:
                        break
                    await asyncio.sleep(0.1)
        finally:
            await client.delete(DAEMONSETS, DAEMONSET["metadata"]["name"], "kaito-system")
            await client.request("DELETE", "/api/v1/namespaces/kaito-system/serviceaccounts/kaito-device-plugin")
            for name in nodes:
                await client.delete(NODES, name)

    assert placed == {f"{namespace}-ours", f"{namespace}-theirs"}
