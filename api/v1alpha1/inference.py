"""The inference half of a Workspace: which model to serve, how, and with which adapters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field

from api.model import ApiModel, Strings, rules, same
from api.v1alpha1.sources import DataSource


class AccessMode(StrEnum):
    """Where a preset's image comes from."""

    PUBLIC = "public"
    PRIVATE = "private"


class PresetOptions(ApiModel):
    """Options of a preset, mostly for models whose licence does not allow a public image."""

    image: str | None = Field(
        default=None,
        description="The image that holds the model, for accessMode private; it replaces the preset's own.",
    )
    image_pull_secrets: Strings = Field(
        default=(), description="Names of Secrets in the workspace's namespace with credentials to pull the image."
    )
    model_access_secret: str | None = Field(
        default=None,
        description="Name of a Secret in the workspace's namespace whose key HF_TOKEN holds a Hugging Face "
        "token, for models that are downloaded and gated.",
    )


class PresetSpec(ApiModel):
    """A model from the catalogue, by name."""

    name: str = Field(
        description="Name of the preset, for example phi-3-mini-4k-instruct (`kaito presets` lists them), or the "
        "id of a model on the Hugging Face hub, for example microsoft/phi-4.",
    )
    access_mode: AccessMode = Field(
        default=AccessMode.PUBLIC,
        description="public (when absent) uses the preset's published image; private uses presetOptions.image, "
        "which some licences require (llama-2). Models of the newer catalogue ignore it.",
    )
    preset_options: PresetOptions | None = Field(default=None, description="Further options of the preset.")


class AdapterSpec(ApiModel):
    """A LoRA adapter to load beside the model."""

    source: DataSource | None = Field(
        default=None, description="Where the adapter comes from: an image or a volume, and its name."
    )
    strength: str | None = Field(
        default=None,
        description='How strongly the adapter is applied, a number from "0" to "1" written as a string; "1.0" '
        "when absent.",
    )

    @property
    def strength_value(self) -> float:
        """The strength as a number, 1.0 when absent. Raises ValueError on text that is not a number."""
        return 1.0 if self.strength is None else float(self.strength)


_MODE = "(has({0}.accessMode) ? {0}.accessMode : 'public')"  # spelling the default is no change
SAME_PRESET = (
    f"self.name == oldSelf.name && {_MODE.format('self')} == {_MODE.format('oldSelf')} && {same('presetOptions')}"
)


class InferenceSpec(ApiModel):
    """What to serve. Exactly one of preset and template must be set."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.preset) || has(self.template)", "Preset or Template must be specified: name a preset"),
            (
                "!(has(self.preset) && has(self.template))",
                "Preset and Template cannot be set at the same time: remove one",
            ),
            (
                "has(self.template) == has(oldSelf.template)",
                "field cannot be unset/set if it was set/unset: the template's content may change, and no more",
            ),
            ("has(self.preset) == has(oldSelf.preset)", "preset: field is immutable: create another workspace"),
        )
    )

    preset: PresetSpec | None = Field(
        default=None,
        description="The model to serve: one of `kaito presets`, or any org/model of the Hugging Face hub. "
        "Cannot be changed after creation.",
        json_schema_extra=rules((SAME_PRESET, "field is immutable: create another workspace for another preset")),
    )
    template: dict[str, Any] | None = Field(
        default=None,
        description="A pod template (metadata and spec, as in a Deployment) to run instead of a preset. Node "
        "affinity and GPU tolerations are added to it. Its content may be changed; a workspace cannot change "
        "between template and preset.",
    )
    config: str | None = Field(
        default=None,
        description="Name of a ConfigMap in the workspace's namespace with the key inference_config.yaml, "
        "whose vllm section is passed to the engine.",
    )
    adapters: Annotated[tuple[AdapterSpec, ...], BeforeValidator(lambda v: () if v is None else v)] = Field(
        default=(),
        description="LoRA adapters to load, at most 10, each with a name of its own. May be changed at any time.",
        json_schema_extra=rules(
            ("size(self) <= 10", "Number of Adapters exceeds the maximum limit, maximum of 10 allowed")
        ),
    )
