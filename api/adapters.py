"""The two wire models of adapters: what is wanted, and what a server reports.

Wanted: the operator writes an ``AdapterList`` as JSON into the ConfigMap ``<workspace>-adapters`` under the key
``adapters.json``; the server reads it at ``/etc/kaito/adapters``. Observed: the server answers an
``ObservedAdapters`` at ``GET /v1/adapters``. The list, not the pod's specification, is the interface: editing
an adapter restarts nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from api.model import ApiModel, Strings

ADAPTERS_PATH: Final = "/v1/adapters"


class WantedAdapter(ApiModel):
    """One adapter to load: from an image that the server pulls, or from a folder that is mounted."""

    name: str = Field(min_length=1, description="The name by which a request picks it.")
    image: str | None = Field(default=None, description="The image that holds it under /data.")
    path: str | None = Field(default=None, description="The folder that holds it, when it is mounted.")
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    pull_secrets: Strings = Field(default=(), description="Names of the mounted pull secrets to try.")


class AdapterList(ApiModel):
    """The content of ``adapters.json``. ``revision`` is echoed by the server once the list is in force."""

    revision: str = ""
    adapters: tuple[WantedAdapter, ...] = ()

    def to_json(self) -> str:
        """The text for the ConfigMap: stable, so that an unchanged list is an unchanged object."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class AdapterState(StrEnum):
    """Where an adapter is on its way."""

    PULLING = "Pulling"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED = "Failed"
    UNLOADING = "Unloading"


class ObservedAdapter(ApiModel):
    """One adapter as the server has it."""

    name: str
    state: AdapterState
    image: str | None = None
    digest: str | None = Field(default=None, description="Digest of the image that was pulled.")
    strength: float = 1.0
    rank: int | None = None
    message: str = Field(default="", description="Why it failed, or what it waits for.")


class ObservedAdapters(ApiModel):
    """The answer of ``GET /v1/adapters``."""

    revision: str = Field(default="", description="The revision of the wanted list that this reflects.")
    adapters: tuple[ObservedAdapter, ...] = ()
