"""When a Workspace is looked at again though nothing that is watched has changed, and whom to ask.

In: an observation and the time. Out: pods to ask, and seconds. Pure. What changes inside a pod changes no object,
so it is asked, ever more rarely, and only while it is not as wanted; a Workspace at rest asks nobody and has no
timer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from api.conditions import ADAPTERS_READY, conditions_of, find, parse_time
from controllers.workspace.adapters_status import unconverged, wanted_adapters
from controllers.workspace.model import Observation
from controllers.workspace.pods import STUCK, is_leaving, is_ready, is_running
from controllers.workspace.tuning.runs import of_job
from manager.types import Obj

_SOONEST, _LATEST = 5.0, 15.0  # seconds between two questions to the same pod
_GROWTH = 30.0  # each such time of waiting makes it a second longer


def asking(obs: Observation) -> tuple[Obj, ...]:
    """The pods whose own word would tell something: those that load, and those whose adapters differ."""
    return (*_loading(obs), *_tuning(obs), *unconverged(obs, wanted_adapters(obs)))


def look_again(obs: Observation, now: datetime) -> float | None:
    """Seconds until the next look; None where only a change can bring news."""
    waits = []
    if asking(obs):
        since = _waiting_since(obs)
        waited = max(0.0, (now - since).total_seconds()) if since else 0.0
        waits.append(min(_LATEST, _SOONEST + waited / _GROWTH))
    for pod in filter(is_leaving, obs.pods):
        due = parse_time(pod["metadata"].get("deletionTimestamp"))
        left = (due + STUCK - now).total_seconds() if due else -1.0
        if left >= 0:
            waits.append(left + 1)
    return min(waits, default=None)


def _loading(obs: Observation) -> Iterator[Obj]:
    # What answers in a template's pod is its author's affair.
    if obs.workspace is None or obs.workspace.preset is None:
        return
    yield from (pod for pod in obs.pods if is_running(pod) and not is_ready(pod) and not of_job(pod))


def _tuning(obs: Observation) -> Iterator[Obj]:
    """Pods that train tell something new for as long as they run."""
    if obs.workspace is not None and obs.workspace.tuning is not None:
        yield from (pod for pod in obs.pods if of_job(pod) and is_running(pod))


def _waiting_since(obs: Observation) -> datetime | None:
    busy = (*_loading(obs), *_tuning(obs))
    starts = [parse_time((pod.get("status") or {}).get("startTime")) for pod in busy]
    known = [item for item in starts if item is not None]
    if known:
        return max(known)
    adapters = find(conditions_of(obs.obj), ADAPTERS_READY)
    return adapters.last_transition_time if adapters is not None else None
