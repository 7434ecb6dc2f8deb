"""The volumes of a preset's pod, each with its mount.

In: a target and its mounts. Out: pairs of volume and mount. Pure. No path of the node is mounted, so that the pod
passes the ``restricted`` Pod Security profile; what an adapter's author names as volume is his own choice.
"""

from __future__ import annotations

from collections.abc import Iterator

from api import keys
from api.catalog import Preset
from controllers.workspace.target import Target
from controllers.workspace.workload.mounts import Mounts, volume_name
from manager.types import Obj

_DOCKER_CONFIG = ".dockerconfigjson"


def volumes(target: Target, preset: Preset, mounts: Mounts) -> Iterator[tuple[Obj, Obj]]:
    """Every volume with its mount."""
    yield _folder("dshm", "/dev/shm", medium="Memory")  # noqa: S108 - the engine's workers share it
    if not preset.weights_in_image:
        yield _folder("weights", keys.WEIGHTS_PATH)
    # Always there, so that the first adapter is an edit of data as well.
    yield (
        {"name": "adapters", "configMap": {"name": target.workspace.name + keys.ADAPTERS_CONFIG_SUFFIX}},
        {"name": "adapters", "mountPath": keys.ADAPTERS_CONFIG_PATH, "readOnly": True},
    )
    yield _pull_secrets(mounts.secrets)
    yield _folder("cache", keys.CACHE_PATH)
    for adapter, source in mounts.volumes:
        name = volume_name(adapter, source)
        path = f"{keys.ADAPTER_VOLUMES_PATH}/{adapter}"
        yield {"name": name, **source}, {"name": name, "mountPath": path, "readOnly": True}
    if target.inference.config:
        yield (
            {"name": "config", "configMap": {"name": target.inference.config}},
            {"name": "config", "mountPath": keys.CONFIG_PATH, "readOnly": True},
        )


def _folder(name: str, path: str, *, medium: str = "") -> tuple[Obj, Obj]:
    return {"name": name, "emptyDir": {"medium": medium} if medium else {}}, {"name": name, "mountPath": path}


def _pull_secrets(names: tuple[str, ...]) -> tuple[Obj, Obj]:
    # Two names, because a volume that changes its kind under one name would be merged into one of both kinds.
    if not names:
        return _folder("no-pull-secrets", keys.PULL_SECRETS_PATH)
    sources = [
        {
            "secret": {
                "name": name,
                "items": [{"key": _DOCKER_CONFIG, "path": f"{name}/{_DOCKER_CONFIG}"}],
                # One that is missing fails its adapter, with a reason, and not the model.
                "optional": True,
            }
        }
        for name in names
    ]
    return (
        {"name": "pull-secrets", "projected": {"sources": sources}},
        {"name": "pull-secrets", "mountPath": keys.PULL_SECRETS_PATH, "readOnly": True},
    )
