"""A stand-in for Azure's Resource Manager: AKS agent pools behind real HTTP over TLS, with faults on request."""

from __future__ import annotations

from kaito.local.fakearm.faults import Fault, Rules, Throttle
from kaito.local.fakearm.journal import Exchange, Journal
from kaito.local.fakearm.server import FakeArm

__all__ = ["Exchange", "FakeArm", "Fault", "Journal", "Rules", "Throttle"]
