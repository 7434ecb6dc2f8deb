"""Where a Workspace is on its way, and how long the stages that lie behind it took.

In: its Machines and pods. Out: the present stage with the time at which it began, and the completed ones. Pure;
times are those that the objects bear, so that two observers find the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from api import catalog
from api.conditions import parse_time
from api.errors import UnknownPreset
from controllers.workspace.history import Kind, Took
from controllers.workspace.made import instance_type
from controllers.workspace.model import Observation, Stage
from controllers.workspace.nodeapi import NodeApi
from controllers.workspace.pods import is_leaving, newest_revision, started_at, true_since
from controllers.workspace.tuning.runs import of_job
from manager.types import Obj


class At(NamedTuple):
    """The stage that something is in."""

    stage: Stage
    since: datetime


def kind_of(obs: Observation) -> Kind:
    """What this Workspace is alike to."""
    spec = obs.workspace.preset if obs.workspace else None
    try:
        preset = catalog.preset(spec.name) if spec else None
    except UnknownPreset:
        preset = None
    asked = obs.workspace.resource.instance_type if obs.workspace else None
    taken = asked or (instance_type(obs.machines[0]) if obs.machines else "")
    return Kind(taken, preset.name if preset else "", preset.weights_bytes if preset else None)


def present(obs: Observation) -> At | None:
    """The earliest stage that anything of this Workspace is in; None when all are behind it, or none began."""
    places = [place for machine in obs.machines if (place := _of_machine(machine, obs.node_api)) is not None]
    if not places:
        living = newest_revision([pod for pod in obs.pods if not is_leaving(pod)])
        places = [place for pod in living if not _has_run(pod) and (place := _of_pod(pod)) is not None]
    order = list(Stage)
    return min(places, key=lambda place: (order.index(place.stage), -place.since.timestamp()), default=None)


def completed(obs: Observation) -> Iterator[Took]:
    """The stages that Machines and pods of this Workspace show as done."""
    for machine in obs.machines:
        uid = str(machine["metadata"].get("uid") or "")
        launched, joined = (
            true_since(machine, obs.node_api.launched),
            true_since(machine, obs.node_api.initialized),
        )
        yield from _took(Stage.MACHINE, uid, _created(machine), launched)
        yield from _took(Stage.NODE, uid, launched, joined)
    for pod in obs.pods:
        uid = str(pod["metadata"].get("uid") or "")
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        if not statuses or any(item.get("restartCount") for item in statuses):
            continue  # after a restart neither time belongs to the first start
        started = started_at(pod)
        yield from _took(Stage.IMAGE, uid, true_since(pod, "PodScheduled"), started)
        if not of_job(pod):  # it is Ready at once, which says nothing of a model
            yield from _took(Stage.MODEL, uid, started, true_since(pod, "Ready"))


def _took(stage: Stage, source: str, begin: datetime | None, end: datetime | None) -> Iterator[Took]:
    if begin is not None and end is not None and end >= begin:
        yield Took(stage, source, (end - begin).total_seconds())


def _of_machine(machine: Obj, api: NodeApi) -> At | None:
    created, launched = _created(machine), true_since(machine, api.launched)
    if launched is None:
        return At(Stage.MACHINE, created) if created else None
    registered, joined = true_since(machine, api.registered), true_since(machine, api.initialized)
    return At(Stage.NODE, launched) if registered is None or joined is None else None


def _of_pod(pod: Obj) -> At | None:
    if true_since(pod, "Ready") is not None:
        return None
    scheduled, started = true_since(pod, "PodScheduled"), started_at(pod)
    if started is not None:
        return At(Stage.MODEL, started)
    return At(Stage.IMAGE, scheduled) if scheduled else None


def _has_run(pod: Obj) -> bool:
    """Whether the pod tunes, and does so already: from then on the run tells itself how far it is."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return of_job(pod) and any(
        "waiting" not in (item.get("state") or {}) or item.get("restartCount") for item in statuses
    )


def _created(obj: Obj) -> datetime | None:
    return parse_time(obj["metadata"].get("creationTimestamp"))
