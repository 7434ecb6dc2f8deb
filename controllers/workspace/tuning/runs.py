"""How a tuning run stands, read off its Job and its pod.

In: a Job and pods. Out: the pod that counts, and how its process ended last. Pure. An ended process tells more
than its exit code: its termination message is a ``TuneProgress``. A pod may be gone any moment, so the last
words are kept on the Job as an annotation; the newer of the two counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from pydantic import ValidationError

from api import keys
from api.progress import TuneProgress
from controllers.workspace.lastwords import last_line
from manager.types import Obj

FINAL_CODES: Final = (1, 2)  # of inference_server.tuning: running it again does not help until somebody acts
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        pod, uid, at: whose process it was, and when it ended.
        restarts: how often it had been started again by now.
        said: its termination message.
    """

    pod: str
    uid: str
    at: str
    exit_code: int
    restarts: int = 0
    reason: str = ""
    said: str = ""

    @property
    def final(self) -> bool:
        """Whether running it again cannot help."""
        return self.exit_code in FINAL_CODES

    @property
    def progress(self) -> TuneProgress | None:
        """What it said, where that is a progress."""
        return parsed(self.said)

    @property
    def words(self) -> str:
        """What it said, in one line for a person."""
        progress = self.progress
        if progress is not None and progress.message:
            return progress.message
        return last_line("" if progress else self.said) or self.reason or "it does not say why"

    def to_text(self) -> str:
        """As an annotation."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Out of an annotation; None where there is none that can be read."""
        try:
            value = json.loads(text)
            return replace(cls("", "", "", 0), **value)
        except (ValueError, TypeError):
            return None


def parsed(message: str) -> TuneProgress | None:
    """A termination message as a progress; None for any other text."""
    if not message.lstrip().startswith("{"):
        return None
    try:
        return TuneProgress.model_validate_json(message)
    except ValidationError:
        return None


def of_job(pod: Obj) -> bool:
    """Whether the pod is a Job's, so that it tunes and does not serve."""
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner.get("controller") and owner.get("kind") == "Job" for owner in owners)


def members(job: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The pods of this very Job."""
    uid = job["metadata"].get("uid")
    return [
        pod
        for pod in pods
        if any(
            owner.get("controller") and owner.get("uid") == uid
            for owner in pod["metadata"].get("ownerReferences") or []
        )
    ]


def pod_of(job: Obj, pods: Iterable[Obj]) -> Obj | None:
    """The pod that counts: the newest."""
    return max(
        members(job, pods),
        key=lambda pod: (str(pod["metadata"].get("creationTimestamp") or ""), str(pod["metadata"]["name"])),
        default=None,
    )


def is_over(pod: Obj) -> bool:
    """Whether none of its processes will run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def ended_of(pod: Obj) -> Ended | None:
    """How the pod's process ended last; None where none has."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        state, last = container.get("state") or {}, container.get("lastState") or {}
        ended = state.get("terminated") or last.get("terminated")
        if ended:
            return Ended(
                pod=str(pod["metadata"]["name"]),
                uid=str(pod["metadata"].get("uid") or ""),
                at=str(ended.get("finishedAt") or ""),
                exit_code=int(ended.get("exitCode") or 0),
                restarts=int(container.get("restartCount") or 0),
                reason=str(ended.get("reason") or ""),
                said=str(ended.get("message") or "")[:_LONGEST],
            )
    return None


def noted(job: Obj) -> Ended | None:
    """What is kept on the Job."""
    return Ended.from_text((job["metadata"].get("annotations") or {}).get(keys.TUNING_OUTCOME, ""))


def outcome(job: Obj, pod: Obj | None) -> Ended | None:
    """How the run ended last: by the pod, else by what is kept. A final failure that is kept stands."""
    kept, fresh = noted(job), ended_of(pod) if pod is not None else None
    if kept is not None and (fresh is None or kept.final or (fresh.uid, fresh.at) == (kept.uid, kept.at)):
        return kept
    return fresh


def verdict(job: Obj) -> str:
    """ "Complete" or "Failed" once the Job is, else empty."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            return str(condition["type"])
    return ""
