"""How the kubelet asks whether the server is up, and how long it may take: by the size of what it loads."""

from __future__ import annotations

import math

from api import keys
from api.catalog import Preset
from api.quantity import GIB
from manager.types import Obj

HEALTH_PATH = "/healthz"
_STARTUP_PERIOD = 2  # seconds; a small model is up in seconds and should not wait for the next probe
_SHORTEST, _LONGEST = 30 * 60, 180 * 60  # seconds that a server may take to load its weights
_BASE, _PER_GIB = 15 * 60, 18  # loading 60 GiB from a cold disk has been seen to take 18 minutes


def startup_seconds(preset: Preset) -> int:
    """How long the server may take to come up: by the size of the weights where it is known."""
    if preset.weights_bytes is None:
        return int(max(preset.readiness_timeout, 60))
    return int(min(max(_BASE + preset.weights_bytes / GIB * _PER_GIB, _SHORTEST), _LONGEST))


def probes(preset: Preset) -> Obj:
    """The three probes of the server's container."""
    return {
        # Liveness and readiness begin only after the start-up probe has passed.
        "startupProbe": _probe(_STARTUP_PERIOD, math.ceil(startup_seconds(preset) / _STARTUP_PERIOD)),
        "readinessProbe": _probe(5, 2),
        "livenessProbe": _probe(10, 3),
    }


def _probe(period: int, failures: int) -> Obj:
    return {
        "httpGet": {"path": HEALTH_PATH, "port": keys.SERVER_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
