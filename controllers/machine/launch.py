"""Phase one: the cloud has an instance for this Machine.

In: what the cloud said, or that it refused. Out: the mark "launched" and at most one cloud call. An operation that
was started before is looked at by its token, any other instance by its name, before one is created, and a create
never overwrites; so a restart in the middle takes up what is there. Between two attempts nothing is asked of the
cloud. While the cloud works, or lets us wait, the condition is Unknown and says for how long; False is a refusal.
"""

from __future__ import annotations

from datetime import datetime

from api import keys
from api.conditions import Status, find, is_true, render_time
from controllers.machine.model import CreateInstance, DeleteInstance, DeleteMachine, Mark, Observation, Phase
from controllers.machine.progress import under_way
from controllers.machine.request import UnusableMachine, instance_request
from provisioner import Instance, InstanceState
from provisioner.errors import CloudError, OperationInProgress, Throttled

_WAITING = (OperationInProgress, Throttled)  # the cloud has said neither yes nor no


def launch(obs: Observation, now: datetime) -> Phase:
    """Create the instance, follow its creation, or tell why there is none."""
    if is_true(obs.conditions, obs.kind.launched):
        return Phase()
    if obs.cloud_error is not None:
        if isinstance(obs.cloud_error, _WAITING):
            return _waits(obs, obs.cloud_error, now)
        return _refused(obs, obs.cloud_error, now)
    if not obs.asked:
        return Phase(requeue_after=obs.wait(now))
    if obs.instance is None:
        return _create(obs, now)
    return _follow(obs, obs.instance, now)


def _create(obs: Observation, now: datetime) -> Phase:
    if wait := obs.wait(now):
        return Phase(requeue_after=wait)
    meta = obs.machine["metadata"]
    if linked := (meta.get("annotations") or {}).get(keys.LINKED):
        # It stood for an instance that was there. Another one in its place is not what was linked.
        note = f"the instance {linked} that this is linked to does not exist any more"
        return Phase(actions=(DeleteMachine(str(meta["uid"]), "InstanceGone", note, counts=False),))
    try:
        return Phase(cloud=CreateInstance(instance_request(obs.machine, obs.instance_name)))
    except UnusableMachine as error:
        # Only an edit of the Machine helps, and that edit is an event; so there is nothing to wait for.
        return Phase(marks=(Mark(obs.kind.launched, "False", "InvalidMachine", str(error)),))


def _follow(obs: Observation, instance: Instance, now: datetime) -> Phase:
    known = {"providerID": instance.provider_id} if instance.provider_id else None
    if instance.failure is not None:
        # Its remains go first. The answer to that call brings the failure back as a refusal of this attempt.
        return Phase(cloud=DeleteInstance())
    if instance.state is InstanceState.DELETING:
        # The remains of a failed attempt; its reason stays in the condition until the next attempt.
        return Phase(requeue_after=obs.poll_interval)
    if instance.state is InstanceState.RUNNING:
        return Phase(marks=(Mark(obs.kind.launched, "True"),), status=known)
    started = obs.operation_started
    progress = under_way("creating", (now - started).total_seconds() if started else None, obs.usual)
    message = f"{progress} (instance {instance.name}, {instance.instance_type})"
    mark = Mark(obs.kind.launched, "Unknown", "InstanceCreating", message)
    return Phase(marks=(mark,), requeue_after=obs.poll_interval, status=known)


def _waits(obs: Observation, error: CloudError, now: datetime) -> Phase:
    later = obs.wait(now) or obs.poll_interval
    if obs.operation:
        return Phase(requeue_after=later)  # only the look has to wait; the operation goes on as last told
    since = obs.attempts.since
    waiting = under_way("waiting for the cloud", (now - since).total_seconds() if since else None)
    stored = find(obs.conditions, obs.kind.launched)
    if stored is not None and stored.status == Status.UNKNOWN and stored.message.startswith(f"{waiting}: "):
        return Phase(requeue_after=later)  # how many are before us changes at each look; one a step is enough
    mark = Mark(obs.kind.launched, "Unknown", error.reason, f"{waiting}: {error.message}")
    return Phase(marks=(mark,), requeue_after=later)


def _refused(obs: Observation, error: CloudError, now: datetime) -> Phase:
    message = f"{error.message}. {error.next_step}"
    if obs.attempts.next_at is not None:
        message += f" Next attempt at {render_time(obs.attempts.next_at)}."
    mark = Mark(obs.kind.launched, "False", error.reason, message)
    if obs.attempts.given_up:
        return Phase(marks=(mark,))  # only an edit of the Machine helps, and that edit is an event
    return Phase(marks=(mark,), requeue_after=obs.wait(now) or obs.poll_interval)
