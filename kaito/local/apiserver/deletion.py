"""Graceful deletion: which state an object takes when somebody asks for its removal.

In: the object, the options of the request, the time. Out: one verdict: remove it now, keep it with these
metadata (a deletion time, a finalizer of the garbage collector), or leave it as it is because its deletion is
already under way. Pods on a node wait for their node agent; finalizers hold anything. Pure.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from kaito.local.apiserver.errors import bad_request
from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = ["DeleteOptions", "Verdict", "decide", "is_finished", "rfc3339"]

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
_POLICIES = ("Orphan", "Background", "Foreground")


def rfc3339(moment: dt.datetime) -> str:
    """A time as object metadata carries it: UTC, whole seconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class DeleteOptions:
    """What the caller asked for; None means the default."""

    grace_seconds: int | None = None
    propagation: str = ""
    orphan: bool | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def parse(cls, body: Obj) -> DeleteOptions:
        """Read a ``DeleteOptions`` body.

        Raises:
            StatusError: 400 for values that cannot be.
        """
        preconditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds")
        options = cls(
            grace_seconds=grace if isinstance(grace, int) else None,
            propagation=str(body.get("propagationPolicy") or ""),
            orphan=body.get("orphanDependents"),
            uid=str(preconditions.get("uid") or ""),
            resource_version=str(preconditions.get("resourceVersion") or ""),
            dry_run=bool(body.get("dryRun")),
        )
        options.check()
        return options

    def render(self) -> Obj:
        """The object that admission webhooks see."""
        preconditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        values: Obj = {
            "gracePeriodSeconds": self.grace_seconds,
            "propagationPolicy": self.propagation or None,
            "orphanDependents": self.orphan,
            "preconditions": {key: value for key, value in preconditions.items() if value} or None,
            "dryRun": ["All"] if self.dry_run else None,
        }
        kind = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        return kind | {key: value for key, value in values.items() if value is not None}

    def check(self) -> None:
        """Refuse contradictions."""
        if self.propagation and self.propagation not in _POLICIES:
            raise bad_request(f'invalid DeleteOptions: propagationPolicy: Unsupported value: "{self.propagation}"')
        if self.propagation and self.orphan is not None:
            raise bad_request("orphanDependents and deletionPropagation cannot be both set")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``obj`` is the new state to keep, or None; ``remove`` says that the object goes now."""

    obj: Obj | None
    remove: bool


def is_finished(obj: Obj) -> bool:
    """Whether nothing holds a deleted object any more."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not meta.get("deletionGracePeriodSeconds")


def decide(resource: ResourceType, obj: Obj, options: DeleteOptions, now: dt.datetime) -> Verdict:
    """What a delete request does to ``obj``, a copy that may be changed."""
    meta = obj["metadata"]
    changed = _collector_finalizers(resource, meta, options)
    grace = _grace(resource, obj, options)
    holds = bool(meta.get("finalizers")) or (
        resource.kind == "Namespace" and not resource.group and bool((obj.get("spec") or {}).get("finalizers"))
    )
    if not grace and not holds:
        return Verdict(obj if changed else None, remove=True)
    if meta.get("deletionTimestamp"):
        return _again(obj, grace, now, changed)
    meta["deletionTimestamp"] = rfc3339(now + dt.timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1
    if resource.kind == "Namespace" and not resource.group:
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return Verdict(obj, remove=False)


def _again(obj: Obj, grace: int, now: dt.datetime, changed: bool) -> Verdict:
    """A second delete can only shorten the grace period."""
    meta = obj["metadata"]
    before = int(meta.get("deletionGracePeriodSeconds") or 0)
    if grace < before:
        started = dt.datetime.fromisoformat(meta["deletionTimestamp"]) - dt.timedelta(seconds=before)
        meta["deletionTimestamp"] = rfc3339(max(started + dt.timedelta(seconds=grace), now) if grace else now)
        meta["deletionGracePeriodSeconds"] = grace
        changed = True
    return Verdict(obj if changed else None, remove=False)


def _grace(resource: ResourceType, obj: Obj, options: DeleteOptions) -> int:
    if resource.kind != "Pod" or resource.group:
        return 0
    spec = obj.get("spec") or {}
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
        return 0
    if options.grace_seconds is not None:
        return max(options.grace_seconds, 1) if options.grace_seconds < 0 else options.grace_seconds
    return int(spec.get("terminationGracePeriodSeconds") or 0)


def _collector_finalizers(resource: ResourceType, meta: Obj, options: DeleteOptions) -> bool:
    """Add or remove the garbage collector's finalizers as the propagation policy wants."""
    before: list[str] = list(meta.get("finalizers") or [])
    kept = [name for name in before if name not in (_FOREGROUND, _ORPHAN)]
    policy = options.propagation
    if not policy and options.orphan is not None:
        policy = "Orphan" if options.orphan else "Background"
    if not policy:
        if _ORPHAN in before or _FOREGROUND in before:
            return False
        # Jobs of batch/v1 leave their pods behind unless told otherwise; kubectl always tells
        policy = "Orphan" if (resource.group, resource.kind) == ("batch", "Job") else "Background"
    if policy == "Orphan":
        kept.append(_ORPHAN)
    elif policy == "Foreground":
        kept.append(_FOREGROUND)
    if kept == before or sorted(kept) == sorted(before):
        return False
    if kept:
        meta["finalizers"] = kept
    else:
        meta.pop("finalizers", None)
    return True
