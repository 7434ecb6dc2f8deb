"""Who owns what: owner references, which make the garbage collector delete what an object has made.

Every function takes an object and gives one back: the same one when nothing had to change (so that ``is``
tells), else a new one that shares all but its metadata. The argument itself is never changed, for it may come
from a cache.

    await client.apply(CONFIGMAPS, with_controller_reference(website, {"metadata": {...}, "data": {...}}))

Semantics: controller-runtime's ``controllerutil``. An owner is known by group, kind and name: a reference that
names it with another version, or with the uid of a namesake that is gone, is replaced and not doubled.
"""

from __future__ import annotations

from manager.errors import ManagerError
from manager.meta import controller_of, group_of, key, name, namespace, owner_reference, with_metadata
from manager.types import Obj


class OwnershipError(ManagerError):
    """An owner that this object cannot have; the garbage collector would delete the object at once."""


class AlreadyOwned(OwnershipError):
    """Another controller owns the object. ``owner`` is its reference; take it off first if that is meant."""

    def __init__(self, obj: Obj, owner: Obj) -> None:
        super().__init__(f"{_words(obj)} is already controlled by {owner.get('kind')} {owner.get('name')}")
        self.owner = owner


def with_controller_reference(owner: Obj, obj: Obj, *, block_owner_deletion: bool = True) -> Obj:
    """``obj`` with ``owner`` as its one controller.

    Args:
        owner: as read from a server.
        obj: carries its namespace if it has one.
        block_owner_deletion: a foreground deletion of the owner waits for this object.

    Raises:
        AlreadyOwned: another controller has it. OwnershipError: the two are in different namespaces, or a
        cluster-scoped object would get a namespaced owner.
    """
    reference = owner_reference(owner) | {"blockOwnerDeletion": block_owner_deletion}
    _check(owner, obj)
    controller = controller_of(obj)
    if controller is not None and not _same(controller, reference):
        raise AlreadyOwned(obj, controller)
    return _put(obj, reference)


def with_owner_reference(owner: Obj, obj: Obj, *, block_owner_deletion: bool = False) -> Obj:
    """``obj`` with ``owner`` as one of its owners, not its controller; it goes when its last owner has gone.

    If ``owner`` was the controller, it no longer is.

    Raises:
        OwnershipError: as :func:`with_controller_reference`.
    """
    reference = owner_reference(owner, controller=False)
    if block_owner_deletion:
        reference["blockOwnerDeletion"] = True
    _check(owner, obj)
    return _put(obj, reference)


def without_owner_reference(owner: Obj, obj: Obj) -> Obj:
    """``obj`` without ``owner``, controller or not. Unlike controllerutil, an absent owner is no error."""
    wanted = _named(owner)
    references = _references(obj)
    kept = [reference for reference in references if not _same(reference, wanted)]
    return obj if len(kept) == len(references) else with_metadata(obj, ownerReferences=kept)


def without_controller_reference(owner: Obj, obj: Obj) -> Obj:
    """``obj`` without ``owner`` as its controller; ``obj`` itself if it is a plain owner, or none."""
    controller = controller_of(obj)
    if controller is None or not _same(controller, _named(owner)):
        return obj
    return without_owner_reference(owner, obj)


def has_owner_reference(owner: Obj, obj: Obj) -> bool:
    """Whether this very ``owner`` (by uid, not a namesake) is among the owners, whatever version names it."""
    wanted, uid = _named(owner), owner["metadata"].get("uid")
    return any(_same(reference, wanted) and reference.get("uid") == uid for reference in _references(obj))


def has_controller_reference(obj: Obj) -> bool:
    """Whether some controller owns the object."""
    return controller_of(obj) is not None


def _check(owner: Obj, obj: Obj) -> None:
    theirs, ours = namespace(owner), namespace(obj)
    if not theirs:
        return  # a cluster-scoped owner may own anything
    if not ours:
        raise OwnershipError(
            f"{_words(obj)} has no namespace, so {_words(owner)}, which has one, cannot own it; "
            "if the object is namespaced, set its namespace first"
        )
    if ours != theirs:
        raise OwnershipError(f"{_words(obj)} cannot be owned across namespaces, by {_words(owner)}")


def _put(obj: Obj, reference: Obj) -> Obj:
    references = _references(obj)
    for index, present in enumerate(references):
        if _same(present, reference):
            if present == reference:
                return obj
            return with_metadata(obj, ownerReferences=[*references[:index], reference, *references[index + 1 :]])
    return with_metadata(obj, ownerReferences=[*references, reference])


def _references(obj: Obj) -> list[Obj]:
    return obj.get("metadata", {}).get("ownerReferences") or []


def _named(owner: Obj) -> Obj:
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name(owner)}


def _same(one: Obj, other: Obj) -> bool:
    return (
        one.get("name") == other.get("name")
        and one.get("kind") == other.get("kind")
        and group_of(one.get("apiVersion", "")) == group_of(other.get("apiVersion", ""))
    )


def _words(obj: Obj) -> str:
    return f"{obj.get('kind', 'object')} {key(obj)}"
