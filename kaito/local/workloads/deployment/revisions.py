"""Which ReplicaSet is the new one, what number it has, and what its annotations must say.

`kubectl rollout history` and `undo` read exactly this: ``deployment.kubernetes.io/revision`` on each
ReplicaSet and on the Deployment. Going back to an old template finds its old ReplicaSet again and gives it the
next number. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from manager.meta import owner_reference
from manager.types import Obj

from .. import pods as p
from ..intstr import surge_and_unavailable
from ..replicaset.decide import wanted
from ..templates import HASH_LABEL, same_template, template_hash, with_label

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
_HISTORY_LIMIT = 2000  # characters, so that a Deployment that flips for years stays writable


def by_creation(replicasets: Sequence[Obj]) -> list[Obj]:
    """Oldest first; equal times by name."""
    return sorted(replicasets, key=lambda rs: (str(p.meta_of(rs).get("creationTimestamp", "")), p.name_of(rs)))


def find_new(deployment: Obj, replicasets: Sequence[Obj]) -> Obj | None:
    """The ReplicaSet of the Deployment's present template; of several, the oldest."""
    template = p.spec_of(deployment).get("template") or {}
    for replicaset in by_creation(replicasets):
        if same_template(p.spec_of(replicaset).get("template") or {}, template):
            return replicaset
    return None


def revision_of(obj: Obj) -> int:
    """The revision that the annotation states; 0 when it states none."""
    text = p.annotations_of(obj).get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def limits(deployment: Obj) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers of pods; Recreate has no surge."""
    strategy = p.spec_of(deployment).get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    return surge_and_unavailable(
        rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%"), wanted(deployment)
    )


def max_unavailable(deployment: Obj) -> int:
    """How many may be missing; never more than there are, and none without replicas."""
    return min(limits(deployment)[1], wanted(deployment))


def size_annotations(deployment: Obj) -> dict[str, str]:
    """What a ReplicaSet remembers of the Deployment's size when it was last scaled."""
    desired = wanted(deployment)
    return {DESIRED: str(desired), MAXIMUM: str(desired + limits(deployment)[0])}


def wanted_annotations(deployment: Obj, replicaset: Obj | None, revision: int) -> dict[str, str]:
    """The annotations that the new ReplicaSet must carry, in addition to its own."""
    annotations = {k: v for k, v in p.annotations_of(deployment).items() if k not in _NOT_COPIED}
    if replicaset is None:
        return {**annotations, REVISION: str(revision), **size_annotations(deployment)}
    old = revision_of(replicaset)
    if old < revision:
        annotations[REVISION] = str(revision)
        if old:
            history = [*filter(None, p.annotations_of(replicaset).get(HISTORY, "").split(",")), str(old)]
            while len(",".join(history)) > _HISTORY_LIMIT:
                history.pop(0)
            annotations[HISTORY] = ",".join(history)
    return annotations


def new_replicaset(deployment: Obj, replicas: int, revision: int) -> Obj:
    """The ReplicaSet to create for the present template; its name follows from the template alone."""
    spec = p.spec_of(deployment)
    template = spec.get("template") or {}
    code = template_hash(template, int(p.status_of(deployment).get("collisionCount") or 0))
    labelled = with_label(template, HASH_LABEL, code)
    selector = spec.get("selector") or {}
    rs_spec: Obj = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: code}},
        "template": labelled,
    }
    if spec.get("minReadySeconds"):
        rs_spec["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{p.name_of(deployment)}-{code}",
            "namespace": p.namespace_of(deployment),
            "labels": dict(labelled["metadata"]["labels"]),
            "annotations": wanted_annotations(deployment, None, revision),
            "ownerReferences": [owner_reference(deployment, controller=True)],
        },
        "spec": rs_spec,
    }


def superseded(deployment: Obj, old: Sequence[Obj]) -> list[Obj]:
    """Empty old ReplicaSets beyond ``revisionHistoryLimit``, oldest revision first."""
    limit = p.spec_of(deployment).get("revisionHistoryLimit")
    keep = 10 if limit is None else int(limit)
    # Those in use or on their way out are not counted as removable, yet they count as history.
    living = [rs for rs in old if not p.is_terminating(rs)]
    surplus = sorted(living, key=lambda rs: (revision_of(rs), p.name_of(rs)))[: max(0, len(living) - keep)]
    return [
        rs
        for rs in surplus
        if wanted(rs) == 0
        and not p.status_of(rs).get("replicas")
        and int(p.status_of(rs).get("observedGeneration") or 0) >= int(p.meta_of(rs).get("generation") or 0)
    ]
