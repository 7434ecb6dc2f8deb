"""The wanted adapters of a Workspace as data: the ConfigMap that its pods read.

In: an observation with an inference specification. Out: a manifest. Pure, and the same text for the same list, so
that an edit of anything else leaves it alone. The server follows the mounted file; nothing restarts.
"""

from __future__ import annotations

from api import keys
from api.adapters import AdapterList, WantedAdapter
from api.v1alpha1 import AdapterSpec, InferenceSpec
from controllers.workspace.model import Observation
from controllers.workspace.owned import digest, owned_metadata
from controllers.workspace.workload.mounts import adapter_name
from manager.resources import CONFIGMAPS
from manager.types import Obj


def wanted_adapters(inference: InferenceSpec) -> AdapterList:
    """The list; its revision names its content."""
    adapters = tuple(map(_wanted, inference.adapters))
    content = [item.model_dump(mode="json") for item in adapters]
    return AdapterList(revision=digest(content)[:10], adapters=adapters)


def adapters_map(obs: Observation, inference: InferenceSpec) -> Obj:
    """The ConfigMap, also of an empty list: pods that are there mount it for the first adapter to come."""
    return {
        "apiVersion": CONFIGMAPS.api_version,
        "kind": CONFIGMAPS.kind,
        "metadata": owned_metadata(obs, keys.ADAPTERS_CONFIG_SUFFIX),
        "data": {keys.ADAPTERS_CONFIG_KEY: wanted_adapters(inference).to_json()},
    }


def _wanted(adapter: AdapterSpec) -> WantedAdapter:
    source, name = adapter.source, adapter_name(adapter)
    mounted = source is not None and source.volume_source is not None
    return WantedAdapter(
        name=name,
        image=source.image if source else None,
        path=f"{keys.ADAPTER_VOLUMES_PATH}/{name}" if mounted else None,
        strength=adapter.strength_value,
        pull_secrets=source.image_pull_secrets if source else (),
    )
