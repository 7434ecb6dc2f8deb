"""The rules for the nodes of a new Workspace: how many, which type, which labels, which part of their GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from api.catalog import find_preset, sku, skus, suggest_skus
from api.quantity import GIB, render_gib
from api.v1alpha1 import LabelSelector, Workspace
from api.v1alpha1.workspace import Partition, PartitionMode
from api.validation.rules import is_label_key, is_label_value, is_reserved_label, nearest, shown
from api.validation.switches import Switches
from api.validation.violation import Violation

# An instance type that the catalogue does not know may still be one of Azure's: it has many.
UNKNOWN_SKU_PREFIXES: Final = ("Standard_N", "Standard_D")
_PATH: Final = "resource.instanceType"
_PREFIX: Final = "Standard_"
_LONGEST_NAME: Final = 100
_MOST_LABELS: Final = 64

# Upstream's table: every profile without extras (+me) of the GPUs from A30 to B200.
MIG_PROFILES: Final = frozenset(
    [
        "1g.6gb",
        "2g.12gb",
        "4g.24gb",
        "1g.5gb",
        "2g.10gb",
        "3g.20gb",
        "4g.20gb",
        "7g.40gb",
        "1g.10gb",
        "1g.20gb",
        "2g.20gb",
        "3g.40gb",
        "4g.40gb",
        "7g.80gb",
        "1g.12gb",
        "1g.24gb",
        "2g.24gb",
        "3g.47gb",
        "4g.47gb",
        "7g.94gb",
        "3g.48gb",
        "4g.48gb",
        "7g.96gb",
        "1g.18gb",
        "1g.35gb",
        "2g.35gb",
        "3g.71gb",
        "4g.71gb",
        "7g.141gb",
        "1g.23gb",
        "1g.45gb",
        "2g.45gb",
        "3g.90gb",
        "4g.90gb",
        "7g.180gb",
    ]
)
_PROFILE: Final = re.compile(r"[1-9]g\.([0-9]{1,3})gb")


def rules(ws: Workspace, switches: Switches) -> Iterator[Violation]:
    """What is wrong with ``resource``."""
    count = ws.resource.count
    if count is not None and count < 1:
        yield Violation("resource.count", f"{count} nodes cannot run anything", "write 1 or more")
    yield from _selector(ws.resource.label_selector, switches)
    yield from _instance_type(ws.resource.instance_type or "", switches)
    if ws.resource.partition is not None:
        yield from _partition(ws, ws.resource.partition, switches)


def _selector(selector: LabelSelector, switches: Switches) -> Iterator[Violation]:
    labels = selector.as_labels()
    if labels is None:
        yield Violation(
            "resource.labelSelector",
            "invalid labelSelector: new nodes get these labels, so it must be a plain set of labels",
            "use matchLabels",
        )
        return
    if len(labels) > _MOST_LABELS:
        what = f"invalid labelSelector: {len(labels)} labels are more than a node should bear"
        yield Violation("resource.labelSelector", what, f"use {_MOST_LABELS} at most")
        return
    for key, value in labels.items():
        wrong = "value" if is_label_key(key) else "key"
        if wrong == "key" or not is_label_value(value):
            yield Violation(
                "resource.labelSelector",
                f"invalid labelSelector: {shown(value if wrong == 'value' else key)} cannot be a label's {wrong}",
                "labels have 63 letters, digits, hyphens, underscores and dots at most",
            )
    if switches.require_own_label and all(map(is_reserved_label, labels)):
        yield Violation(
            "resource.labelSelector",
            "matchLabels must contain at least one non-reserved label",
            "add a label of your own, for example apps: my-model",
        )


def _instance_type(name: str, switches: Switches) -> Iterator[Violation]:
    if not switches.node_auto_provisioning:
        if name:
            yield Violation(
                _PATH,
                f"{shown(name)}: instanceType must be empty where node auto-provisioning is disabled",
                "remove it; the label selector finds the nodes",
            )
        return
    if not name:
        if switches.require_instance_type:
            yield Violation(
                _PATH, "instanceType is required where nodes are provisioned", "`kaito skus` lists types"
            )
        return
    known = sku(name)
    if known is not None:
        if switches.exact_case and known.instance_type != name:
            yield Violation(
                _PATH, f"Unsupported instance type {name}: spelling counts", f"write {known.instance_type}"
            )
    elif switches.cloud != "azure" or not name.startswith(UNKNOWN_SKU_PREFIXES):
        yield unknown_sku(name)


def unknown_sku(name: str) -> Violation:
    """The violation for an instance type that does not exist, with the nearest names."""
    near = nearest_sku(name)
    hint = f"did you mean {near}?" if near else "`kaito skus` lists those that are known"
    if not near and not name.startswith(_PREFIX):
        hint = "Azure's GPU types begin with Standard_N, for example Standard_NC24ads_A100_v4"
    return Violation(_PATH, f"Unsupported instance type {shown(name)}", hint)


def nearest_sku(name: str) -> str | None:
    """The known instance type that was probably meant. The prefix that all have in common says nothing."""
    if not name.startswith(_PREFIX):
        near = suggest_skus(name, 1) if len(name) <= _LONGEST_NAME else ()
        return near[0] if near else None
    rest = (item.instance_type.removeprefix(_PREFIX) for item in skus() if item.instance_type.startswith(_PREFIX))
    found = nearest(name.removeprefix(_PREFIX), rest)
    return f"{_PREFIX}{found}" if found else None


# ------------------------------------------------------------------------------ parts of GPUs


def _partition(ws: Workspace, part: Partition, switches: Switches) -> Iterator[Violation]:
    path = "resource.partition"
    if ws.tuning is not None:
        yield Violation(path, "partition is not supported for tuning", "remove it")
    if switches.node_auto_provisioning:
        yield Violation(
            path,
            "partition needs nodes that are brought along: node auto-provisioning is enabled",
            "remove it, or run the operator with --admission-rules=node-auto-provisioning=false",
        )
    gate = {PartitionMode.MIG: switches.mig, PartitionMode.ACCELERATOR: switches.accelerator}[part.mode]
    if not gate:
        yield Violation(
            f"{path}.mode",
            f"partition mode {part.mode} is disabled",
            f"run the operator with --admission-rules={part.mode}=true",
        )
    if part.mode is PartitionMode.MIG:
        yield from _mig(ws, part, path)
    else:
        yield from _accelerator(part, path)


def _mig(ws: Workspace, part: Partition, path: str) -> Iterator[Violation]:
    if part.count is not None:
        yield Violation(f"{path}.count", "count is for mode accelerator only", "remove it")
    if part.profile not in MIG_PROFILES:
        what = (
            "profile is required with mode mig" if not part.profile else f"unknown MIG profile {part.profile[:40]}"
        )
        hint = "write one of `nvidia-smi mig -lgip` without extras, for example 3g.40gb"
        yield Violation(f"{path}.profile", what, hint)
        return
    preset = find_preset(ws.preset.name) if ws.preset else None
    size = slice_bytes(part.profile or "")
    if preset is not None and preset.weights_bytes is not None and preset.weights_bytes > size:
        yield Violation(
            f"{path}.profile",
            f"{preset.name} has {render_gib(preset.weights_bytes)} of weights, which "
            f"exceeds the {part.profile} MIG slice",
            "choose a larger profile or a smaller model",
        )


def slice_bytes(profile: str) -> int:
    """The memory of a MIG slice; 0 for what is no profile."""
    match = _PROFILE.fullmatch(profile)
    return int(match.group(1)) * GIB if match else 0


def _accelerator(part: Partition, path: str) -> Iterator[Violation]:
    if part.profile:
        yield Violation(f"{path}.profile", "profile is for mode mig only", "remove it")
    if part.count is None or part.count < 1:
        yield Violation(f"{path}.count", "count must be 1 or more with mode accelerator", "write count: 1")
