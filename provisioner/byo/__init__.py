"""No cloud: the nodes are the user's own, and nothing is ever created or removed."""

from __future__ import annotations

from provisioner.byo.provider import ByoProvider

__all__ = ["ByoProvider"]
