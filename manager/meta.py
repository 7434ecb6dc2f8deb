"""Reading and building object metadata: keys, owners, times. Pure functions over plain dicts.

Nothing here changes what it is given: objects may come from a cache, which all readers share. Owner references are
set in ``ownership``, finalizers in ``finalizers``. Semantics: ``metav1.ObjectMeta``, ``metav1.Time``.
"""

from datetime import UTC, datetime

from manager.types import Obj


def name(obj: Obj) -> str:
    """``metadata.name``; empty if absent."""
    return str(obj.get("metadata", {}).get("name", ""))


def namespace(obj: Obj) -> str:
    """``metadata.namespace``; empty for cluster-scoped objects."""
    return str(obj.get("metadata", {}).get("namespace", ""))


def key(obj: Obj) -> str:
    """``namespace/name``, or ``name`` for cluster-scoped objects: how stores and queues call it."""
    space = namespace(obj)
    return f"{space}/{name(obj)}" if space else name(obj)


def uid(obj: Obj) -> str:
    """``metadata.uid``; empty if absent."""
    return str(obj.get("metadata", {}).get("uid", ""))


def resource_version(obj: Obj) -> str:
    """``metadata.resourceVersion``; empty if absent."""
    return str(obj.get("metadata", {}).get("resourceVersion", ""))


def labels(obj: Obj) -> dict[str, str]:
    """The labels; never None."""
    return obj.get("metadata", {}).get("labels") or {}


def get_annotations(obj: Obj) -> dict[str, str]:
    """The annotations; never None."""
    return obj.get("metadata", {}).get("annotations") or {}


def is_deleting(obj: Obj) -> bool:
    """Whether deletion was asked for."""
    return bool(obj.get("metadata", {}).get("deletionTimestamp"))


def group_of(api_version: str) -> str:
    """The group of an apiVersion; empty for the core group."""
    return api_version.rpartition("/")[0]


def owner_reference(owner: Obj, *, controller: bool = True) -> Obj:
    """A reference for a dependant's ``ownerReferences``; the owner must have been read from a server.

    A controller reference also blocks the owner's foreground deletion, as controllerutil does.
    """
    meta = owner["metadata"]
    reference: Obj = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    if controller:
        reference |= {"controller": True, "blockOwnerDeletion": True}
    return reference


def controller_of(obj: Obj) -> Obj | None:
    """The one owner reference with ``controller: true``, or None."""
    for reference in obj.get("metadata", {}).get("ownerReferences") or []:
        if reference.get("controller"):
            return dict(reference)
    return None


def finalizers_of(obj: Obj) -> list[str]:
    """``metadata.finalizers``, in a list of its own; empty if absent."""
    return list(obj.get("metadata", {}).get("finalizers") or [])


def with_metadata(obj: Obj, **fields: object) -> Obj:
    """The object with these fields of its metadata, everything else shared with ``obj``, which stays as it is.

    A value that is empty or None takes the field away.
    """
    metadata = {**(obj.get("metadata") or {}), **fields}
    return {**obj, "metadata": {field: value for field, value in metadata.items() if value or field not in fields}}


def now_rfc3339(moment: datetime) -> str:
    """``metav1.Time``: UTC, whole seconds, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro(moment: datetime) -> str:
    """``metav1.MicroTime``: UTC, microseconds always written, ``Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Either of the two, as an aware datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
