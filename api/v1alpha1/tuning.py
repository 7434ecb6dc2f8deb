"""The tuning half of a Workspace: which model to train an adapter for, on what, and where the result goes."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from api.model import ApiModel, rules, same
from api.v1alpha1.inference import SAME_PRESET, PresetSpec
from api.v1alpha1.sources import DataDestination, DataSource


class TuningMethod(StrEnum):
    """How an adapter is trained."""

    LORA = "lora"
    QLORA = "qlora"


class TuningSpec(ApiModel):
    """Training of a LoRA adapter as a Job."""

    model_config = ConfigDict(
        json_schema_extra=rules(("has(self.preset) == has(oldSelf.preset)", "Preset cannot be changed"))
    )

    preset: PresetSpec | None = Field(
        default=None,
        description="The model to train an adapter for; required. Cannot be changed after creation.",
        json_schema_extra=rules((SAME_PRESET, "Preset cannot be changed: create another workspace")),
    )
    method: str = Field(
        default="",
        description="lora or qlora (upper or lower case): qlora keeps the model in 4 bits while training "
        "and needs less GPU memory. Cannot be changed after creation.",
        json_schema_extra=rules(
            (
                "self.lowerAscii() == oldSelf.lowerAscii()",
                "Method cannot be changed: create another workspace for that",
            )
        ),
    )
    config: str | None = Field(
        default=None,
        description="Name of a ConfigMap in the workspace's namespace with the key training_config.yaml; "
        "the method's own template when absent.",
    )
    input: DataSource | None = Field(
        default=None,
        description="The data set to train on; required. Where it comes from may change, its name may not.",
        json_schema_extra=rules((same("name"), "name: field is immutable")),
    )
    output: DataDestination | None = Field(default=None, description="Where the trained adapter goes; required.")

    @property
    def tuning_method(self) -> TuningMethod | None:
        """The method, whatever its case, or None when it is not one that we know."""
        try:
            return TuningMethod(self.method.lower())
        except ValueError:
            return None
