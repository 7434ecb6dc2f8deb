"""The cloud of the embedded cluster: simulated instances behind a small HTTP API."""

from __future__ import annotations

from provisioner.local.provider import LocalProvider

__all__ = ["LocalProvider"]
