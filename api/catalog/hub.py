"""A model of the Hugging Face hub that the catalogue does not list: what is known by its name alone.

In: ``org/model``. Out: a preset without sizes. Pure. The engine reads the model's own files when it starts; what
has to be known before (GPUs, nodes, disk) must be written by the user, or be the same for every such model.
"""

from __future__ import annotations

from typing import Final

from api.catalog.types import Preset

_DISK: Final = "1024Gi"  # upstream's figure where the size of the weights is not known
_TIMEOUT: Final = 180 * 60.0  # seconds; the longest that any model of the catalogue is given


def unlisted(hf_id: str) -> Preset:
    """The preset of a model of which only the id is known."""
    return Preset(
        name=hf_id.lower(),
        family="",
        architecture="",
        image="kaito-base",
        image_tag="0.5.0",
        private=False,
        weights_in_image=False,
        weights_bytes=None,
        disk=_DISK,
        gpu_count=1,
        total_gpu_memory=0,
        per_gpu_memory=0,
        readiness_timeout=_TIMEOUT,
        distributed=True,
        tuning=None,
        context_limit=None,
        kv_bytes_per_token=None,
        world_size=None,
        hf_id=hf_id,
        era="hub",
    )
