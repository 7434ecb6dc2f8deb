"""Turns one Machine into one node: the cloud protocol, its typed errors, and one folder for each cloud."""

from __future__ import annotations

from provisioner.protocol import CloudProvider, Instance, InstanceRequest, InstanceState, Taint

__all__ = ["CloudProvider", "Instance", "InstanceRequest", "InstanceState", "Taint"]
