"""Fields of built-in kinds that must not change once an object exists.

In: the new state after defaulting, and the state before. Out: the fields that differ and must not, in the
words of the real server. A kind without an entry may change freely. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kaito.local.apiserver.fielderrors import FieldError, forbidden, invalid
from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = ["validate_change"]

Problems = Iterator[FieldError]

_STATEFUL_SET_MUTABLE = {
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
}


def _pod_change(new: Obj, old: Obj) -> Problems:
    def fixed(spec: Obj) -> Obj:
        kept = {
            k: v for k, v in spec.items() if k not in ("tolerations", "activeDeadlineSeconds", "schedulingGates")
        }
        for field in ("containers", "initContainers"):
            if field in kept:
                kept[field] = [{k: v for k, v in c.items() if k != "image"} for c in kept[field]]
        if kept.get("terminationGracePeriodSeconds") == 1:
            kept.pop("terminationGracePeriodSeconds")
        return kept

    if fixed(new["spec"]) != fixed(old["spec"]):
        yield forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
            "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
            "(allow it to be set to 1 if it was previously negative)",
        )
    kept = new["spec"].get("tolerations") or []
    if any(toleration not in kept for toleration in old["spec"].get("tolerations") or ()):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")


def _immutable(*paths: str) -> Callable[[Obj, Obj], Problems]:
    def check(new: Obj, old: Obj) -> Problems:
        for path in paths:
            value, before = _at(new, path), _at(old, path)
            if value != before:
                yield invalid(path, value, "field is immutable")

    return check


def _at(obj: Any, path: str) -> Any:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _stateful_set_change(new: Obj, old: Obj) -> Problems:
    changed = {
        key
        for key in {*new["spec"], *old["spec"]} - _STATEFUL_SET_MUTABLE
        if new["spec"].get(key) != old["spec"].get(key)
    }
    if changed:
        yield forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
            "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
            "'minReadySeconds' are forbidden",
        )


def _job_change(new: Obj, old: Obj) -> Problems:
    suspended = bool(old["spec"].get("suspend"))  # scheduling directives of a suspended Job may change
    if not suspended and new["spec"].get("template") != old["spec"].get("template"):
        yield invalid("spec.template", new["spec"].get("template"), "field is immutable")
    yield from _immutable("spec.selector", "spec.completionMode")(new, old)
    if old["spec"].get("completionMode") != "Indexed":
        yield from _immutable("spec.completions")(new, old)


def _data_change(new: Obj, old: Obj) -> Problems:
    if old.get("immutable"):
        if not new.get("immutable"):
            yield forbidden("immutable", "field is immutable when `immutable` is set")
        if new.get("data") != old.get("data") or new.get("binaryData") != old.get("binaryData"):
            yield forbidden("data", "field is immutable when `immutable` is set")
    if new.get("type") != old.get("type"):
        yield invalid("type", new.get("type"), "field is immutable")


def _claim_change(new: Obj, old: Obj) -> Problems:
    def fixed(spec: Obj) -> Obj:
        return {k: v for k, v in spec.items() if k not in ("resources", "volumeName", "volumeAttributesClassName")}

    if fixed(new["spec"]) != fixed(old["spec"]):
        yield forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName "
            "for bound claims",
        )


_CHANGES: dict[tuple[str, str], Callable[[Obj, Obj], Problems]] = {
    ("", "Pod"): _pod_change,
    ("", "ConfigMap"): _data_change,
    ("", "Secret"): _data_change,
    ("", "PersistentVolumeClaim"): _claim_change,
    ("apps", "Deployment"): _immutable("spec.selector"),
    ("apps", "ReplicaSet"): _immutable("spec.selector"),
    ("apps", "DaemonSet"): _immutable("spec.selector"),
    ("apps", "StatefulSet"): _stateful_set_change,
    ("apps", "ControllerRevision"): _immutable("data"),
    ("batch", "Job"): _job_change,
    ("rbac.authorization.k8s.io", "RoleBinding"): _immutable("roleRef"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _immutable("roleRef"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _immutable(
        "spec.group", "spec.scope", "spec.names.plural", "spec.names.kind"
    ),
    ("storage.k8s.io", "StorageClass"): _immutable(
        "provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"
    ),
}


def validate_change(resource: ResourceType, new: Obj, old: Obj) -> list[FieldError]:
    """What a built-in kind does not allow to change."""
    check = _CHANGES.get((resource.group, resource.kind))
    return list(check(new, old)) if check else []
