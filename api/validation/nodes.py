"""The rules about nodes that a user brings along: there are some, their GPUs are known, alike, and large enough.

In: the nodes that the label selector matches, by their labels, which NVIDIA's feature discovery writes. Nothing is
said while nobody looked, nor where the operator makes the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api import keys
from api.catalog import Preset
from api.model import Obj
from api.quantity import render_gib
from api.validation.rules import mapping, shown
from api.validation.violation import Violation

_MIB: Final = 1024**2
_PATH: Final = "resource.labelSelector"
_HINT: Final = "install NVIDIA's GPU feature discovery, or label the nodes by hand"


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """What the labels of a node say. Memory in bytes, of one GPU."""

    product: str
    count: int
    memory: int


def rules(nodes: Sequence[Obj]) -> Iterator[Violation]:
    """What is wrong with these nodes."""
    if not nodes:
        yield Violation(
            _PATH, "No nodes found matching the specified label selector", "label the nodes that are to be used"
        )
        return
    found: list[NodeGpus] = []
    for node in nodes:
        gpus = gpus_of(node)
        if isinstance(gpus, str):
            name = (mapping(node.get("metadata")) or {}).get("name", "")
            yield Violation(_PATH, f"Failed to get GPU config from nvidia labels of node {name}: {gpus}", _HINT)
        else:
            found.append(gpus)
    for what in ("product", "count", "memory"):
        values = sorted({str(getattr(item, what)) for item in found})
        if len(values) > 1:
            listed = ", ".join(values[:5])
            yield Violation(_PATH, f"Non-uniform GPU {what}: {listed}", "select nodes that are alike")
            return


def too_small(preset: Preset, nodes: Sequence[Obj], count: int | None) -> str | None:
    """Why the weights do not fit on so many of these nodes, or None."""
    gpus = gpus_of(nodes[0]) if nodes else ""
    if isinstance(gpus, str) or preset.weights_bytes is None:
        return None
    number = count or len(nodes)
    total = number * gpus.count * gpus.memory
    if preset.weights_bytes <= total:
        return None
    return (
        f"Insufficient total GPU memory: {preset.name} has {render_gib(preset.weights_bytes)} of weights, "
        f"{number} x {gpus.count} {gpus.product} have {render_gib(total)}"
    )


def gpus_of(node: Obj) -> NodeGpus | str:
    """What a node's labels say of its GPUs, or why they say nothing."""
    labels: Mapping[str, Any] = mapping((mapping(node.get("metadata")) or {}).get("labels")) or {}
    product = str(labels.get(keys.GPU_PRODUCT_LABEL) or "")
    if not product:
        return f"{keys.GPU_PRODUCT_LABEL} is missing"
    numbers = []
    for key in (keys.GPU_COUNT_LABEL, keys.GPU_MEMORY_LABEL):
        text = str(labels.get(key) or "")
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) > 0):
            return f"{key} is {shown(text) if text else 'missing'}"
        numbers.append(int(text))
    return NodeGpus(product, numbers[0], numbers[1] * _MIB)
