"""On which GPUs a model is tuned: from a preset, a method and the GPUs of a node to a ``Layout``.

In: a preset, the method, GPU facts (None or without memory where a node does not say). Out: a layout of one
node, or the cause why there is none. Pure; the arithmetic is ``api.sizing.tuning``'s, which ``kaito plan`` asks
as well.
"""

from __future__ import annotations

from datetime import date

from api import catalog, keys
from api.catalog import Preset
from api.reasons import Cause, Reason
from api.sizing import GpuFacts, Wish, choose_for_tuning, packaged_prices, tuning_fit
from api.v1alpha1 import Workspace
from controllers.workspace.layout import Layout

_UNKNOWN = "how much memory the GPUs have is not known, so whether the model can be tuned there is not either"


def lay_out_tuning(preset: Preset, method: str, gpu: GpuFacts | None, *, insist: bool = False) -> Layout | Cause:
    """All GPUs of one node. ``insist``: also where the model's own weights are known not to fit."""
    least = preset.tuning.gpu_count if preset.tuning else 1
    gpus = gpu.count if gpu is not None and gpu.count else least
    fit = tuning_fit(preset, method, gpu) if gpu is not None and gpu.memory else None
    if fit is None:
        return Layout(1, gpus, reason=_UNKNOWN)
    if not fit.possible and not insist:
        return Cause(Reason.MODEL_DOES_NOT_FIT, {"preset": preset.name, "why": fit.why})
    return Layout(1, gpus, reason=fit.why)


def cheapest_type(workspace: Workspace, preset: Preset, method: str, cloud: str, today: date) -> str | Cause:
    """The instance type to tune on where none is written."""
    spot = workspace.metadata.annotations.get(keys.CAPACITY_TYPE) == keys.SPOT
    wish = Wish(cloud=cloud, spot=spot)
    options = choose_for_tuning(preset, method, catalog.skus(), packaged_prices(), wish, today)
    if not options:
        why = f"none has the memory for {method}"
        return Cause(Reason.NO_INSTANCE_TYPE_FITS, {"preset": preset.name, "why": why})
    return options[0].sku.instance_type
