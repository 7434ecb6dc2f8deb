"""What is asked of AKS for one Machine: the body of ``PUT agentPools/{name}``.

In: an ``InstanceRequest`` and one offering of it. Out: a plain dict with ARM's own field names. Pure. Every
field that another value could be expected in is sent; what the cluster decides better is not. Ownership is kept
twice: in tags, which only ARM knows and which say whose the pool is, and in node labels, which upstream reads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api import keys
from provisioner.protocol import ON_DEMAND, SPOT, InstanceRequest, Owner

log = logging.getLogger("kaito.provisioner.azure")

TAG_MANAGED_BY = "kaito-managed-by"
TAG_CLUSTER = "kaito-cluster"
TAG_KIND = "kaito-owner-kind"
TAG_NAME = "kaito-owner-name"
TAG_UID = "kaito-owner-uid"

_GIB = 1 << 30
_LEAST_DISK_GIB = 30  # AKS refuses less
_UNITLESS = 1 << 20  # below this a size is not bytes: upstream's presets say 400 and mean GiB
_IMAGE_FAMILIES = {"azurelinux": "AzureLinux", "ubuntu": "Ubuntu"}
# AKS writes labels of these domains itself and refuses them in a request; the registration puts ours on the node.
_RESERVED_DOMAINS = ("kubernetes.azure.com", "kubernetes.io", "k8s.io")


@dataclass(frozen=True, slots=True)
class Offering:
    """One way to satisfy a request."""

    instance_type: str
    capacity_type: str = ON_DEMAND

    def __str__(self) -> str:
        return (
            f"{self.instance_type} ({self.capacity_type})"
            if self.capacity_type != ON_DEMAND
            else self.instance_type
        )


def offerings(request: InstanceRequest) -> tuple[Offering, ...]:
    """Every way to satisfy a request, in its order: by type, and for each type by capacity type."""
    return tuple(
        Offering(instance_type, capacity_type)
        for instance_type in dict.fromkeys(request.instance_types)
        for capacity_type in dict.fromkeys(request.capacity_types)
    )


def pool_body(
    request: InstanceRequest, offering: Offering, *, cluster: str, subnet_id: str = ""
) -> dict[str, Any]:
    """The request body; ``cluster`` is the name that the tag tells."""
    properties: dict[str, Any] = {
        "count": 1,
        "vmSize": offering.instance_type,
        "osDiskSizeGB": disk_gib(request.storage_bytes),
        "osType": "Linux",
        "osSKU": os_sku(request.image_family),
        "type": "VirtualMachineScaleSets",
        "mode": "User",
        "enableAutoScaling": False,
        "nodeLabels": _labels(request, offering),
        # Start-up taints stay out: AKS would put them back on the node as often as somebody takes them off.
        "nodeTaints": [f"{taint.key}={taint.value}:{taint.effect}" for taint in request.taints],
        "tags": _tags(request.owner, cluster),
    }
    if request.zones:
        properties["availabilityZones"] = [zone.rsplit("-", 1)[-1] for zone in request.zones]
    if offering.capacity_type == SPOT:
        # The price cap -1 is "up to the on-demand price": then only capacity can take the machine away.
        properties |= {"scaleSetPriority": "Spot", "scaleSetEvictionPolicy": "Delete", "spotMaxPrice": -1}
    if subnet_id:
        properties["vnetSubnetID"] = subnet_id
    return {"properties": properties}


def disk_gib(size: int) -> int:
    """GiB of the system disk for ``size`` bytes: rounded up, at least what AKS takes; 0 is AKS's default."""
    if size <= 0:
        return 0
    gib = size if size < _UNITLESS else -(-size // _GIB)
    return max(gib, _LEAST_DISK_GIB)


def os_sku(image_family: str) -> str:
    """AKS's name of the operating system; one that is not known is told and becomes Ubuntu, as upstream does."""
    if image_family and image_family.lower() not in _IMAGE_FAMILIES:
        log.warning("unknown node image family family=%s used=Ubuntu", image_family)
    return _IMAGE_FAMILIES.get(image_family.lower(), "Ubuntu")


def machine_type(instance_type: str) -> str:
    """``gpu`` or ``cpu``: the N family is the one with GPUs."""
    gpu = "standard_n" in instance_type.lower()
    return keys.MACHINE_TYPE_GPU if gpu else keys.MACHINE_TYPE_CPU


def _labels(request: InstanceRequest, offering: Offering) -> dict[str, str]:
    owner = request.owner
    if owner is not None and owner.kind == "NodeClaim":
        labels = {keys.NODEPOOL_LABEL: keys.NODEPOOL_NAME}
    else:
        labels = {keys.PROVISIONER_NAME_LABEL: keys.PROVISIONER_NAME}
    labels |= {key: value for key, value in request.labels.items() if not _reserved(key)}
    labels[keys.MACHINE_TYPE_LABEL] = machine_type(offering.instance_type)
    if offering.capacity_type != ON_DEMAND:
        labels[keys.CAPACITY_TYPE_LABEL] = offering.capacity_type
    if owner is not None and owner.created_at is not None:
        labels[keys.POOL_CREATED_LABEL] = owner.created_at.strftime("%Y-%m-%dT%H-%M-%SZ")
    return labels


def _reserved(key: str) -> bool:
    domain = key.split("/", 1)[0] if "/" in key else ""
    return any(domain == reserved or domain.endswith("." + reserved) for reserved in _RESERVED_DOMAINS)


def _tags(owner: Owner | None, cluster: str) -> Mapping[str, str]:
    tags = {TAG_MANAGED_BY: "kaito", TAG_CLUSTER: cluster}
    if owner is not None:
        tags |= {TAG_KIND: owner.kind, TAG_NAME: owner.name, TAG_UID: owner.uid}
    return tags
