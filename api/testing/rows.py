"""Tables of admission rules: what keeps a rule, what breaks it, and the worlds that rules look at.

In: Workspaces made by ``api.testing``. Out: rows, and ``check``, which holds one against ``judge``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

from api.model import Obj
from api.testing import inference, with_resource
from api.validation import DEFAULT, Switches, World, judge

BYO: Final = Switches(node_auto_provisioning=False)
"""Nodes are brought along."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule. Each of ``passes`` is admitted, each of ``breaks`` is refused with its fragment and path."""

    rule: str
    passes: tuple[Obj, ...]
    breaks: tuple[tuple[Obj, str, str], ...]
    switches: Switches = DEFAULT
    world: World = field(default_factory=World)
    elsewhere: World | None = None  # the world of ``breaks``, where it is another


def private(name: str, sku: str, image: str | None = "example.com/llama:1") -> Obj:
    """A preset whose image the user supplies."""
    preset: Obj = {"name": name, "accessMode": "private"}
    if image:
        preset["presetOptions"] = {"image": image}
    return inference(sku=sku) | {"inference": {"preset": preset}}


def node(product: str = "A100", count: str = "1", memory: str = "81920", **other: str) -> Obj:
    """A node with the labels of NVIDIA's feature discovery; an empty value leaves a label out."""
    labels = {"product": product, "count": count, "memory": memory}
    written = {f"nvidia.com/gpu.{key}": value for key, value in labels.items() if value}
    return {"metadata": {"name": "n", "labels": {**written, **other}}}


def config_map(key: str, text: str) -> World:
    """A world with one ConfigMap, named settings."""
    return World(config_maps={"settings": {"data": {key: text}}})


def engine(text: str) -> World:
    return config_map("inference_config.yaml", text)


def training(text: str) -> World:
    return config_map("training_config.yaml", f"training_config:\n{text}")


def with_label(key: str, value: str = "x") -> Obj:
    return with_resource(inference(), labelSelector={"matchLabels": {key: value}})


def named(name: str) -> Obj:
    return inference() | {"metadata": {"name": name}}


def part(**fields: Any) -> Obj:
    return with_resource(inference(sku=None), partition=fields)


def check(row: Row) -> None:
    """Hold the row against the rules. Raises AssertionError where it does not stand."""
    for obj in row.passes:
        assert judge(obj, switches=row.switches, world=row.world).violations == (), obj  # noqa: S101
    for obj, fragment, path in row.breaks:
        before = copy.deepcopy(obj)
        verdict = judge(obj, switches=row.switches, world=row.elsewhere or row.world)
        found = {(item.path, str(item)) for item in verdict.violations}
        told = any(fragment in text and (where == path or not path) for where, text in found)
        assert told, (fragment, found)  # noqa: S101
        assert all(item.hint for item in verdict.violations), found  # noqa: S101 - what to do instead
        assert verdict.warnings == ()  # noqa: S101
        assert obj == before  # noqa: S101
