"""The environment and the words of one container, as the pod's spec asks for them.

In: the pod (with its addresses already known), the ConfigMaps and Secrets that it names, the image's
defaults. Out: env and argv. The order and the `$(VAR)` rules are Kubernetes': envFrom first, env in order,
a reference sees what was defined before it, `$$(VAR)` is a literal, an unknown reference stays as written.
Pure: the objects are arguments.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaito.local.quantities import divide_up
from manager.types import Obj

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.\-][A-Za-z0-9_.\-]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")

# (kind, name) → object or None; kind is "ConfigMap" or "Secret"
Lookup = Callable[[str, str], Obj | None]


class ConfigMissing(Exception):
    """The container cannot be created as specified; shown as CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the downward API may be asked about."""

    pod: Obj
    pod_ip: str
    host_ip: str
    allocatable: Mapping[str, str]


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; `$$` is one dollar sign that starts no reference."""

    def one(found: re.Match[str]) -> str:
        if found[1] is None:
            return "$"
        return values.get(found[1], found[0])

    return _REFERENCE.sub(one, text)


def container_env(container: Obj, facts: PodFacts, lookup: Lookup) -> dict[str, str]:
    """The variables that the spec defines, in its order.

    Raises:
        ConfigMissing: a ConfigMap, Secret or key that is not optional is absent.
    """
    env: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix") or ""
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference := source.get(field):
                data = _data(kind, reference, lookup)
                env.update({prefix + k: v for k, v in data.items() if _NAME.fullmatch(prefix + k)})
    for variable in container.get("env") or []:
        name = variable["name"]
        source = variable.get("valueFrom")
        if source is None:
            env[name] = expand(variable.get("value") or "", env)
            continue
        value = _value_from(source, container, facts, lookup)
        if value is not None:
            env[name] = value
    return env


def words(texts: Sequence[str] | None, env: Mapping[str, str]) -> list[str]:
    """`command` or `args` with references replaced."""
    return [expand(text, env) for text in texts or []]


def field_value(path: str, facts: PodFacts) -> str:
    """A fieldRef's value.

    Raises:
        ConfigMissing: the downward API knows no such field.
    """
    pod = facts.pod
    meta, spec = pod["metadata"], pod["spec"]
    if found := _SUBSCRIPT.fullmatch(path):
        return str((meta.get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = sorted((meta.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f"{key}={_quote(value)}" for key, value in items)
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in simple:
        raise ConfigMissing(f"unsupported fieldRef {path!r}")
    return str(simple[path])


def resource_value(reference: Obj, container: Obj, facts: PodFacts) -> str:
    """A resourceFieldRef's value; a limit that is not set is what the node can give.

    Raises:
        ConfigMissing: not a resource of a container.
    """
    section, _, name = str(reference.get("resource", "")).partition(".")
    if section not in ("limits", "requests") or not name:
        raise ConfigMissing(f"unsupported resourceFieldRef {reference.get('resource')!r}")
    resources = container.get("resources") or {}
    value = (resources.get(section) or {}).get(name)
    if value is None:
        value = facts.allocatable.get(name, "0") if section == "limits" else "0"
    try:
        return str(divide_up(str(value), str(reference.get("divisor") or "1")))
    except ValueError as err:
        raise ConfigMissing(str(err)) from err


def _value_from(source: Obj, container: Obj, facts: PodFacts, lookup: Lookup) -> str | None:
    if field := source.get("fieldRef"):
        return field_value(field["fieldPath"], facts)
    if resource := source.get("resourceFieldRef"):
        return resource_value(resource, container, facts)
    for kind, key_name in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference := source.get(key_name):
            data = _data(kind, reference, lookup)
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            where = f"{kind} {facts.pod['metadata'].get('namespace', '')}/{reference['name']}"
            raise ConfigMissing(f"couldn't find key {reference['key']} in {where}")
    raise ConfigMissing(f"unsupported valueFrom {sorted(source)}")


def _data(kind: str, reference: Obj, lookup: Lookup) -> dict[str, str]:
    found = lookup(kind, reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigMissing(f'{kind.lower()} "{reference["name"]}" not found')
    return {key: value.decode(errors="replace") for key, value in object_data(kind, found).items()}


def object_data(kind: str, found: Obj) -> dict[str, bytes]:
    """The entries of a ConfigMap or Secret as bytes."""
    data: dict[str, Any] = found.get("data") or {}
    if kind == "Secret":
        return {key: _decode(value) for key, value in data.items()}
    plain = {key: str(value).encode() for key, value in data.items()}
    binary = {key: _decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return {**plain, **binary}


def _decode(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return b""


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
