"""What a schema cannot say about built-in kinds: names, uniqueness, references inside an object.

In: an object after defaulting. Out: the fields that are wrong, in the words of the real server. Custom
resources get the metadata rules only; theirs is the schema. What must not change is in :mod:`immutability`.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from kaito.local.apiserver.fielderrors import FieldError, duplicate, invalid, not_supported, required
from kaito.local.apiserver.hooks.rules import validate_configuration
from kaito.local.apiserver.registry import ResourceType
from manager.types import Obj

__all__ = ["validate_metadata", "validate_new"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_QUALIFIED_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_MAX_ANNOTATIONS = 256 * 1024
_MAX_DATA = 1024 * 1024
_FREE_NAMES = {"rbac.authorization.k8s.io"}  # path segments: 'system:node' is a name there
_LABEL_NAMES = {"namespaces"}
_LABEL_1035_NAMES = {"services"}

Problems = Iterator[FieldError]


def _name_problem(resource: ResourceType, name: str) -> tuple[str, str] | None:
    if resource.group in _FREE_NAMES:
        bad = name in (".", "..") or "/" in name or "%" in name
        return (name, "may not be '.' or '..', nor contain '/' or '%'") if bad else None
    if resource.plural in _LABEL_NAMES and not resource.is_crd:
        pattern, rule, limit = _LABEL, _LABEL_RULE, 63
    elif resource.plural in _LABEL_1035_NAMES and not resource.group:
        pattern, rule, limit = _LABEL_1035, _LABEL_1035_RULE, 63
    else:
        pattern, rule, limit = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    if len(name) > limit:
        return name, f"must be no more than {limit} characters"
    return None if pattern.fullmatch(name) else (name, rule)


def validate_metadata(resource: ResourceType, obj: Obj) -> list[FieldError]:
    """Names, labels, annotations, owners, finalizers."""
    return list(_metadata(resource, obj))


def _metadata(resource: ResourceType, obj: Obj) -> Problems:
    meta = obj["metadata"]
    name = meta.get("name")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        problem = _name_problem(resource, name)
        if problem:
            yield invalid("metadata.name", *problem)
    yield from _labels(meta.get("labels") or {}, "metadata.labels")
    size = 0
    for key, value in (meta.get("annotations") or {}).items():
        yield from _qualified("metadata.annotations", key.lower())
        size += len(key) + len(value)
    if size > _MAX_ANNOTATIONS:
        yield FieldError(
            "metadata.annotations", "FieldValueTooLong", f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        )
    controllers = 0
    for index, owner in enumerate(meta.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                yield invalid(f"metadata.ownerReferences[{index}].{field}", "", f"{field} must not be empty")
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        yield invalid(
            "metadata.ownerReferences",
            meta["ownerReferences"],
            "Only one reference can have Controller set to true",
        )
    for finalizer in meta.get("finalizers") or ():
        yield from _qualified("metadata.finalizers", finalizer)
        if (
            "/" not in finalizer
            and finalizer not in ("orphan", "foregroundDeletion", "kubernetes")
            and (not resource.is_crd and not finalizer.count("."))
        ):
            yield invalid(
                "metadata.finalizers[0]",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )


def _qualified(path: str, key: str) -> Problems:
    prefix, _, name = key.rpartition("/")
    if "/" in key and not (prefix and len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix)):
        yield invalid(path, key, f"prefix part {_SUBDOMAIN_RULE}")
    if not name:
        yield invalid(path, key, "name part must be non-empty")
    elif len(name) > 63:
        yield invalid(path, key, "name part must be no more than 63 bytes")
    elif not _QUALIFIED.fullmatch(name):
        yield invalid(path, key, _QUALIFIED_RULE)


def _labels(labels: dict[str, Any], path: str) -> Problems:
    for key, value in labels.items():
        yield from _qualified(path, key)
        if not isinstance(value, str):
            continue  # a matter of the schema
        if len(value) > 63:
            yield invalid(path, value, "must be no more than 63 bytes")
        elif value and not _QUALIFIED.fullmatch(value):
            yield invalid(path, value, _LABEL_VALUE_RULE)


# ---------------------------------------------------------------------- pods and their templates


def _pod_spec(spec: Obj, path: str, policies: tuple[str, ...]) -> Problems:
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        name = str(volume.get("name") or "")
        here = f"{path}.volumes[{index}].name"
        if not name:
            yield required(here)
        elif not _LABEL.fullmatch(name) or len(name) > 63:
            yield invalid(here, name, _LABEL_RULE)
        elif name in volumes:
            yield duplicate(here, name)
        volumes.add(name)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield from _container(container, f"{path}.{field}[{index}]", names, volumes)
    policy = spec.get("restartPolicy")
    if policy not in policies:
        yield not_supported(f"{path}.restartPolicy", policy, list(policies))


def _container(container: Obj, path: str, names: set[str], volumes: set[str]) -> Problems:
    name = str(container.get("name") or "")
    if not name:
        yield required(f"{path}.name")
    elif not _LABEL.fullmatch(name) or len(name) > 63:
        yield invalid(f"{path}.name", name, _LABEL_RULE)
    elif name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)
    if not container.get("image"):
        yield required(f"{path}.image")
    mounts: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            here = f"{path}.volumeMounts[{index}].name"
            yield FieldError(here, "FieldValueNotFound", f'Not found: "{mount.get("name")}"')
        if mount.get("mountPath") in mounts:
            yield invalid(f"{path}.volumeMounts[{index}].mountPath", mount["mountPath"], "must be unique")
        mounts.add(mount.get("mountPath"))
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 65536:
            yield invalid(f"{path}.ports[{index}].containerPort", number, "must be between 1 and 65535, inclusive")
    resources = container.get("resources") or {}
    for kind, quantity in (resources.get("requests") or {}).items():
        limit = (resources.get("limits") or {}).get(kind)
        if "/" in kind and limit is None:
            yield required(f"{path}.resources.limits", "Limit must be set for non overcommitable resources")
        elif "/" in kind and str(limit) != str(quantity):
            yield invalid(f"{path}.resources.requests", str(quantity), f"must be equal to {kind} limit of {limit}")


def _pod(obj: Obj) -> Problems:
    yield from _pod_spec(obj["spec"], "spec", ("Always", "OnFailure", "Never"))


def _workload(obj: Obj) -> Problems:
    spec = obj["spec"]
    yield from _template(spec, ("Always",))
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        yield invalid("spec.replicas", replicas, "must be greater than or equal to 0")
    selector = spec.get("selector")
    if not selector:
        yield required("spec.selector")
        return
    if isinstance(selector, dict) and "matchLabels" in selector:
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        wanted = selector.get("matchLabels") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            yield invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _template(spec: Obj, policies: tuple[str, ...]) -> Problems:
    template = spec.get("template") or {}
    yield from _labels((template.get("metadata") or {}).get("labels") or {}, "spec.template.labels")
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec", policies)


def _job(obj: Obj) -> Problems:
    spec = obj["spec"]
    policies: tuple[str, ...] = ("OnFailure", "Never")
    policy = (spec["template"].get("spec") or {}).get("restartPolicy")
    if policy == "Always":
        yield required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
        policies = ("Always",)  # already said
    yield from _template(spec, policies)


def _cron_job(obj: Obj) -> Problems:
    if not obj["spec"].get("schedule"):
        yield required("spec.schedule")
    for problem in _job({"spec": (obj["spec"].get("jobTemplate") or {}).get("spec") or {"template": {}}}):
        yield FieldError(f"spec.jobTemplate.{problem.path}", problem.type, problem.message)


# ---------------------------------------------------------------------- services and data


def _service(obj: Obj) -> Problems:
    spec = obj["spec"]
    kind = spec.get("type")
    if kind not in ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"):
        yield not_supported("spec.type", kind, ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])
    if kind == "ExternalName":
        if not spec.get("externalName"):
            yield required("spec.externalName")
        return
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = str(port.get("name") or "")
        if not name and len(ports) > 1:
            yield required(f"{here}.name")
        elif name and (not _LABEL.fullmatch(name) or len(name) > 63):
            yield invalid(f"{here}.name", name, _LABEL_RULE)
        elif name and name in names:
            yield duplicate(f"{here}.name", name)
        names.add(name)
        number = port.get("port")
        if not isinstance(number, int) or not 0 < number < 65536:
            yield invalid(f"{here}.port", number, "must be between 1 and 65535, inclusive")
            continue
        key = (str(port.get("protocol")), number)
        if key in numbers:
            yield duplicate(here, {"protocol": key[0], "port": number})
        numbers.add(key)


def _data(obj: Obj) -> Problems:
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (obj.get(field) or {}).items():
            size += len(str(value))
            if not _DATA_KEY.fullmatch(key) or len(key) > 253:
                rule = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                yield invalid(f"{field}[{key}]", key, rule)
    if size > _MAX_DATA * (4 / 3 if obj.get("kind") == "Secret" else 1):
        yield FieldError("", "FieldValueTooLong", f"Too long: may not be more than {_MAX_DATA} bytes")


_NEW: dict[tuple[str, str], Callable[[Obj], Problems]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "ConfigMap"): _data,
    ("", "Secret"): _data,
    ("", "ReplicationController"): _workload,
    ("apps", "Deployment"): _workload,
    ("apps", "ReplicaSet"): _workload,
    ("apps", "StatefulSet"): _workload,
    ("apps", "DaemonSet"): _workload,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): validate_configuration,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): validate_configuration,
}


def validate_new(resource: ResourceType, obj: Obj) -> list[FieldError]:
    """The rules of a built-in kind that hold at any time."""
    check = _NEW.get((resource.group, resource.kind))
    return list(check(obj)) if check else []
