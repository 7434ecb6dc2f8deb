"""The scale subresource: a replica count seen and set without knowing the kind behind it.

In: an object with replicas somewhere, as its type's paths say. Out: an ``autoscaling/v1`` Scale, or the
object with another replica count. Pure.
"""

from __future__ import annotations

from typing import Any

from kaito.local.apiserver.errors import invalid
from kaito.local.apiserver.fielderrors import invalid as invalid_field
from kaito.local.apiserver.registry import ResourceType, ScalePaths
from manager.types import Obj

__all__ = ["scale_of", "with_replicas"]


def _get(obj: Any, path: str) -> Any:
    for part in path.strip(".").split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _paths(resource: ResourceType) -> ScalePaths:
    assert resource.scale is not None  # noqa: S101 - only reached for types that list the subresource
    return resource.scale


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, operator, values = term.get("key"), term.get("operator"), term.get("values") or []
        if operator == "Exists":
            terms.append(str(key))
        elif operator == "DoesNotExist":
            terms.append(f"!{key}")
        else:
            terms.append(f"{key} {str(operator).lower()} ({','.join(values)})")
    return ",".join(terms)


def scale_of(resource: ResourceType, obj: Obj) -> Obj:
    """The Scale of an object."""
    paths = _paths(resource)
    meta = obj["metadata"]
    fields = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Obj = {"replicas": int(_get(obj, paths.status_replicas) or 0)}
    selector_path = ".spec.selector" if not resource.is_crd else paths.label_selector
    selector = _selector_text(_get(obj, selector_path)) if selector_path else ""
    if selector:
        status["selector"] = selector
    replicas = _get(obj, paths.spec_replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: meta[field] for field in fields if field in meta},
        "spec": {"replicas": int(replicas)} if replicas is not None else {},
        "status": status,
    }


def with_replicas(resource: ResourceType, obj: Obj, scale: Obj) -> Obj:
    """``obj``, a copy that may be changed, with the replicas of ``scale``.

    Raises:
        StatusError: 422 for a negative count.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        problem = invalid_field("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("autoscaling", "Scale", obj["metadata"]["name"], [problem])
    *parents, last = _paths(resource).spec_replicas.strip(".").split(".")
    target = obj
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = replicas
    wanted = (scale.get("metadata") or {}).get("resourceVersion")
    if wanted:
        obj["metadata"]["resourceVersion"] = wanted
    else:
        obj["metadata"].pop("resourceVersion", None)
    return obj
