"""The inference half of a Workspace: which model to serve, how, and with which adapters."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from api.model import ApiModel, Strings
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
        description="Name of the preset, for example phi-3-mini-4k-instruct. A "
        "Hugging Face model id (org/model) of the catalogue works too."
    )
    access_mode: AccessMode = Field(
        default=AccessMode.PUBLIC,
        description="public uses the preset's published image; private uses presetOptions.image, which "
        "some licences require (llama-2).",
    )
    preset_options: PresetOptions | None = Field(default=None, description="Further options of the preset.")


class AdapterSpec(ApiModel):
    """A LoRA adapter to load beside the model."""

    source: DataSource | None = Field(
        default=None, description="Where the adapter comes from: an image or a volume, and its name."
    )
    strength: str | None = Field(
        default=None,
        description='How strongly the adapter is applied, a number from "0" to "1" written as a string; '
        '"1.0" when '
        "absent.",
    )

    @property
    def strength_value(self) -> float:
        """The strength as a number, 1.0 when absent. Raises ValueError on text that is not a number."""
        return 1.0 if self.strength is None else float(self.strength)


class InferenceSpec(ApiModel):
    """What to serve. Exactly one of preset and template must be set."""

    preset: PresetSpec | None = Field(
        default=None, description="The model to serve, from the catalogue. Cannot be changed after creation."
    )
    template: dict[str, Any] | None = Field(
        default=None,
        description="A pod template to run instead of a preset. Node affinity and GPU tolerations are "
        "added to it. Required when preset is absent; cannot be combined with it.",
    )
    config: str | None = Field(
        default=None,
        description="Name of a ConfigMap in the workspace's namespace with the key inference_config.yaml, "
        "whose vllm section is passed to the engine.",
    )
    adapters: Annotated[tuple[AdapterSpec, ...], BeforeValidator(lambda v: () if v is None else v)] = Field(
        default=(),
        description="LoRA adapters to load, at most 10, each with a name of its own. May be changed at any time.",
    )
