from __future__ import annotations

from typing import Any

import pytest

from kaito.local.workloads.scheduler.decide import Placement, Unschedulable, decide
from kaito.local.workloads.scheduler.nodes import Snapshots, requests, snapshot

Obj = dict[str, Any]


def node(name: str, *, ready: str | None = "True", taints: list[Obj] | None = None, **more: Any) -> Obj:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **more.get("labels", {})}},
        "spec": {"taints": taints or [], **({"unschedulable": True} if more.get("cordoned") else {})},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10", **more.get("allocatable", {})},
            "conditions": [{"type": "Ready", "status": ready}] if ready else [],
        },
    }


def pod(
    name: str = "p", *, on: str = "", cpu: str = "1", gpu: str = "", labels: Obj | None = None, **spec: Any
) -> Obj:
    amounts = {"cpu": cpu, **({"nvidia.com/gpu": gpu} if gpu else {})}
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": labels or {}},
        "spec": {
            "containers": [{"name": "c", "resources": {"requests": amounts}}],
            **({"nodeName": on} if on else {}),
            **spec,
        },
        "status": {"phase": "Running" if on else "Pending"},
    }


def place(wanted: Obj, nodes: list[Obj], *others: Obj, **more: Any) -> Placement | Unschedulable:
    return decide(wanted, snapshot(nodes, others), {}, **more)


GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
GPU_NODE = node("gpu", taints=[GPU_TAINT], allocatable={"nvidia.com/gpu": "1"})
TOLERATES = [{"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("wanted", "nodes", "message"),
    [
        (pod(), [], "no nodes available to schedule pods"),
        (
            pod(gpu="1"),
            [node("a"), GPU_NODE],
            "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {sku: gpu}.",
        ),
        (
            pod(nodeSelector={"x": "y"}),
            [node("a"), node("b")],
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (pod(), [node("a", cordoned=True)], "0/1 nodes are available: 1 node(s) were unschedulable."),
        (
            pod(),
            [node("a", ready="False")],
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
        ),
        (
            pod(),
            [node("a", ready="Unknown")],
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }.",
        ),
        (pod(cpu="5"), [node("a")], "0/1 nodes are available: 1 Insufficient cpu."),
    ],
)
def test_the_refusal_reads_like_the_real_one(wanted: Obj, nodes: list[Obj], message: str) -> None:
    """The message counts nodes per reason, in the wording that people search for."""
    assert place(wanted, nodes) == Unschedulable(message)


def test_a_tolerating_gpu_pod_lands_on_the_gpu_node_and_only_once() -> None:
    """Extended resources are counted like any other: the second pod does not fit."""
    first = pod("one", gpu="1", tolerations=TOLERATES)
    assert place(first, [node("a"), GPU_NODE]) == Placement("gpu")

    taken = pod("one", gpu="1", on="gpu", tolerations=TOLERATES)
    refused = place(pod("two", gpu="1", tolerations=TOLERATES), [node("a"), GPU_NODE], taken)
    assert refused == Unschedulable("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")


def test_finished_pods_free_their_node() -> None:
    """A pod that has ended takes nothing any more."""
    done = pod("done", cpu="4", on="a")
    done["status"]["phase"] = "Succeeded"

    assert place(pod(cpu="4"), [node("a")], done) == Placement("a")


def test_the_emptier_node_wins_and_ties_go_to_the_first_name() -> None:
    """Least allocated first; the same world always gives the same answer."""
    assert place(pod(), [node("b"), node("a")]) == Placement("a")
    assert place(pod(), [node("a"), node("b")], pod("x", cpu="2", on="a")) == Placement("b")


def test_pods_of_one_owner_spread() -> None:
    """The node with fewer pods of the same owner is preferred, even if it is fuller."""
    mine = [{"uid": "rs", "controller": True}]
    wanted, sibling = pod(), pod("s", cpu="0", on="a")
    for obj in (wanted, sibling):
        obj["metadata"]["ownerReferences"] = mine

    assert place(wanted, [node("a"), node("b")], sibling, pod("x", cpu="2", on="b")) == Placement("b")


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["west"], True),
        ("In", ["east"], False),
        ("NotIn", ["east"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_required_node_affinity(operator: str, values: list[str], fits: bool) -> None:
    """Each operator of a required node affinity term decides as documented."""
    rule = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]}
    wanted = pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": rule}})

    assert isinstance(place(wanted, [node("a", labels={"zone": "west"})]), Placement) is fits


def test_preferred_node_affinity_outweighs_free_room() -> None:
    """A preferred node is taken even when another is emptier."""
    term = {"weight": 1, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}
    wanted = pod(affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})

    assert place(wanted, [node("a"), node("b", labels={"fast": "1"})], pod("x", cpu="3", on="b")) == Placement("b")


def _anti(app: str) -> Obj:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_anti_affinity_holds_in_both_directions() -> None:
    """A pod keeps away from what it avoids, and from what avoids it."""
    web = pod("web", on="a", labels={"app": "web"})
    assert place(pod(affinity=_anti("web")), [node("a"), node("b")], web) == Placement("b")
    assert place(pod(affinity=_anti("web")), [node("a")], web) == Unschedulable(
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    )
    shy = pod("shy", on="a", affinity=_anti("web"))
    assert place(pod(labels={"app": "web"}), [node("a")], shy) == Unschedulable(
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
    )


def test_affinity_lets_the_first_of_a_group_start() -> None:
    """A pod that wants to be near its own kind may start anywhere; the second follows it."""
    term = {"labelSelector": {"matchLabels": {"app": "g"}}, "topologyKey": "kubernetes.io/hostname"}
    near = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    first = pod("one", labels={"app": "g"}, affinity=near)
    assert place(first, [node("a"), node("b")]) == Placement("a")

    there = pod("one", labels={"app": "g"}, on="b", cpu="2")
    assert place(pod("two", labels={"app": "g"}, affinity=near), [node("a"), node("b")], there) == Placement("b")


def test_topology_spread_keeps_the_skew() -> None:
    """A hard spread constraint refuses the domain that is ahead."""
    rule = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "s"}},
    }
    there = pod("one", labels={"app": "s"}, on="a", cpu="0")
    wanted = pod("two", labels={"app": "s"}, topologySpreadConstraints=[rule])

    assert place(wanted, [node("a"), node("b", cordoned=True)], there) == Unschedulable(
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, "
        "1 node(s) were unschedulable."
    )


@pytest.mark.parametrize(
    ("claim", "blocked"),
    [
        (None, 'persistentvolumeclaim "data" not found'),
        ({"status": {"phase": "Pending"}}, "pod has unbound immediate PersistentVolumeClaims"),
    ],
)
def test_claims_must_be_bound_first(claim: Obj | None, blocked: str) -> None:
    """A pod waits for its claims, and says for which."""
    wanted = pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])

    refused = place(wanted, [node("a")], claim=lambda _: claim)
    assert refused == Unschedulable(f"0/1 nodes are available: {blocked}.")


def test_host_ports_are_exclusive() -> None:
    """Two pods that want the same port of the node do not share one."""
    ports = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]
    there = pod("one", on="a", containers=ports)

    assert place(pod("two", containers=ports), [node("a")], there) == Unschedulable(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )


def test_requests_take_the_larger_of_start_and_run() -> None:
    """Init containers run one after another, sidecars beside everything, and limits stand in for requests."""
    wanted = pod(cpu="1")
    wanted["spec"]["containers"].append({"name": "d", "resources": {"limits": {"cpu": "1"}}})
    wanted["spec"]["initContainers"] = [
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "big", "resources": {"requests": {"cpu": "3"}}},
    ]
    assert requests(wanted)["cpu"] == 3.5


def test_a_snapshot_counts_only_what_has_changed() -> None:
    """A later snapshot has the sums of the world as it is, and the very entries of nodes that did not change."""
    nodes = [node("a"), node("b")]
    placed: dict[str, list[Any]] = {"a": [], "b": []}
    snapshots = Snapshots()
    before = snapshots.take(nodes, lambda name: placed[name])
    placed["b"] = [pod("new", on="b")]

    after = snapshots.take(nodes, lambda name: placed[name])

    assert after[0] is before[0]
    assert [info.name for info in after] == ["a", "b"]
    assert after[1].pods == placed["b"]
    assert snapshots.take(nodes[:1], lambda name: placed[name]) == [before[0]]
