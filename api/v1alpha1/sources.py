"""Where data comes from and where it goes: shared by adapters (inference) and by tuning."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.model import ApiModel, Strings


class DataSource(ApiModel):
    """Where something is read from: URLs, a container image or a volume; exactly one of them."""

    name: str | None = Field(
        default=None,
        description="A name for the source. For an adapter it is required, unique in the workspace, and "
        "the name by which a request picks the adapter.",
    )
    urls: Strings = Field(
        default=(),
        description="Addresses to download from. For tuning: files of a data set in csv, json or parquet.",
    )
    volume_source: dict[str, Any] | None = Field(
        default=None,
        description="A Kubernetes volume (as in a pod's volumes, without its name) that holds the data.",
    )
    image: str | None = Field(
        default=None,
        description="A container image, with its tag, that holds the data under /data, for example "
        "registry.example.com/adapters/phi-3:0.0.1.",
    )
    image_pull_secrets: Strings = Field(
        default=(),
        description="Names of Secrets in the workspace's namespace with credentials for the image's registry.",
    )


class DataDestination(ApiModel):
    """Where the result of tuning is written: a container image or a volume."""

    volume_source: dict[str, Any] | None = Field(
        default=None, description="A Kubernetes volume (as in a pod's volumes, without its name) to write to."
    )
    image: str | None = Field(
        default=None,
        description="The container image, with its tag, that the adapter is pushed as, for example "
        "registry.example.com/adapters/phi-3:0.0.1. The repository must be lower-case.",
    )
    image_push_secret: str | None = Field(
        default=None,
        description="Name of the Secret in the workspace's namespace with credentials to push the image; "
        "required with image.",
    )
