"""Which volume a claim gets: one that was made for it, the smallest free one that fits, or a new one.

In: a claim and all volumes. Out: the volume to bind. New ones are folders of the node (hostPath); the node agent
decides where they are. A claim whose class is the empty string asks for no new volume. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from kaito.local.quantities import parse_quantity
from manager.selectors import selector_from
from manager.types import Obj

from .. import pods as p

PROVISIONER = "kaito.sh/local"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"


def reference(claim: Obj) -> Obj:
    """The claimRef of a volume that is bound to the claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": p.namespace_of(claim),
        "name": p.name_of(claim),
        "uid": p.uid_of(claim),
    }


def is_for(volume: Obj, claim: Obj) -> bool:
    """Whether the volume is reserved for, or bound to, this claim."""
    ref = p.spec_of(volume).get("claimRef") or {}
    return (
        ref.get("namespace") == p.namespace_of(claim)
        and ref.get("name") == p.name_of(claim)
        and ref.get("uid") in (None, "", p.uid_of(claim))
    )


def choose(claim: Obj, volumes: Iterable[Obj]) -> Obj | None:
    """The volume that is there for the claim, or None."""
    wanted = str(p.spec_of(claim).get("volumeName") or "")
    present = [v for v in volumes if not p.is_terminating(v)]
    if wanted:
        named = [v for v in present if p.name_of(v) == wanted]
        return next((v for v in named if not p.spec_of(v).get("claimRef") or is_for(v, claim)), None)
    mine = [v for v in present if is_for(v, claim)]
    if mine:
        return mine[0]
    free = [v for v in present if not p.spec_of(v).get("claimRef") and _fits(claim, v)]
    return min(free, key=lambda v: (_capacity(v), p.name_of(v)), default=None)


def may_provision(claim: Obj) -> bool:
    """Whether a new volume may be made for the claim."""
    spec = p.spec_of(claim)
    return not spec.get("volumeName") and spec.get("storageClassName") != ""


def new_volume(claim: Obj) -> Obj:
    """A folder of the node's disk, named after the claim's uid, removed with the claim."""
    spec = p.spec_of(claim)
    name = f"pvc-{p.uid_of(claim)}"
    volume: Obj = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "capacity": dict((spec.get("resources") or {}).get("requests") or {"storage": "1Gi"}),
            "claimRef": reference(claim),
            "hostPath": {"path": f"/var/lib/kaito/volumes/{name}", "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": "Delete",
            "volumeMode": spec.get("volumeMode") or "Filesystem",
        },
    }
    if spec.get("storageClassName"):
        volume["spec"]["storageClassName"] = spec["storageClassName"]
    return volume


def _capacity(volume: Obj) -> Fraction:
    return parse_quantity((p.spec_of(volume).get("capacity") or {}).get("storage", 0))


def _fits(claim: Obj, volume: Obj) -> bool:
    want, have = p.spec_of(claim), p.spec_of(volume)
    size = parse_quantity(((want.get("resources") or {}).get("requests") or {}).get("storage", 0))
    selector = want.get("selector")
    return (
        (want.get("storageClassName") or "") == (have.get("storageClassName") or "")
        and set(want.get("accessModes") or ()) <= set(have.get("accessModes") or ())
        and (want.get("volumeMode") or "Filesystem") == (have.get("volumeMode") or "Filesystem")
        and _capacity(volume) >= size
        and (selector is None or selector_from(selector).matches(p.labels_of(volume)))
    )
