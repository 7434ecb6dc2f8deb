"""A Machine whose instance runs without ever becoming a node is given up.

In: when the instance was launched. Out: the deletion of the Machine after the limit, or the time that is
left. The deletion goes the ordinary way through the finalizer; whoever wanted the Machine makes it anew.
"""

from __future__ import annotations

from datetime import datetime

from api.conditions import MACHINE_LAUNCHED, Status, find
from controllers.machine.model import DeleteMachine, Observation, Phase


def liveness(obs: Observation, now: datetime, *, registered: bool) -> Phase:
    """Measure from the launch, which happens once; the registration's own time moves with its reason."""
    launched = find(obs.conditions, MACHINE_LAUNCHED)
    if registered or launched is None or launched.status != Status.TRUE:
        return Phase()
    left = obs.limits.registration - (now - (launched.last_transition_time or now)).total_seconds()
    if left > 0:
        return Phase(requeue_after=left)
    return Phase(actions=(DeleteMachine(str(obs.machine["metadata"]["uid"])),))
