"""When a Workspace will answer, as far as anybody can know.

In: the present stage, what such stages usually take, the servers' own progress, and the estimate that is stored.
Out: ``status.eta``, or None. Pure. A number comes from durations that were seen or from bytes that were counted,
and says so; without either there is none. The stored estimate stays as long as it is about right, because a status
that counts down would be written for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from api.conditions import parse_time, render_time
from api.progress import LoadProgress, LoadStage
from controllers.workspace.model import Observation, Past, Stage
from controllers.workspace.stages import At, present
from manager.types import Obj

READY, STAGE_END = "Ready", "StageEnd"
_MOVED = 0.2  # of the time that is left: an estimate that is wrong by more is replaced
_LEAST = 5.0  # seconds; below it a difference is noise
_ORDER = list(Stage)


class Estimate(NamedTuple):
    """Seconds until the stage ends or the Workspace is ready, and what that rests on. None: it is overdue."""

    seconds: float | None
    until: str
    basis: str


def eta(obs: Observation, now: datetime) -> Obj | None:
    """``status.eta`` of a Workspace on its way; the stored one where it still holds."""
    place = present(obs)
    if place is None:
        return None
    progress = _progress(obs)
    estimate = _estimate(place, obs.past, progress, now)
    if estimate is None:
        return None
    new = _to_obj(place, estimate, progress, now)
    stored = (obs.obj.get("status") or {}).get("eta") or {}
    return dict(stored) if _holds(stored, new, now) else new


def seconds_left(stored: Mapping[str, Any], now: datetime) -> float | None:
    """What a stored estimate says now; negative when it is overdue."""
    made, seconds = parse_time(stored.get("estimatedAt")), stored.get("seconds")
    if made is None or not isinstance(seconds, int | float):
        return None
    return float(seconds) - (now - made).total_seconds()


def _estimate(place: At, past: Past, progress: LoadProgress | None, now: datetime) -> Estimate | None:
    if place.stage is Stage.MODEL and progress is not None and progress.seconds_left is not None:
        # The server's figure is about its own stage; only the last of them ends in an answer.
        pulling = progress.stage is LoadStage.PULLING
        basis = "bytes that are here already" if pulling else "the server's own figures"
        until = STAGE_END if pulling else READY
        return Estimate(progress.seconds_left, until, basis)
    usual = past.get(place.stage)
    if usual is None:
        return None
    left = usual.seconds - (now - place.since).total_seconds()
    basis = f"the usual {usual.seconds:.0f} s, seen {usual.samples} times"
    if left <= 0:
        return Estimate(None, STAGE_END, f"longer than {basis}")
    later = [past.get(stage) for stage in _ORDER[_ORDER.index(place.stage) + 1 :]]
    known = [item for item in later if item is not None]
    if len(known) == len(later):
        return Estimate(left + sum(item.seconds for item in known), READY, basis)
    return Estimate(left, STAGE_END, basis)


def _to_obj(place: At, estimate: Estimate, progress: LoadProgress | None, now: datetime) -> Obj:
    obj: Obj = {"stage": str(place.stage), "until": estimate.until, "basis": estimate.basis}
    obj["estimatedAt"] = render_time(now)
    if estimate.seconds is not None:
        obj["seconds"] = max(0, round(estimate.seconds))
    if place.stage is Stage.MODEL and progress is not None and progress.bytes_total:
        obj["bytesDone"], obj["bytesTotal"] = progress.bytes_done or 0, progress.bytes_total
    return obj


def _holds(stored: Obj, new: Obj, now: datetime) -> bool:
    if (stored.get("stage"), stored.get("until")) != (new["stage"], new["until"]):
        return False
    if ("seconds" in stored) != ("seconds" in new) or _tenth(stored) != _tenth(new):
        return False
    left = seconds_left(stored, now)
    if left is None or "seconds" not in new:
        return True
    return abs(left - float(new["seconds"])) <= max(_LEAST, _MOVED * max(left, float(new["seconds"])))


def _tenth(obj: Obj) -> int | None:
    total = obj.get("bytesTotal")
    return int(10 * int(obj.get("bytesDone") or 0) / int(total)) if total else None


def _progress(obs: Observation) -> LoadProgress | None:
    """Of the pod that is behind the others."""
    known = [item.progress for item in obs.reports.values() if item.progress is not None]
    loading = [item for item in known if item.stage in (LoadStage.PULLING, LoadStage.LOADING)]
    return min(loading, key=lambda item: (item.stage is LoadStage.LOADING, item.bytes_done or 0), default=None)
