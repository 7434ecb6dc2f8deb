"""Whether a CustomResourceDefinition may be stored: names, versions, columns, scale paths.

In: a CRD, and its state before for updates. Out: the fields that are wrong, worded as the real server words
them. The schema inside has rules of its own, in :mod:`structural`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manager.types import Obj

from .fielderrors import FieldError, forbidden, invalid, not_supported, required
from .hooks.rules import validate_client
from .structural import structural_problems
from .tables.jsonpath import JsonPath

_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_1035_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_COLUMN_TYPES = ["integer", "number", "string", "boolean", "date"]
_COLUMN_FORMATS = ["int32", "int64", "float", "double", "byte", "date", "date-time", "password"]
_IMMUTABLE = ("group", "scope")


def validate_crd(crd: Obj, old: Obj | None = None) -> list[FieldError]:
    """Everything that is wrong with a CRD. ``old`` is what is stored now, for updates."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [required("spec")]
    return [
        *_names(crd, spec),
        *_conversion(spec),
        *_versions(spec),
        *_stored(crd, spec),
        *(_changes(spec, old) if old is not None else ()),
    ]


def _names(crd: Obj, spec: Obj) -> Iterator[FieldError]:
    group = str(spec.get("group") or "")
    names = spec.get("names") or {}
    plural = str(names.get("plural") or "")
    if not group:
        yield required("spec.group")
    elif not _SUBDOMAIN.fullmatch(group):
        yield invalid("spec.group", group, "a lowercase RFC 1123 subdomain is expected")
    elif "." not in group:
        yield invalid("spec.group", group, "should be a domain with at least one dot")
    if group and plural and crd.get("metadata", {}).get("name") != f"{plural}.{group}":
        name = crd.get("metadata", {}).get("name")
        yield invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    scope = spec.get("scope")
    if not scope:
        yield required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield not_supported("spec.scope", scope, ["Cluster", "Namespaced"])
    for key in ("plural", "singular", "kind", "listKind"):
        value = names.get(key)
        if not value:
            if key in ("plural", "kind"):
                yield required(f"spec.names.{key}")
        elif not _LABEL_1035.fullmatch(str(value).lower() if key in ("kind", "listKind") else str(value)):
            yield invalid(f"spec.names.{key}", value, _LABEL_1035_RULE)
    for index, short in enumerate(names.get("shortNames") or ()):
        if not _LABEL_1035.fullmatch(str(short)):
            yield invalid(f"spec.names.shortNames[{index}]", short, _LABEL_1035_RULE)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")


def _conversion(spec: Obj) -> Iterator[FieldError]:
    conversion = spec.get("conversion") or {}
    strategy = conversion.get("strategy") or "None"
    webhook = conversion.get("webhook") or {}
    if strategy not in ("None", "Webhook"):
        yield not_supported("spec.conversion.strategy", strategy, ["None", "Webhook"])
    elif strategy == "Webhook" and not webhook.get("clientConfig"):
        yield required("spec.conversion.webhookClientConfig", "required when strategy is set to Webhook")
    elif strategy == "Webhook":
        yield from validate_client(webhook["clientConfig"], "spec.conversion.webhookClientConfig")
        versions = webhook.get("conversionReviewVersions") or []
        if not any(version in ("v1", "v1beta1") for version in versions):
            rule = "must include at least one of v1, v1beta1"
            yield invalid("spec.conversion.conversionReviewVersions", versions, rule)
    elif webhook:
        yield forbidden(
            "spec.conversion.webhookClientConfig", "should not be set when strategy is not set to Webhook"
        )
    if spec.get("preserveUnknownFields"):
        yield invalid("spec.preserveUnknownFields", True, "must be false")


def _versions(spec: Obj) -> Iterator[FieldError]:
    versions = spec.get("versions") or []
    if not versions:
        yield required("spec.versions", "must have at least one version")
        return
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = str(version.get("name") or "")
        if not _LABEL_1035.fullmatch(name):
            yield invalid(f"{path}.name", name, _LABEL_1035_RULE)
        if name in seen:
            yield invalid(
                "spec.versions", [one.get("name") for one in versions], "must contain unique version names"
            )
        seen.add(name)
        yield from _version(version, path)
    if sum(bool(version.get("storage")) for version in versions) != 1:
        shown = [one.get("name") for one in versions]
        yield invalid("spec.versions", shown, "must have exactly one version marked as storage version")


def _version(version: Obj, path: str) -> Iterator[FieldError]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        yield required(f"{path}.schema.openAPIV3Schema")
    else:
        yield from structural_problems(schema, f"{path}.schema.openAPIV3Schema")
    subresources = version.get("subresources") or {}
    if subresources.get("scale") is not None:
        yield from _scale(subresources["scale"], f"{path}.subresources.scale")
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from _column(column, f"{path}.additionalPrinterColumns[{index}]")
    if version.get("deprecationWarning") and not version.get("deprecated"):
        yield invalid(
            f"{path}.deprecationWarning",
            version["deprecationWarning"],
            "can only be set for deprecated versions",
        )


def _scale(scale: Obj, path: str) -> Iterator[FieldError]:
    for key, roots in (
        ("specReplicasPath", (".spec.",)),
        ("statusReplicasPath", (".status.",)),
        ("labelSelectorPath", (".spec.", ".status.")),
    ):
        value = str(scale.get(key) or "")
        if not value:
            if key != "labelSelectorPath":
                yield required(f"{path}.{key}")
        elif not value.startswith(roots):
            wanted = " or ".join(root.rstrip(".") for root in roots)
            yield invalid(f"{path}.{key}", value, f"should be a json path under {wanted}")
        elif "[" in value:
            yield invalid(f"{path}.{key}", value, "should be a simple json path without arrays")


def _column(column: Obj, path: str) -> Iterator[FieldError]:
    if not column.get("name"):
        yield required(f"{path}.name")
    kind: Any = column.get("type")
    if not kind:
        yield required(f"{path}.type", f"must be one of {','.join(sorted(_COLUMN_TYPES))}")
    elif kind not in _COLUMN_TYPES:
        yield invalid(f"{path}.type", kind, f"must be one of {','.join(sorted(_COLUMN_TYPES))}")
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        listed = ",".join(sorted(_COLUMN_FORMATS))
        yield invalid(f"{path}.format", column["format"], f"must be one of {listed}")
    json_path = column.get("jsonPath")
    if not json_path:
        yield required(f"{path}.jsonPath")
        return
    if not str(json_path).startswith("."):
        yield invalid(f"{path}.jsonPath", json_path, "must be a simple json path starting with .")
        return
    try:
        JsonPath(str(json_path))
    except ValueError as error:
        yield invalid(f"{path}.jsonPath", json_path, str(error))


def _stored(crd: Obj, spec: Obj) -> Iterator[FieldError]:
    names = {version.get("name") for version in spec.get("versions") or ()}
    for index, stored in enumerate((crd.get("status") or {}).get("storedVersions") or ()):
        if stored not in names:
            yield invalid(f"status.storedVersions[{index}]", stored, "must appear in spec.versions")


def _changes(spec: Obj, old: Obj) -> Iterator[FieldError]:
    before = old.get("spec") or {}
    for key in _IMMUTABLE:
        if before.get(key) and spec.get(key) != before[key]:
            yield invalid(f"spec.{key}", spec.get(key), "field is immutable")
    for key in ("kind", "plural"):
        was = (before.get("names") or {}).get(key)
        now = (spec.get("names") or {}).get(key)
        if was and now != was:
            yield invalid(f"spec.names.{key}", now, "field is immutable")
