"""Turns one Machine into one node: the cloud protocol, its typed errors, and one folder for each cloud."""

from __future__ import annotations

from provisioner.protocol import (
    ON_DEMAND,
    SPOT,
    CloudProvider,
    Instance,
    InstanceRequest,
    InstanceState,
    Owner,
    Taint,
)

__all__ = [
    "ON_DEMAND",
    "SPOT",
    "CloudProvider",
    "Instance",
    "InstanceRequest",
    "InstanceState",
    "Owner",
    "Taint",
]
