"""Workspaces to vary in tests: valid ones of either half, as plain JSON.

In: what a test is about. Out: new dicts, which the caller may change.
"""

from __future__ import annotations

import copy
from typing import Any, Final

A100: Final = "Standard_NC24ads_A100_v4"


def inference(preset: str = "phi-3-mini-4k-instruct", sku: str | None = A100, **more: Any) -> dict[str, Any]:
    """A valid inference workspace, with further fields of ``inference``."""
    resource: dict[str, Any] = {"labelSelector": {"matchLabels": {"apps": "x"}}}
    if sku:
        resource["instanceType"] = sku
    return {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": "ws"},
        "resource": resource,
        "inference": {"preset": {"name": preset}, **more},
    }


def tuning(**changes: Any) -> dict[str, Any]:
    """A valid tuning workspace, with fields of ``tuning`` replaced (None removes)."""
    spec: dict[str, Any] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://example.com/a.parquet"]},
        "output": {"image": "example.com/adapters/phi:0.0.1", "imagePushSecret": "push"},
        **changes,
    }
    obj = inference()
    del obj["inference"]
    obj["tuning"] = {key: value for key, value in spec.items() if value is not None}
    return obj


def adapter(**changes: Any) -> dict[str, Any]:
    """A valid adapter with fields of its source replaced; ``strength`` goes beside the source."""
    item: dict[str, Any] = {}
    if "strength" in changes:
        item["strength"] = changes.pop("strength")
    item["source"] = {"name": "one", "image": "example.com/adapters/one:1", **changes}
    return item


def with_resource(obj: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With fields of ``resource`` replaced (None removes)."""
    merged = {**obj["resource"], **changes}
    return {**obj, "resource": {key: value for key, value in merged.items() if value is not None}}


def annotated(obj: dict[str, Any], **values: str) -> dict[str, Any]:
    """With annotations ``kaito.sh/<name>``; underscores stand for hyphens."""
    annotations = {f"kaito.sh/{name.replace('_', '-')}": value for name, value in values.items()}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def changed(obj: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field replaced; None removes it."""
    result = copy.deepcopy(obj)
    *parents, last = path.split(".")
    target = result
    for key in parents:
        target = target.setdefault(key, {})
    if value is None:
        target.pop(last, None)
    else:
        target[last] = value
    return result
