"""The volumes of a tuning pod, each with its mount.

In: a target. Out: pairs of volume and mount. Pure. What a user's volume does not hold lives as long as the pod
does, over restarts of its container: that is how a run goes on from its last checkpoint. Where the result goes
to a volume of the user's, checkpoints are there too, and a new pod goes on as well. A Secret that is missing
keeps the pod from starting, and it starts by itself once the Secret is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api import keys
from api.catalog import Preset
from api.v1alpha1 import DataDestination, DataSource, TuningSpec
from controllers.workspace.tuning.settings import config_name
from manager.types import Obj


def volumes(spec: TuningSpec, preset: Preset) -> Iterator[tuple[Obj, Obj]]:
    """Every volume with its mount."""
    source, result = spec.input or DataSource(), spec.output or DataDestination()
    yield _folder("dshm", "/dev/shm", medium="Memory")  # noqa: S108 - workers that load data share it
    if not preset.weights_in_image:
        yield _folder("weights", keys.WEIGHTS_PATH)
    yield (
        {"name": "config", "configMap": {"name": config_name(spec)}},
        {"name": "config", "mountPath": keys.CONFIG_PATH, "readOnly": True},
    )
    yield _folder("work", keys.WORK_PATH)
    if result.volume_source is not None:
        yield (
            {"name": "results", **result.volume_source},
            {"name": "results", "mountPath": keys.RESULTS_PATH},
        )
    else:
        yield _folder("results", keys.RESULTS_PATH)
    if source.volume_source is not None:
        yield (
            {"name": "data", **source.volume_source},
            {"name": "data", "mountPath": keys.DATA_PATH, "readOnly": True},
        )
    if source.image and source.image_pull_secrets:
        yield _secrets("pull-secrets", keys.PULL_SECRETS_PATH, source.image_pull_secrets, folders=True)
    if result.image and result.image_push_secret:
        yield _secrets("push-secret", keys.PUSH_SECRET_PATH, [result.image_push_secret])


def _folder(name: str, path: str, *, medium: str = "") -> tuple[Obj, Obj]:
    return {"name": name, "emptyDir": {"medium": medium} if medium else {}}, {"name": name, "mountPath": path}


def _secrets(volume: str, path: str, names: Sequence[str], *, folders: bool = False) -> tuple[Obj, Obj]:
    key = keys.DOCKER_CONFIG_KEY
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": f"{name}/{key}" if folders else key}]}}
        for name in names
    ]
    return (
        {"name": volume, "projected": {"sources": sources}},
        {"name": volume, "mountPath": path, "readOnly": True},
    )
