"""The rules for a Workspace's name and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from api import keys
from api.v1alpha1 import Workspace
from api.validation.rules import is_dns_label, shown
from api.validation.switches import Switches
from api.validation.violation import Violation

TRANSFORMERS: Final = "transformers"
VLLM: Final = "vllm"

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    keys.NODE_IMAGE_FAMILY: ("azurelinux", "ubuntu"),
    keys.PERFORMANCE_MODE: ("balanced", "interactivity", "throughput"),
    keys.USE_LOCAL_WEIGHTS: ("true", "false"),
    keys.NODE_PROVISIONING: (keys.PROVISION_AUTO, keys.PROVISION_NEVER, keys.PROVISION_ALWAYS),
    keys.CAPACITY_TYPE: (keys.ON_DEMAND, keys.SPOT),
    keys.UPGRADE: ("true", "false"),
}


def rules(ws: Workspace, switches: Switches) -> Iterator[Violation]:
    """What is wrong with name and annotations."""
    if ws.name and not is_dns_label(ws.name):
        yield Violation(
            "metadata.name",
            f"{shown(ws.name)} is not a DNS-1123 label, and the Service gets this name",
            "use lower-case letters, digits and hyphens, 63 at most, and begin and end with a letter or digit",
        )
    choices: dict[str, tuple[str, ...]] = dict(_CHOICES)
    if switches.node_classes:
        choices[keys.NODE_CLASS_NAME] = switches.node_classes
    for key, allowed in choices.items():
        value = ws.metadata.annotations.get(key)
        if value is not None and value not in allowed:
            yield Violation(
                f"metadata.annotations[{key}]",
                f"{shown(value)} is not a value of this annotation",
                f"write {' or '.join(allowed)}",
            )


def runtime(ws: Workspace) -> str:
    """The runtime that the annotation asks for; vllm where it asks for none that there is."""
    asked = ws.metadata.annotations.get(keys.RUNTIME, "").lower()
    return TRANSFORMERS if asked == TRANSFORMERS else VLLM


def bypasses(ws: Workspace) -> bool:
    """Whether the user takes memory checks as advice."""
    return keys.BYPASS_RESOURCE_CHECKS in ws.metadata.annotations
