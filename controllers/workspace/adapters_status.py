"""Which adapters each pod really has, against those that are wanted.

In: the wanted list (the ConfigMap that the pods read), the ready pods and their own answers. Out: one entry for
each pod, and the condition ``AdaptersReady``. Pure. A pod's word counts for that pod alone; one that has not been
asked yet keeps the entry that is stored, and one that does not answer is unknown and never called loaded. Adapters
that are missing do not make the endpoint unready: it serves with those that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from api import keys
from api.adapters import AdapterList, AdapterState, ObservedAdapter
from api.conditions import ADAPTERS_READY, Status
from api.reasons import Cause, Reason
from controllers.workspace.findings import Finding
from controllers.workspace.lastwords import shortened
from controllers.workspace.model import Observation, PodReport, Why
from controllers.workspace.pods import is_leaving, is_ready
from manager.types import Obj

_UNKNOWN = "Unknown"
_OUTDATED = "Outdated"
_WORST_FIRST = (AdapterState.FAILED, AdapterState.UNLOADING, AdapterState.PULLING, AdapterState.LOADING)


def wanted_adapters(obs: Observation) -> AdapterList | None:
    """The list that the pods are to follow; None where nothing is to be told about it.

    That is where there is no list or it cannot be read, and where an empty one has been reached.
    """
    text = ((obs.children.adapters or {}).get("data") or {}).get(keys.ADAPTERS_CONFIG_KEY)
    if not text:
        return None
    try:
        wanted = AdapterList.model_validate_json(text)
    except ValidationError:
        return None  # whoever wrote it by hand is told by the pods
    told = (obs.obj.get("status") or {}).get("adapters")
    return wanted if wanted.adapters or told else None


def observed_adapters(obs: Observation, wanted: AdapterList | None) -> list[Obj]:
    """``status.adapters``: an entry for each pod that serves, by name."""
    if wanted is None:
        return []
    stored = {str(item.get("pod")): item for item in (obs.obj.get("status") or {}).get("adapters") or []}
    entries = []
    for pod in _serving(obs):
        name = str(pod["metadata"]["name"])
        report = obs.reports.get(name)
        known = stored.get(name) if report is None else _entry(name, report, wanted)
        entries.append(known or {"pod": name, "state": _UNKNOWN, "message": "it has not been asked yet"})
    reached = all(item["state"] == AdapterState.LOADED for item in entries)
    return [] if reached and not wanted.adapters else entries


def adapters_finding(entries: Sequence[Obj], wanted: AdapterList | None) -> Finding | None:
    """``AdaptersReady``: True once every pod has all of the wanted revision; no finding where none are wanted."""
    if wanted is None or not entries:
        return None
    for state in (AdapterState.FAILED, _UNKNOWN, _OUTDATED):
        worst = next((item for item in entries if item["state"] == state), None)
        if worst is not None:
            status = Status.UNKNOWN if state == _UNKNOWN else Status.FALSE
            return Finding(ADAPTERS_READY, status, Why.of(_cause(worst, wanted)))
    worst = next((item for item in entries if item["state"] != AdapterState.LOADED), None)
    if worst is not None:
        return Finding(ADAPTERS_READY, Status.FALSE, Why.of(_cause(worst, wanted)))
    facts = {"count": len(wanted.adapters), "pods": len(entries)}
    return Finding(ADAPTERS_READY, Status.TRUE, Why.of(Cause(Reason.ADAPTERS_READY, facts)))


def unconverged(obs: Observation, wanted: AdapterList | None) -> Iterator[Obj]:
    """The serving pods whose adapters are not known to be as wanted."""
    if wanted is None:
        return
    for pod in _serving(obs):
        name = str(pod["metadata"]["name"])
        report = obs.reports.get(name)
        if report is None or _entry(name, report, wanted)["state"] != AdapterState.LOADED:
            yield pod


def _serving(obs: Observation) -> list[Obj]:
    ready = (pod for pod in obs.pods if is_ready(pod) and not is_leaving(pod))
    return sorted(ready, key=lambda pod: str(pod["metadata"]["name"]))


def _entry(pod: str, report: PodReport, wanted: AdapterList) -> Obj:
    if report.adapters is None:
        words = report.failed or "its server knows no adapters"
        return {"pod": pod, "state": _UNKNOWN, "message": shortened(words)}
    found = report.adapters
    entry: dict[str, Any] = {"pod": pod, "adapters": [_one(item) for item in found.adapters]}
    if found.revision:  # old API servers take an empty string for a null, and refuse it
        entry["revision"] = found.revision
    images = {item.name: item.image for item in wanted.adapters}
    # A failure of what is wanted no longer is about to be cleared away: the pod has not seen the new list yet.
    counted = [
        item for item in found.adapters if item.state is not AdapterState.FAILED or _is_wanted(item, images)
    ]
    worst = next((item for state in _WORST_FIRST for item in counted if item.state is state), None)
    missing = set(images) - {item.name for item in counted}
    if worst is not None and worst.state is AdapterState.FAILED:
        entry |= {"state": str(worst.state), "message": shortened(f"{worst.name}: {worst.message}")}
    elif worst is not None:
        busy = [item.name for item in counted if item.state is not AdapterState.LOADED]
        entry |= {"state": str(AdapterState.LOADING), "message": ", ".join(busy)}
    elif found.revision != wanted.revision or missing:
        entry |= {"state": _OUTDATED}
    else:
        entry |= {"state": str(AdapterState.LOADED)}
    return entry


def _is_wanted(item: ObservedAdapter, images: dict[str, str | None]) -> bool:
    return item.name in images and item.image in (None, images[item.name])


def _one(item: ObservedAdapter) -> Obj:
    told: dict[str, Any] = {"name": item.name, "state": str(item.state)}
    return told | ({"message": shortened(item.message)} if item.message else {})


def _cause(entry: Obj, wanted: AdapterList) -> Cause:
    pod, words = str(entry["pod"]), str(entry.get("message") or "")
    match entry["state"]:
        case AdapterState.FAILED:
            name, _, why = words.partition(": ")
            facts = {"pod": pod, "adapter": name, "message": why or "it gives no reason"}
            return Cause(Reason.ADAPTER_FAILED, facts)
        case "Unknown":
            return Cause(Reason.ADAPTERS_UNKNOWN, {"pod": pod, "message": words})
        case "Outdated":
            facts = {"pod": pod, "revision": str(entry.get("revision") or "none"), "wanted": wanted.revision}
            return Cause(Reason.ADAPTERS_OUTDATED, facts)
        case _:
            return Cause(Reason.ADAPTERS_LOADING, {"pod": pod, "adapters": words})
