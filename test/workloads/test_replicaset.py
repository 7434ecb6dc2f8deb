from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.workloads.pods import name_of
from kaito.local.workloads.replicaset.decide import decide, status
from kaito.local.workloads.times import rfc3339

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def replicaset(replicas: int = 2, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d", "uid": "rs", "generation": 3},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}}, **spec},
    }


def pod(
    name: str,
    *,
    node: str = "n1",
    phase: str = "Running",
    ready: float | None = 100,
    age: float = 200,
    **meta: Any,
) -> Obj:
    conditions = (
        []
        if ready is None
        else [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(NOW - timedelta(seconds=ready))}]
    )
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "labels": {"app": "web"},
            "creationTimestamp": rfc3339(NOW - timedelta(seconds=age)),
            **meta,
        },
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("replicas", "pods", "create", "delete"),
    [
        (2, [], 2, []),
        (2, [pod("a")], 1, []),
        (1, [pod("a"), pod("b", node="", ready=None, phase="Pending")], 0, ["b"]),
        (1, [pod("a"), pod("done", phase="Succeeded")], 0, []),
        (1, [pod("leaving", deletionTimestamp="x")], 1, []),
        (0, [pod("a")], 0, ["a"]),
        (9000, [], 500, []),
    ],
)
def test_it_creates_what_is_missing_and_deletes_what_is_too_much(
    replicas: int, pods: list[Obj], create: int, delete: list[str]
) -> None:
    """Only active pods count, and no reconcile touches more than a burst."""
    plan = decide(replicaset(replicas), pods, NOW)

    assert plan.create == create
    assert [name_of(p) for p in plan.delete] == delete


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("x", node="", phase="Pending", ready=None), pod("y", phase="Pending", ready=None)),
        (pod("x", phase="Pending", ready=None), pod("y", ready=None)),
        (pod("x", ready=None), pod("y")),
        (pod("x", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}), pod("y")),
        (pod("x", ready=10), pod("y", ready=1000)),
        (pod("x", age=10), pod("y", age=5000)),
    ],
)
def test_the_cheapest_pod_goes_first(first: Obj, second: Obj) -> None:
    """Deletion follows the ranking of the built-in controller, whatever order the pods come in."""
    for pods in ([first, second], [second, first]):
        assert [name_of(p) for p in decide(replicaset(1), pods, NOW).delete] == ["x"]


def test_a_crowded_node_loses_first() -> None:
    """Of equal pods the one with more companions on its node goes."""
    pods = [pod("a", node="n1"), pod("b", node="n2"), pod("c", node="n2")]

    assert name_of(decide(replicaset(2), pods, NOW).delete[0]) in ("b", "c")


def test_a_replicaset_that_is_being_deleted_touches_nothing() -> None:
    """Its pods belong to the garbage collector then."""
    leaving = replicaset(2)
    leaving["metadata"]["deletionTimestamp"] = rfc3339(NOW)

    assert decide(leaving, [], NOW).create == 0


def test_availability_waits_for_min_ready_seconds() -> None:
    """A pod is available only after it has been ready long enough, and the next such moment is asked for."""
    owner = replicaset(2, minReadySeconds=60)
    pods = [pod("a", ready=100), pod("b", ready=20)]

    assert status(owner, pods, None, NOW)["availableReplicas"] == 1
    assert decide(owner, pods, NOW).look_again == pytest.approx(40)


def test_the_status_counts_active_pods_and_reports_failures() -> None:
    """Finished pods are not counted, and a refused creation becomes the ReplicaFailure condition."""
    said = status(replicaset(), [pod("a"), pod("b", phase="Failed")], ("FailedCreate", "quota"), NOW)

    assert said["replicas"] == said["readyReplicas"] == said["fullyLabeledReplicas"] == 1
    assert said["observedGeneration"] == 3
    assert [(c["type"], c["reason"], c["message"]) for c in said["conditions"]] == [
        ("ReplicaFailure", "FailedCreate", "quota")
    ]
