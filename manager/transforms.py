"""What an object loses before it is cached. A transform takes an object that nobody shares yet, may change it in
place, and returns what is to be kept.

It must be idempotent, and must leave name, namespace, uid and resourceVersion alone. The reflector calls it once
per object that the server sends; an object for which it raises is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from manager.types import Obj

Transform = Callable[[Obj], Obj]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def strip_managed_fields(obj: Obj) -> Obj:
    """The default transform: drops the two parts of metadata that are large and tell a controller nothing.

    These are ``managedFields`` and kubectl's copy of the manifest. What has no metadata in the usual shape is left
    as it is.
    """
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(_LAST_APPLIED, None)
    return obj


def keep_everything(obj: Obj) -> Obj:
    """No transform: for who needs managed fields in the cache."""
    return obj


def chain(*transforms: Transform) -> Transform:
    """One after the other."""

    def transform(obj: Obj) -> Obj:
        for step in transforms:
            obj = step(obj)
        return obj

    return transform
