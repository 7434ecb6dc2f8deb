"""What makes the pods of a StatefulSet individuals: their names, host names and claims. Pure."""

from __future__ import annotations

import re

from manager.types import Obj

from .. import pods as p
from ..templates import REVISION_LABEL, pod_from_template

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"^(.*)-(\d+)$")


def ordinal_of(statefulset: Obj, pod: Obj) -> int | None:
    """The pod's number in the set, or None when its name is not one of the set's."""
    found = _ORDINAL.match(p.name_of(pod))
    return int(found.group(2)) if found and found.group(1) == p.name_of(statefulset) else None


def first_ordinal(statefulset: Obj) -> int:
    """``spec.ordinals.start``, usually 0."""
    return int((p.spec_of(statefulset).get("ordinals") or {}).get("start") or 0)


def claim_name(template: Obj, pod_name: str) -> str:
    """The claim of that pod for that volumeClaimTemplate."""
    return f"{p.name_of(template)}-{pod_name}"


def new_pod(statefulset: Obj, ordinal: int, template: Obj, revision: str) -> Obj:
    """The pod of that number, made from the template of that revision."""
    name = f"{p.name_of(statefulset)}-{ordinal}"
    pod = pod_from_template(template, statefulset, name=name)
    pod["metadata"]["labels"] |= {
        POD_NAME_LABEL: name,
        POD_INDEX_LABEL: str(ordinal),
        REVISION_LABEL: revision,
    }
    spec = pod["spec"]
    spec["hostname"] = name
    if service := p.spec_of(statefulset).get("serviceName"):
        spec["subdomain"] = service
    claims = p.spec_of(statefulset).get("volumeClaimTemplates") or []
    if claims:
        ours = {p.name_of(c) for c in claims}
        spec["volumes"] = [
            *(v for v in spec.get("volumes") or () if v.get("name") not in ours),
            *({"name": p.name_of(c), "persistentVolumeClaim": {"claimName": claim_name(c, name)}} for c in claims),
        ]
    return pod


def new_claims(statefulset: Obj, ordinal: int) -> list[Obj]:
    """The claims of the pod of that number. They have no owner: they outlive pod and set, on purpose."""
    selector = (p.spec_of(statefulset).get("selector") or {}).get("matchLabels") or {}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name(template, f"{p.name_of(statefulset)}-{ordinal}"),
                "namespace": p.namespace_of(statefulset),
                "labels": {**p.labels_of(template), **selector},
                **({"annotations": p.annotations_of(template)} if p.annotations_of(template) else {}),
            },
            "spec": template.get("spec") or {},
        }
        for template in p.spec_of(statefulset).get("volumeClaimTemplates") or ()
    ]
