"""The Node object that a machine of an agent pool registers, as AKS labels it.

In: the pool's properties. Out: a plain dict, for whoever plays the kubelet in the API server under test. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from api import keys

Json = dict[str, Any]


def node_name(pool: str) -> str:
    """Name of the pool's one node; the digits are the cluster's in AKS, and the pool's here."""
    return f"aks-{pool}-{zlib.crc32(pool.encode()) % 10**8:08d}-vmss000000"


def provider_id(pool: str, *, subscription: str, node_group: str) -> str:
    """``spec.providerID`` of that node; AKS writes the node resource group in lower case."""
    scale_set = node_name(pool).removesuffix("000000")
    return (
        f"azure:///subscriptions/{subscription}/resourceGroups/{node_group.lower()}/providers/"
        f"Microsoft.Compute/virtualMachineScaleSets/{scale_set}/virtualMachines/0"
    )


def node_object(
    pool: str, properties: Mapping[str, Any], *, subscription: str, node_group: str, location: str
) -> Json:
    """The Node that appears; its status is the kubelet's to write."""
    zones = properties.get("availabilityZones") or ["0"]
    labels = {
        **(properties.get("nodeLabels") or {}),
        "agentpool": pool,
        "kubernetes.azure.com/agentpool": pool,
        "kubernetes.azure.com/cluster": node_group,
        "kubernetes.azure.com/mode": "user",
        keys.ARCH_LABEL: "amd64",
        keys.OS_LABEL: "linux",
        keys.HOSTNAME_LABEL: node_name(pool),
        keys.INSTANCE_TYPE_LABEL: str(properties.get("vmSize")),
        keys.REGION_LABEL: location,
        keys.ZONE_LABEL: f"{location}-{zones[0]}" if zones[0] != "0" else "0",
    }
    taints = [_taint(text) for text in properties.get("nodeTaints") or []]
    if properties.get("scaleSetPriority") == "Spot":
        labels["kubernetes.azure.com/scalesetpriority"] = "spot"
        taints.append({"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(pool), "labels": labels},
        "spec": {
            "providerID": provider_id(pool, subscription=subscription, node_group=node_group),
            "taints": taints,
        },
    }


def _taint(text: str) -> Json:
    key_value, _, effect = text.rpartition(":")
    key, _, value = key_value.partition("=")
    return {"key": key, "value": value, "effect": effect} if value else {"key": key, "effect": effect}
