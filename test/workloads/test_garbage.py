from __future__ import annotations

from typing import Any

import pytest

from kaito.local.workloads.garbage.decide import (
    Delete,
    DeleteDependents,
    Finish,
    LetGo,
    Nothing,
    OwnerState,
    Release,
    decide,
)
from kaito.local.workloads.garbage.graph import FOREGROUND, ORPHAN, Graph, Node, Owner
from manager.resources import DEPLOYMENTS, PODS, REPLICASETS

Obj = dict[str, Any]


def owner(uid: str, *, blocks: bool = True) -> Owner:
    return Owner(uid, "apps/v1", "ReplicaSet", uid, blocks)


def node(uid: str, *owners: Owner, deleting: bool = False, finalizers: tuple[str, ...] = ()) -> Node:
    return Node(uid, PODS, "d", uid, owners, deleting, frozenset(finalizers))


S, W, A, U = OwnerState.SOLID, OwnerState.WAITING, OwnerState.ABSENT, OwnerState.UNKNOWN
CHILD = node("child", owner("x"))
LOOSE = node("child", owner("x", blocks=False))


@pytest.mark.parametrize(
    ("it", "owners", "dependents", "action"),
    [
        (node("x"), {}, [], Nothing()),
        (node("x", owner("o")), {"o": S}, [], Nothing()),
        (node("x", owner("o")), {"o": U}, [], Nothing()),
        (node("x", owner("o")), {"o": A}, [], Delete("Background")),
        (node("x", owner("o"), owner("q")), {"o": A, "q": S}, [], Release(frozenset({"o"}))),
        (node("x", owner("o"), owner("q")), {"o": A, "q": U}, [], Release(frozenset({"o"}))),
        (node("x", owner("o")), {"o": W}, [], Delete("Background")),
        (node("x", owner("o")), {"o": W}, [CHILD], Delete("Foreground")),
        (node("x", owner("o"), finalizers=(ORPHAN,)), {"o": A}, [], Delete("Orphan")),
        (node("x", owner("o"), deleting=True), {"o": A}, [], Nothing()),
        (node("x", deleting=True, finalizers=(FOREGROUND,)), {}, [CHILD], DeleteDependents((CHILD,))),
        (node("x", deleting=True, finalizers=(FOREGROUND,)), {}, [LOOSE], Finish(FOREGROUND)),
        (node("x", deleting=True, finalizers=(ORPHAN,)), {}, [CHILD], LetGo((CHILD,))),
        (node("x", deleting=True, finalizers=(ORPHAN,)), {}, [], Finish(ORPHAN)),
    ],
)
def test_each_situation_has_its_action(
    it: Node, owners: dict[str, OwnerState], dependents: list[Node], action: object
) -> None:
    """Background, foreground and orphan deletion follow from owners, finalizers and dependents alone."""
    assert decide(it, owners, dependents) == action


def test_a_circle_of_foreground_deletions_is_broken() -> None:
    """A dependent that waits for us in turn is told not to block."""
    circle = node("child", owner("x"), deleting=True, finalizers=(FOREGROUND,))

    assert decide(node("x", owner("o")), {"o": W}, [circle]) == Delete("Foreground", (circle,))


def obj(uid: str, *owners: str, **meta: Any) -> Obj:
    references = [
        {"uid": o, "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": o, "blockOwnerDeletion": True}
        for o in owners
    ]
    return {"metadata": {"uid": uid, "name": uid, "namespace": "d", "ownerReferences": references, **meta}}


def test_the_graph_says_whom_to_look_at() -> None:
    """New dependents, lost owners, the start of a foreground deletion and its end all point at the right uids."""
    graph = Graph()
    assert graph.put(Node.parse(DEPLOYMENTS, obj("dep"))) == []
    assert graph.put(Node.parse(REPLICASETS, obj("rs", "dep"))) == ["rs"]
    assert graph.put(Node.parse(PODS, obj("pod", "rs"))) == ["pod"]
    assert [d.uid for d in graph.dependents("rs")] == ["pod"]

    leaving = obj("rs", "dep", deletionTimestamp="x", finalizers=[FOREGROUND])
    assert graph.put(Node.parse(REPLICASETS, leaving)) == ["rs", "pod"]
    assert graph.drop("pod") == ["rs"]
    assert graph.drop("dep") == ["rs"]
    graph.drop("rs")
    assert repr(graph) == "Graph(nodes=0, owners=0)"


def test_a_dependent_that_lets_go_wakes_the_owner_that_waits() -> None:
    """Removing an owner reference may be the last thing that a foreground deletion waited for."""
    graph = Graph()
    graph.put(Node.parse(REPLICASETS, obj("rs", deletionTimestamp="x", finalizers=[FOREGROUND])))
    graph.put(Node.parse(PODS, obj("pod", "rs")))

    assert "rs" in graph.put(Node.parse(PODS, obj("pod")))
    assert graph.dependents("rs") == []
