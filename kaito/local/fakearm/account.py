"""What the stand-in says of its subscription: the cluster, the sizes of the region, their quotas, and rights.

In: the rules, and the sizes of our own catalogue. Out: plain dicts in ARM's formats. Pure. The names of families
are made from the names of sizes, as Azure mostly does it.
"""

from __future__ import annotations

import re
from typing import Any

from api import catalog
from api.catalog import Sku
from kaito.local.fakearm.faults import Rules

Json = dict[str, Any]
_USUAL_LIMIT = 100  # vCPUs of a quota that the rules do not mention
_NAME = re.compile(r"Standard_(?P<series>[A-Z]+)\d+(?P<features>[a-z]*)_?(?P<rest>.*)")


def family(instance_type: str) -> str:
    """The quota family of a size: ``Standard_NC24ads_A100_v4`` counts in ``standardNCADSA100v4Family``."""
    match = _NAME.fullmatch(instance_type)
    if match is None:
        return "standardOtherFamily"
    return f"standard{match['series']}{match['features'].upper()}{match['rest'].replace('_', '')}Family"


def cluster(path: str, name: str, location: str, node_group: str, version: str) -> Json:
    """The managed cluster."""
    return {
        "id": path,
        "name": name,
        "type": "Microsoft.ContainerService/ManagedClusters",
        "location": location,
        "properties": {
            "provisioningState": "Succeeded",
            "powerState": {"code": "Running"},
            "kubernetesVersion": version,
            "nodeResourceGroup": node_group,
        },
    }


def skus(rules: Rules, location: str) -> list[Json]:
    """The sizes that the region has."""
    return [_sku(sku, rules, location) for sku in catalog.skus() if sku.cloud == "azure"]


def usages(rules: Rules) -> list[Json]:
    """The quotas of the subscription in the region."""
    families = sorted({family(sku.instance_type) for sku in catalog.skus() if sku.cloud == "azure"})
    found = dict.fromkeys(("cores", "lowPriorityCores", *families), (0, _USUAL_LIMIT))
    found |= {name: (usage.used, usage.limit) for name, usage in rules.usages.items()}
    return [
        {
            "unit": "Count",
            "currentValue": used,
            "limit": limit,
            "name": {"value": name, "localizedValue": _label(name)},
        }
        for name, (used, limit) in found.items()
    ]


def permissions(rules: Rules) -> list[Json]:
    """What the caller may do on the cluster."""
    return [{"actions": list(rules.allowed), "notActions": [], "dataActions": [], "notDataActions": []}]


def _sku(sku: Sku, rules: Rules, location: str) -> Json:
    withheld = {
        "type": "Location",
        "values": [location],
        "reasonCode": "NotAvailableForSubscription",
        "restrictionInfo": {"locations": [location]},
    }
    return {
        "resourceType": "virtualMachines",
        "name": sku.instance_type,
        "family": family(sku.instance_type),
        "locations": [location],
        "locationInfo": [{"location": location, "zones": ["1", "2", "3"]}],
        "capabilities": [
            {"name": "vCPUs", "value": str(sku.vcpus or 6 * sku.gpus)},
            {"name": "GPUs", "value": str(sku.gpus)},
        ],
        "restrictions": [withheld] if sku.instance_type in rules.withheld else [],
    }


def _label(name: str) -> str:
    known = {"cores": "Total Regional vCPUs", "lowPriorityCores": "Total Regional Low-priority vCPUs"}
    return known.get(name) or f"Standard {name.removeprefix('standard').removesuffix('Family')} Family vCPUs"
