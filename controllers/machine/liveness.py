"""A Machine whose instance runs without ever becoming a node is given up.

In: when the instance was launched. Out: the deletion of the Machine after the limit, or the time that is
left. The deletion goes the ordinary way through the finalizer; whoever wanted the Machine makes it anew. A Machine
that was never launched is not given up: its condition says why, and a new one would only lose its place in the
cloud's queue.
"""

from __future__ import annotations

from datetime import datetime

from api.conditions import Status, find
from controllers.machine.model import DeleteMachine, Mark, Observation, Phase
from controllers.machine.progress import spoken


def liveness(obs: Observation, now: datetime, *, registered: bool) -> Phase:
    """Measure from the launch, which happens once; the registration's own time moves with its reason."""
    launched = find(obs.conditions, obs.kind.launched)
    if registered or launched is None or launched.status != Status.TRUE:
        return Phase()
    left = obs.limits.registration - (now - (launched.last_transition_time or now)).total_seconds()
    if left > 0:
        return Phase(requeue_after=left)
    told = f"the node did not join the cluster within {spoken(obs.limits.registration)}"
    if obs.replaced >= obs.limits.replacements:
        told += (
            f", like {obs.replaced} before it, so the instance is not replaced again; look at its boot log in the "
            "cloud, then delete this Machine"
        )
        return Phase(marks=(Mark(obs.kind.registered, "False", "RegistrationTimeout", told),))
    uid = str(obs.machine["metadata"]["uid"])
    return Phase(actions=(DeleteMachine(uid, "RegistrationTimeout", f"{told}; the Machine is given up"),))
