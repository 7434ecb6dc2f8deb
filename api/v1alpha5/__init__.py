"""``karpenter.sh/v1alpha5``: the Machine, one wanted node.

The Workspace controller makes them, the Machine controller serves them.
"""

from __future__ import annotations

from api.v1alpha5.machine import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    KubeletSpec,
    Machine,
    MachineSpec,
    MachineStatus,
    MachineTemplateRef,
    NodeSelectorRequirement,
    ResourceRequirements,
    Taint,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "KubeletSpec",
    "Machine",
    "MachineSpec",
    "MachineStatus",
    "MachineTemplateRef",
    "NodeSelectorRequirement",
    "ResourceRequirements",
    "Taint",
]
