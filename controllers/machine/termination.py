"""The way out: no pod comes any more, pods leave, the instance goes, the node object goes, then the Machine.

In: a Machine that is being deleted, its instance, node and pods. Out: the next step only. Anything that is
absent counts as done, so that the way out can be entered anywhere, any number of times. The finalizer falls
last: as long as the Machine is there, its instance is known to someone.
"""

from __future__ import annotations

from datetime import datetime

from api import keys
from api.conditions import DRAINED, INSTANCE_TERMINATING, READY, VOLUMES_DETACHED, render_time
from controllers.machine import drain
from controllers.machine.model import (
    Annotate,
    DeleteInstance,
    DeleteNode,
    Mark,
    Observation,
    Phase,
    RemoveFinalizer,
)
from controllers.nodes import readiness
from provisioner import InstanceState

_LOOK = 1.0  # seconds between two looks at pods that leave
_HELD = 5.0  # and at pods that may not


def termination(obs: Observation, now: datetime) -> Phase:
    """One step towards nothing being left."""
    if drains(obs, now):
        return _drain(obs, now)
    if obs.cloud_error is not None:
        error = obs.cloud_error
        mark = _not_ready(error.reason, f"the instance cannot be deleted: {error.message}. {error.next_step}")
        return Phase(marks=(mark,), requeue_after=obs.wait(now) or obs.poll_interval)
    if not obs.asked:
        return Phase(requeue_after=obs.wait(now) or obs.poll_interval)
    if obs.instance is not None:
        going = obs.instance.state is InstanceState.DELETING
        message = f"the cloud is deleting instance {obs.instance.name}"
        marks = [_not_ready("InstanceDeleting", message)]
        if not obs.kind.knative:
            marks += [Mark(type_, "True") for type_ in (DRAINED, VOLUMES_DETACHED)]
            marks.append(Mark(INSTANCE_TERMINATING, "True", "", message))
        return Phase(
            marks=tuple(marks), cloud=None if going else DeleteInstance(), requeue_after=obs.poll_interval
        )
    nodes = tuple(DeleteNode(node["metadata"]["name"], node["metadata"]["uid"]) for node in obs.nodes)
    return Phase(actions=(*nodes, RemoveFinalizer()))


def drains(obs: Observation, now: datetime) -> bool:
    """Whether the node lives and is not empty yet; until then nothing is asked of the cloud.

    A pod that runs somewhere is drained; one whose machine is gone cannot be, and goes with its node.
    """
    if not obs.nodes or now >= drain.deadline(obs):
        return False
    if obs.asked:
        alive = obs.instance is not None and obs.instance.state is not InstanceState.DELETING
    else:
        alive = any(readiness(node)[0] for node in obs.nodes)
    if not alive:
        return False
    return any(map(drain.cordon, obs.nodes)) or bool(drain.leaving(obs.pods, now)) or bool(obs.volumes)


def _drain(obs: Observation, now: datetime) -> Phase:
    by = obs.kind.going_by(obs.machine)
    annotations = obs.machine["metadata"].get("annotations") or {}
    promise: tuple[Annotate, ...] = ()
    if by is not None and keys.NODECLAIM_TERMINATION_TIMESTAMP not in annotations:
        promise = (Annotate({keys.NODECLAIM_TERMINATION_TIMESTAMP: render_time(by)}),)
    pods = drain.leaving(obs.pods, now)
    # Cordoned first, and the pods looked at once more after it: one may have come in between.
    cordons = tuple(patch for node in obs.nodes if (patch := drain.cordon(node)) is not None)
    asked = () if cordons else drain.requests(obs, pods, now)
    if not cordons and not pods:
        return _detach(obs, now)
    message = drain.told(obs, pods, now) if pods else "the node takes no more pods"
    marks = [_not_ready("Draining", message)]
    if not obs.kind.knative:
        marks.append(Mark(DRAINED, "Unknown", "Draining", message))
    left = (drain.deadline(obs) - now).total_seconds()
    look = _HELD if obs.blocked else _LOOK
    return Phase(
        marks=tuple(marks),
        actions=(*promise, *cordons, *asked),
        requeue_after=min(left, look, obs.poll_interval),
    )


def _detach(obs: Observation, now: datetime) -> Phase:
    """The pods are gone; a volume that is cut off with its machine can be used elsewhere only minutes later."""
    message = f"volumes are still attached: {', '.join(obs.volumes)}"
    marks = [_not_ready("VolumesAttached", message)]
    if not obs.kind.knative:
        marks += [Mark(DRAINED, "True"), Mark(VOLUMES_DETACHED, "Unknown", "AwaitingVolumeDetachment", message)]
    left = (drain.deadline(obs) - now).total_seconds()
    return Phase(marks=tuple(marks), requeue_after=min(left, _HELD, obs.poll_interval))


def _not_ready(reason: str, message: str) -> Mark:
    return Mark(READY, "False", reason, message)
