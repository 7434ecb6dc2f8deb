"""``kaito.sh/v1alpha1``: the Workspace, which turns a short manifest into a running model endpoint.

There is no ``spec`` block: ``resource``, ``inference``, ``tuning`` and ``status`` lie at the top level.
``api.v1beta1`` has the same shape.
"""

from __future__ import annotations

from api.model import LabelSelector, LabelSelectorRequirement, ObjectMeta
from api.v1alpha1.inference import AccessMode, AdapterSpec, InferenceSpec, PresetOptions, PresetSpec
from api.v1alpha1.sources import DataDestination, DataSource
from api.v1alpha1.tuning import TuningSpec
from api.v1alpha1.workspace import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    Metric,
    Partition,
    Performance,
    ResourceSpec,
    Workspace,
    WorkspaceState,
    WorkspaceStatus,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "AccessMode",
    "AdapterSpec",
    "DataDestination",
    "DataSource",
    "InferenceSpec",
    "LabelSelector",
    "LabelSelectorRequirement",
    "Metric",
    "ObjectMeta",
    "Partition",
    "Performance",
    "PresetOptions",
    "PresetSpec",
    "ResourceSpec",
    "TuningSpec",
    "Workspace",
    "WorkspaceState",
    "WorkspaceStatus",
]
