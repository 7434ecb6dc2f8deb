"""Owner references (FW-G01): who may own what, and what an object looks like afterwards. Pure."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from manager.ownership import (
    AlreadyOwned,
    OwnershipError,
    has_controller_reference,
    has_owner_reference,
    with_controller_reference,
    with_owner_reference,
    without_controller_reference,
    without_owner_reference,
)
from manager.types import Obj

pytestmark = pytest.mark.acceptance("FW-G01")


def deployment(name: str = "web", *, namespace: str = "n", uid: str = "d1", version: str = "v1") -> Obj:
    metadata = {"name": name, "uid": uid, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": f"apps/{version}", "kind": "Deployment", "metadata": metadata}


def replica_set(*owners: Obj, namespace: str = "n") -> Obj:
    metadata: Obj = {"name": "web-1", **({"namespace": namespace} if namespace else {})}
    if owners:
        metadata["ownerReferences"] = list(owners)
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": {"replicas": 1}}


def reference(name: str = "web", *, uid: str = "d1", version: str = "v1", **more: Any) -> Obj:
    return {"apiVersion": f"apps/{version}", "kind": "Deployment", "name": name, "uid": uid, **more}


CONTROLLER = {"controller": True, "blockOwnerDeletion": True}


def owners(obj: Obj) -> list[Obj]:
    return obj["metadata"].get("ownerReferences", [])


def test_a_controller_reference_names_its_owner_and_blocks_its_deletion() -> None:
    """Kind, version, name and uid are the owner's; nothing else of the object changes, and the argument stays."""
    bare = replica_set()
    before = copy.deepcopy(bare)

    owned = with_controller_reference(deployment(), bare)

    assert owners(owned) == [reference(**CONTROLLER)]
    assert bare == before
    assert owned["spec"] is bare["spec"]


def test_blocking_the_owners_deletion_can_be_left_out() -> None:
    """The reference says so explicitly."""
    owned = with_controller_reference(deployment(), replica_set(), block_owner_deletion=False)

    assert owners(owned) == [reference(controller=True, blockOwnerDeletion=False)]


def test_another_controller_is_not_pushed_aside() -> None:
    """The error carries the reference of the one that is there."""
    other = reference("other", uid="d2", **CONTROLLER)

    with pytest.raises(
        AlreadyOwned, match="ReplicaSet n/web-1 is already controlled by Deployment other"
    ) as caught:
        with_controller_reference(deployment(), replica_set(other))

    assert caught.value.owner == other


def test_a_plain_owner_beside_does_not_hinder() -> None:
    """It is kept, before the new controller."""
    other = reference("other", uid="d2")

    assert owners(with_controller_reference(deployment(), replica_set(other))) == [other, reference(**CONTROLLER)]


@pytest.mark.parametrize(
    "present",
    [
        pytest.param(reference(controller=False, blockOwnerDeletion=True), id="not yet the controller"),
        pytest.param(reference(version="v1beta1", **CONTROLLER), id="named with another version"),
        pytest.param(reference(uid="d0", **CONTROLLER), id="a namesake that is gone"),
    ],
)
def test_an_owner_that_is_there_is_replaced_and_not_doubled(present: Obj) -> None:
    """Group, kind and name tell whether it is the same; its place in the list stays."""
    other = reference("other", uid="d2")

    owned = with_controller_reference(deployment(), replica_set(present, other))

    assert owners(owned) == [reference(**CONTROLLER), other]


def test_nothing_to_change_gives_the_same_object() -> None:
    """Identity is how a caller learns that no write is needed."""
    owned = replica_set(reference(**CONTROLLER))

    assert with_controller_reference(deployment(), owned) is owned


@pytest.mark.parametrize("put", [with_controller_reference, with_owner_reference])
def test_an_owner_of_another_namespace_is_refused(put: Any) -> None:
    """The garbage collector would take it for missing."""
    with pytest.raises(OwnershipError, match="across namespaces"):
        put(deployment(namespace="m"), replica_set())


@pytest.mark.parametrize("put", [with_controller_reference, with_owner_reference])
def test_a_namespaced_owner_of_a_cluster_scoped_object_is_refused(put: Any) -> None:
    """An object without a namespace counts as cluster-scoped."""
    with pytest.raises(OwnershipError, match="has no namespace"):
        put(deployment(), replica_set(namespace=""))


@pytest.mark.parametrize("namespace", ["n", ""])
def test_a_cluster_scoped_owner_may_own_anything(namespace: str) -> None:
    """Namespaced and cluster-scoped objects alike."""
    owned = with_controller_reference(deployment(namespace=""), replica_set(namespace=namespace))

    assert owners(owned) == [reference(**CONTROLLER)]


def test_an_owner_without_uid_is_a_programming_error() -> None:
    """A reference without uid would have the object deleted as an orphan; the owner must come from a server."""
    owner = deployment()
    del owner["metadata"]["uid"]

    with pytest.raises(KeyError, match="uid"):
        with_controller_reference(owner, replica_set())


def test_a_plain_owner_controls_and_blocks_nothing_unless_asked() -> None:
    """It may stand beside other owners and a foreign controller."""
    other = reference("other", uid="d2", **CONTROLLER)

    assert owners(with_owner_reference(deployment(), replica_set(other))) == [other, reference()]
    assert owners(with_owner_reference(deployment(), replica_set(), block_owner_deletion=True)) == [
        reference(blockOwnerDeletion=True)
    ]


def test_an_owner_can_be_taken_off() -> None:
    """Whatever version names it; the last one leaves no empty list; an absent one changes nothing."""
    other = reference("other", uid="d2")
    both = replica_set(reference(version="v1beta1"), other)

    assert owners(without_owner_reference(deployment(), both)) == [other]
    assert "ownerReferences" not in without_owner_reference(deployment(), replica_set(reference()))["metadata"]
    alone = replica_set(other)
    assert without_owner_reference(deployment(), alone) is alone


def test_only_a_controller_is_taken_off_as_controller() -> None:
    """A plain owner, and another's controller, stay."""
    plain, foreign = replica_set(reference()), replica_set(reference("other", uid="d2", **CONTROLLER))

    assert owners(without_controller_reference(deployment(), replica_set(reference(**CONTROLLER)))) == []
    assert without_controller_reference(deployment(), plain) is plain
    assert without_controller_reference(deployment(), foreign) is foreign


def test_owners_can_be_asked_for() -> None:
    """By group, kind, name and uid: a namesake that is gone is not the owner."""
    assert has_owner_reference(deployment(), replica_set(reference(version="v1beta1")))
    assert not has_owner_reference(deployment(), replica_set(reference(uid="d0")))
    assert not has_owner_reference(deployment(), replica_set())
    assert has_controller_reference(replica_set(reference(controller=True)))
    assert not has_controller_reference(replica_set(reference()))
