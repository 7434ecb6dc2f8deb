from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.workloads.daemonset.decide import decide as decide_daemons
from kaito.local.workloads.daemonset.decide import new_pod, target_node
from kaito.local.workloads.nodes.decide import Timing, evictions, lost_conditions, wanted_taints
from kaito.local.workloads.pods import name_of
from kaito.local.workloads.times import rfc3339
from kaito.local.workloads.volumes.decide import choose, may_provision, new_volume

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def node(name: str = "n1", ready: str | None = "True", *taints: Obj, **spec: Any) -> Obj:
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    return {
        "metadata": {"name": name},
        "spec": {"taints": list(taints), **spec},
        "status": {"conditions": conditions},
    }


def no_execute(age: float) -> Obj:
    added = rfc3339(NOW - timedelta(seconds=age))
    return {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": added}


def test_a_silent_node_becomes_unknown() -> None:
    """A node that stopped reporting, and one that never did, get the conditions of the real controller."""
    (ready,) = lost_conditions(node(), NOW)
    assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
    (never,) = lost_conditions(node(ready=None), NOW)
    assert never["reason"] == "NodeStatusNeverUpdated"
    assert lost_conditions(node(ready="Unknown"), NOW) == []
    assert Timing().allowed(node()) < Timing().allowed(node(ready=None))


@pytest.mark.parametrize(
    ("it", "keys"),
    [
        (node(), None),
        (
            node(ready="False"),
            {("node.kubernetes.io/not-ready", "NoSchedule"), ("node.kubernetes.io/not-ready", "NoExecute")},
        ),
        (node(unschedulable=True), {("node.kubernetes.io/unschedulable", "NoSchedule")}),
        (node("n1", "True", {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}), set()),
        (node("n1", "True", {"key": "sku", "value": "gpu", "effect": "NoSchedule"}), None),
    ],
)
def test_taints_follow_the_state_and_spare_those_of_others(it: Obj, keys: set[tuple[str, str]] | None) -> None:
    """Only the controller's own taints come and go."""
    taints = wanted_taints(it, NOW)

    assert (None if taints is None else {(t["key"], t["effect"]) for t in taints}) == keys


@pytest.mark.parametrize(
    ("tolerations", "gone", "wait"),
    [
        ([], True, None),
        ([{"operator": "Exists"}], False, None),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 300}], False, 200),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 50}], True, None),
    ],
)
def test_pods_leave_when_their_toleration_ends(tolerations: list[Obj], gone: bool, wait: float | None) -> None:
    """Counted from the moment the taint was added."""
    pod = {"metadata": {"name": "p"}, "spec": {"tolerations": tolerations}}
    result = evictions(node("n1", "Unknown", no_execute(100)), [pod], NOW)

    assert (bool(result.delete), result.look_again) == (gone, wait)


def daemonset() -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "d", "uid": "ds"},
        "spec": {"template": {"spec": {"containers": []}}},
    }


def running(on: str, revision: str = "h") -> Obj:
    made = new_pod(daemonset(), on, revision)
    made["metadata"] |= {"name": f"agent-{on}", "uid": on}
    made["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return made


def test_every_willing_node_gets_one_pod() -> None:
    """Cordoned nodes count, tainted ones do not, and each pod names its node."""
    tainted = node("b", "True", {"key": "sku", "value": "gpu", "effect": "NoSchedule"})
    plan = decide_daemons(daemonset(), [], [node("a"), tainted, node("c", unschedulable=True)], "h", NOW)

    assert [target_node(p) for p in plan.create] == ["a", "c"]
    assert plan.status["desiredNumberScheduled"] == 2


def test_daemons_roll_one_node_at_a_time() -> None:
    """A new template replaces one available pod, and waits while another is missing."""
    nodes = [node("a"), node("b")]
    plan = decide_daemons(daemonset(), [running("a", "old"), running("b", "old")], nodes, "h", NOW)
    assert [name_of(p) for p in plan.delete] == ["agent-a"]

    plan = decide_daemons(daemonset(), [running("b", "old")], nodes, "h", NOW)
    assert (plan.delete, [target_node(p) for p in plan.create]) == ([], ["a"])


def claim(**spec: Any) -> Obj:
    return {
        "metadata": {"name": "data", "namespace": "d", "uid": "u1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}, **spec},
    }


def volume(name: str, size: str, **spec: Any) -> Obj:
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": size}, **spec},
    }


def test_a_claim_takes_the_smallest_free_volume_that_fits() -> None:
    """Too small, taken and differently classed volumes are passed over; one reserved for it comes first."""
    taken = volume("taken", "5Gi", claimRef={"namespace": "d", "name": "other"})
    offers = [volume("big", "50Gi"), volume("fit", "6Gi"), volume("small", "1Gi"), taken]
    assert name_of(choose(claim(), offers) or {}) == "fit"
    assert choose(claim(storageClassName="fast"), offers) is None

    reserved = volume("mine", "1Gi", claimRef={"namespace": "d", "name": "data"})
    assert name_of(choose(claim(), [*offers, reserved]) or {}) == "mine"


def test_a_new_volume_is_bound_to_its_claim_and_named_after_it() -> None:
    """No class, or any class but the empty one, means that a folder may be made."""
    made = new_volume(claim())
    assert (name_of(made), made["spec"]["claimRef"]["uid"]) == ("pvc-u1", "u1")
    assert may_provision(claim())
    assert not may_provision(claim(storageClassName=""))
