"""What the Workspace controller decides, as tables of observations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.conditions import INFERENCE_READY, MACHINE_READY
from api.v1alpha1 import Workspace
from controllers.workspace.decide import decide
from controllers.workspace.imagine import imagine
from controllers.workspace.made import machine_name
from controllers.workspace.model import (
    AddFinalizer,
    Apply,
    CreateMachine,
    DeleteMachine,
    DeleteOwned,
    Failure,
    LabelNode,
    Observation,
    Plan,
    RemoveFinalizer,
    Why,
)

Json = dict[str, Any]

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-11-20T12:00:00Z"
SKU = "Standard_NC6s_v3"
FINALIZER = "workspace.finalizer.kaito.sh"
PHI = {"preset": {"name": "phi-3-mini-4k-instruct"}}
TUNING = {
    "preset": {"name": "phi-3-mini-4k-instruct"},
    "method": "qlora",
    "input": {"urls": ["https://example.com/data.parquet"]},
    "output": {"image": "example.com/tuned:1", "imagePushSecret": "push"},
}


def workspace(*, resource: Json | None = None, status: Json | None = None, **changes: Any) -> Json:
    meta = {
        "name": "w",
        "namespace": "ns",
        "uid": "u1",
        "resourceVersion": "5",
        "generation": 2,
        "finalizers": [FINALIZER],
        **changes.pop("metadata", {}),
    }
    body: Json = {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": meta,
        "resource": {
            "instanceType": SKU,
            "labelSelector": {"matchLabels": {"apps": "phi-3"}},
            **(resource or {}),
        },
        "status": status or {},
    }
    body |= changes or {"inference": PHI}
    return body


def seen(obj: Json | None = None, **changes: Any) -> Observation:
    obj = obj or workspace()
    return Observation(obj, Workspace.parse(obj), registry="example.com/kaito", **changes)


def node(
    name: str = "n1", *, ready: bool = True, gpus: str = "1", labels: Json | None = None, **meta: Any
) -> Json:
    own = {"apps": "phi-3", "node.kubernetes.io/instance-type": SKU, "accelerator": "nvidia"}
    return {
        "metadata": {"name": name, "labels": {**own, **(labels or {})}, **meta},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "allocatable": {"nvidia.com/gpu": gpus},
        },
    }


def machine(index: int = 0, *, conditions: list[tuple[str, str, str, str]] | None = None, **changes: Any) -> Json:
    name = machine_name("ns", "w", "u1", index)
    listed = [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": STAMP}
        for kind, status, reason, message in conditions or []
    ]
    return {
        "metadata": {"name": name, "uid": f"m{index}", **changes.get("metadata", {})},
        "spec": {"requirements": [{"key": "node.kubernetes.io/instance-type", "values": [SKU]}]},
        "status": {"conditions": listed, "nodeName": changes.get("node", "")},
    }


def applied(plan: Plan, kind: str) -> Json:
    return next(a.body for a in plan.actions if isinstance(a, Apply) and a.body["kind"] == kind)


def told(plan: Plan) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in plan.status["conditions"]}


def message(plan: Plan, kind: str) -> str:
    return str(next(item["message"] for item in plan.status["conditions"] if item["type"] == kind))


def served(obs: Observation, *, ready: bool = True) -> Observation:
    """The observation once its Deployment and Service have been applied (and the pods are ready)."""
    for action in decide(obs, NOW).actions:
        obs = imagine(obs, action)
    assert obs.deployment is not None
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": int(ready)}
    return replace(obs, deployment={**obs.deployment, "status": status})


# ------------------------------------------------------------------ nodes and machines


def test_the_first_reconcile_takes_hold_and_asks_for_one_machine() -> None:
    """The finalizer precedes the Machine; nothing is deployed yet, and the status says what is going on."""
    plan = decide(seen(workspace(metadata={"finalizers": []})), NOW)

    assert [type(action) for action in plan.actions] == [AddFinalizer, CreateMachine]
    assert told(plan) == {
        "MachineReady": ("Unknown", "CreateMachinePending"),
        "ResourceReady": ("False", "CreateMachinePending"),
        "InferenceReady": ("False", "WaitingForResource"),
        "WorkspaceReady": ("False", "CreateMachinePending"),
        "WorkspaceSucceeded": ("False", "CreateMachinePending"),
    }
    assert message(plan, "MachineReady") == "creating 1 machines"
    assert (plan.status["state"], plan.status["targetNodeCount"]) == ("Pending", 1)


def test_the_machine_is_what_provisioners_of_its_api_expect() -> None:
    """Name, labels, requirements, taint and disk are the contract with the provisioner."""
    (create,) = decide(seen(), NOW).actions
    assert isinstance(create, CreateMachine)
    name = create.body["metadata"]["name"]

    assert name == machine_name("ns", "w", "u1", 0)
    assert len(name) == 11
    assert name.startswith("ws")
    assert create.body["metadata"]["labels"] == {
        "apps": "phi-3",
        "karpenter.sh/provisioner-name": "default",
        "kaito.sh/workspace": "w",
        "kaito.sh/workspacenamespace": "ns",
    }
    spec = create.body["spec"]
    assert {item["key"]: (item["operator"], item["values"]) for item in spec["requirements"]} == {
        "node.kubernetes.io/instance-type": ("In", [SKU]),
        "karpenter.sh/provisioner-name": ("In", ["default"]),
        "kaito.sh/machine-type": ("In", ["gpu"]),
        "kubernetes.io/arch": ("In", ["amd64"]),
        "kubernetes.io/os": ("In", ["linux"]),
    }
    assert spec["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert spec["resources"] == {"requests": {"storage": "50Gi"}}
    assert spec["machineTemplateRef"] == {"name": name}


def test_names_depend_on_the_workspace_and_the_index_only() -> None:
    """The same Workspace asks for the same names again; a namesake with another uid asks for others."""
    names = {machine_name(*key) for key in [("ns", "w", "u1", 0), ("ns", "w", "u1", 1), ("ns", "w", "u2", 0)]}

    assert len(names) == 3
    assert machine_name("ns", "w", "u1", 0) in names


@pytest.mark.parametrize(
    ("nodes", "machines", "created"),
    [
        ((), (), 2),
        ((node(),), (), 1),
        ((node(), node("n2")), (), 0),
        ((node(), node("n2"), node("n3")), (), 0),
        ((), (machine(0),), 1),
        ((), (machine(0), machine(1)), 0),
        ((node(),), (machine(0, node="n1"),), 1),
        ((node(ready=False),), (machine(0, node="n1"),), 1),
        ((node(),), (machine(1),), 0),
        ((), (machine(0, metadata={"deletionTimestamp": STAMP}), machine(1)), 0),
    ],
)
def test_as_many_machines_as_nodes_are_missing(
    nodes: tuple[Json, ...], machines: tuple[Json, ...], created: int
) -> None:
    """Nodes that exist count, Machines under way count, a leaving Machine's name is not reused."""
    obs = seen(workspace(resource={"count": 2}), nodes=nodes, machines=machines)

    names = [a.body["metadata"]["name"] for a in decide(obs, NOW).actions if isinstance(a, CreateMachine)]

    assert len(names) == created
    assert not set(names) & {item["metadata"]["name"] for item in machines}


@pytest.mark.parametrize(
    ("candidate", "taken"),
    [
        (node(), True),
        (node(ready=False), False),
        (node(deletionTimestamp=STAMP), False),
        (node(labels={"node.kubernetes.io/instance-type": "Standard_NC12s_v3"}), False),
        (node(labels={"node.kubernetes.io/instance-type": None}), True),
        (node(labels={"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "ns"}), True),
        (node(labels={"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "other"}), False),
        (node(labels={"kaito.sh/workspace": "other", "kaito.sh/workspacenamespace": "ns"}), False),
    ],
    ids=["fine", "not ready", "deleting", "other type", "no type", "ours", "namesake's", "another's"],
)
def test_a_node_is_taken_only_when_it_qualifies(candidate: Json, taken: bool) -> None:
    """Ready, staying, of the right type (or of none) and not made for another Workspace."""
    plan = decide(seen(nodes=(candidate,)), NOW)

    assert plan.status["workerNodes"] == (["n1"] if taken else [])
    assert any(isinstance(action, CreateMachine) for action in plan.actions) is not taken


def test_nodes_are_taken_in_the_order_of_preference() -> None:
    """Preferred, then already in use, then provisioned, then by name."""
    made = {"karpenter.sh/provisioner-name": "default"}
    nodes = (node("a"), node("b", labels=made), node("c"), node("d"))
    expected = ["d", "c", "b", "a"]
    for count in range(1, 5):
        resource = {"count": count, "preferredNodes": ["d"]}
        obs = seen(workspace(resource=resource, status={"workerNodes": ["c"]}), nodes=nodes)

        assert decide(obs, NOW).status["workerNodes"] == sorted(expected[:count])


def test_a_node_without_the_accelerator_label_gets_it() -> None:
    """The device plugin looks for accelerator=nvidia; a node with it is not patched again."""
    bare = node()
    del bare["metadata"]["labels"]["accelerator"]

    assert LabelNode("n1", (("accelerator", "nvidia"),)) in decide(seen(nodes=(bare,)), NOW).actions
    assert not any(isinstance(action, LabelNode) for action in decide(seen(nodes=(node(),)), NOW).actions)


def test_a_node_that_shows_no_gpu_is_not_a_resource() -> None:
    """Ready is not enough; the message names node, resource and what to check."""
    plan = decide(seen(nodes=(node(gpus="0"),)), NOW)

    assert told(plan)["ResourceReady"] == told(plan)["WorkspaceReady"] == ("False", "GpuNotVisible")
    assert not any(isinstance(action, Apply) for action in plan.actions)


def test_the_clouds_refusal_is_the_workspaces_reason() -> None:
    """Reason and words of the Machine's condition reach all conditions that it blocks."""
    refused = machine(
        conditions=[("MachineLaunched", "False", "QuotaExceeded", "0 of 6 cores left. Ask for more.")]
    )

    plan = decide(seen(machines=(refused,)), NOW)

    for kind in ("MachineReady", "ResourceReady", "WorkspaceReady"):
        assert told(plan)[kind] == ("False", "QuotaExceeded")
        assert "0 of 6 cores left. Ask for more" in message(plan, kind)
    assert plan.actions == ()


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([], "MachineCreating"),
        ([("MachineLaunched", "Unknown", "InstanceCreating", "soon")], "MachineCreating"),
        ([("MachineLaunched", "True", "", "")], "MachineNotRegistered"),
        (
            [
                ("MachineLaunched", "True", "", ""),
                ("MachineRegistered", "True", "", ""),
                ("MachineInitialized", "False", "StartupTaintsExist", "taint"),
            ],
            "StartupTaintsExist",
        ),
        (
            [
                ("MachineLaunched", "True", "", ""),
                ("MachineRegistered", "True", "", ""),
                ("MachineInitialized", "True", "", ""),
                ("Ready", "False", "NodeNotReady", "kubelet stopped"),
            ],
            "NodeNotReady",
        ),
        (
            [
                ("MachineLaunched", "True", "", ""),
                ("MachineRegistered", "True", "", ""),
                ("MachineInitialized", "True", "", ""),
                ("Ready", "True", "", ""),
            ],
            "NodeMismatch",
        ),
    ],
)
def test_progress_of_a_machine_is_told(conditions: list[tuple[str, str, str, str]], reason: str) -> None:
    """While a Machine is under way, ResourceReady says how far it is."""
    plan = decide(seen(machines=(machine(conditions=conditions),)), NOW)

    assert told(plan)["ResourceReady"] == ("False", reason)
    assert told(plan)["MachineReady"][0] == "Unknown"


def test_a_machine_that_leaves_is_told_and_not_replaced_before_it_has_gone() -> None:
    """Its name is taken until then, so the replacement waits for the deletion."""
    plan = decide(seen(machines=(machine(metadata={"deletionTimestamp": STAMP}),)), NOW)

    assert plan.actions == ()
    assert told(plan)["ResourceReady"] == ("False", "MachineDeleting")


def test_without_the_machine_api_only_nodes_that_exist_are_used() -> None:
    """An absent CRD is told, not crashed upon; labelled nodes still serve."""
    plan = decide(seen(machine_api=False), NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", "MachineApiMissing")
    assert told(decide(seen(machine_api=False, nodes=(node(),)), NOW))["ResourceReady"][0] == "True"


def test_without_an_instance_type_nodes_that_match_come_first() -> None:
    """A node that is there is used and none is made; without one, the cheapest type that fits is made."""
    obj = workspace(resource={"instanceType": None})

    (create,) = decide(seen(obj), NOW).actions
    assert isinstance(create, CreateMachine)
    assert create.body["spec"]["requirements"][0]["values"] == ["Standard_NV36ads_A10_v5"]
    assert told(decide(seen(obj, nodes=(node(),)), NOW))["ResourceReady"][0] == "True"


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("obj", "reason", "words"),
    [
        (
            workspace(inference={"preset": {"name": "phi-3-mini-4k-instuct"}}),
            "UnknownPreset",
            "phi-3-mini-4k-instruct",
        ),
        (workspace(inference={}), "InvalidSpec", "Preset or Template must be specified"),
        (workspace(inference=PHI, tuning=TUNING), "InvalidSpec", "not both"),
        (workspace(resource={"instanceType": "Standard_Bad"}), "InvalidSpec", "Unsupported instance"),
        (
            workspace(inference={"preset": {"name": "llama-2-70b-chat"}}),
            "InvalidSpec",
            "AccessMode must be private",
        ),
        (
            workspace(inference={**PHI, "adapters": [{"source": {"name": "a", "image": "ACR_REPO_HERE.io/a:1"}}]}),
            "PlaceholderInSpec",
            "ACR_REPO_HERE",
        ),
    ],
    ids=["typo", "nothing", "both", "sku", "private", "placeholder"],
)
def test_what_cannot_be_served_costs_nothing_and_is_told(obj: Json, reason: str, words: str) -> None:
    """No Machine, no workload; the condition names the cause and what to change."""
    plan = decide(seen(obj), NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", reason)
    assert words in message(plan, "WorkspaceReady")


def test_an_object_that_is_no_workspace_is_told_so() -> None:
    """What the schema let through and cannot be read is a condition too."""
    obs = Observation(workspace(), None, "resource.count: input should be a valid integer")

    plan = decide(obs, NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", "InvalidSpec")
    assert "resource.count" in message(plan, "WorkspaceReady")


def test_turning_inference_into_tuning_leaves_the_endpoint_alone() -> None:
    """The forbidden toggle is told, and what serves keeps serving."""
    running = served(seen(nodes=(node(),)))
    toggled = replace(seen(workspace(tuning=TUNING)), deployment=running.deployment, service=running.service)

    plan = decide(toggled, NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", "InvalidToggle")
    assert told(plan)["InferenceReady"][0] == "True"


# ------------------------------------------------------------------ workload


def test_the_service_is_the_seeds() -> None:
    """Ports 80 and 29500, a cluster address, endpoints before readiness, owned by the Workspace."""
    service = applied(decide(seen(nodes=(node(),)), NOW), "Service")

    assert [(p["name"], p["port"], p["targetPort"]) for p in service["spec"]["ports"]] == [
        ("http", 80, 5000),
        ("torch", 29500, 29500),
    ]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"kaito.sh/workspace": "w"}
    assert service["metadata"]["ownerReferences"][0]["uid"] == "u1"


@pytest.mark.parametrize(("value", "kind"), [("True", "LoadBalancer"), ("true", "ClusterIP"), ("", "ClusterIP")])
def test_only_the_exact_word_makes_a_load_balancer(value: str, kind: str) -> None:
    """kaito.sh/enablelb counts as upstream reads it."""
    obj = workspace(metadata={"annotations": {"kaito.sh/enablelb": value}})

    assert applied(decide(seen(obj, nodes=(node(),)), NOW), "Service")["spec"]["type"] == kind


def test_the_deployment_runs_the_server_of_the_preset() -> None:
    """Image, command, GPU, tolerations, affinity, probes and hardening of the one container."""
    body = applied(decide(seen(nodes=(node(),)), NOW), "Deployment")
    pod = body["spec"]["template"]
    (container,) = pod["spec"]["containers"]

    assert body["spec"]["replicas"] == 1
    assert body["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert container["image"] == "example.com/kaito/kaito-phi-3-mini-4k-instruct:0.0.2"
    assert container["command"] == ["kaito", "serve"]
    assert container["args"] == [
        "--preset=phi-3-mini-4k-instruct",
        "--model=/workspace/weights",
        "--served-model-name=phi-3-mini-4k-instruct",
        "--host=$(POD_IP)",
        "--port=5000",
        "--drain-seconds=30",
        "--adapters=/etc/kaito/adapters/adapters.json",
        "--pull-secrets=/etc/kaito/pull-secrets",
        "--cache=/var/cache/kaito",
        "--max-loras=1",
    ]
    assert container["resources"] == {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    assert {item["key"] for item in pod["spec"]["tolerations"]} == {"nvidia.com/gpu", "sku"}
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "apps", "operator": "In", "values": ["phi-3"]}]}
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": 5000}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 1800
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_a_template_stays_the_users() -> None:
    """Containers, labels and tolerations are kept; label, affinity and tolerations are added; no Service."""
    template = {
        "metadata": {"labels": {"mine": "yes"}},
        "spec": {
            "containers": [{"name": "c", "image": "example.com/x:1"}],
            "tolerations": [{"key": "mine", "operator": "Exists"}],
            "affinity": {"podAffinity": {"x": 1}, "nodeAffinity": {"y": 1}},
        },
    }
    plan = decide(seen(workspace(inference={"template": template}), nodes=(node(),)), NOW)
    body = applied(plan, "Deployment")
    pod = body["spec"]["template"]

    kinds = [action.body["kind"] for action in plan.actions if isinstance(action, Apply)]
    assert kinds == ["ControllerRevision", "Deployment"]
    assert pod["metadata"]["labels"] == {"mine": "yes", "kaito.sh/workspace": "w"}
    assert pod["spec"]["containers"] == template["spec"]["containers"]  # type: ignore[index]
    assert [item["key"] for item in pod["spec"]["tolerations"]] == ["mine", "nvidia.com/gpu", "sku"]
    assert set(pod["spec"]["affinity"]) == {"podAffinity", "nodeAffinity"}
    assert pod["spec"]["affinity"]["nodeAffinity"]["y"] == 1


def test_what_is_applied_is_not_applied_again_and_drift_is() -> None:
    """An unchanged object costs no request; an edit by hand is applied again."""
    obs = served(seen(nodes=(node(),)))
    assert decide(obs, NOW).actions == ()

    assert obs.deployment is not None
    drifted = replace(obs, deployment={**obs.deployment, "spec": {**obs.deployment["spec"], "replicas": 3}})
    assert [type(action) for action in decide(drifted, NOW).actions] == [Apply]


def test_an_object_of_somebody_else_is_not_taken_over() -> None:
    """A Deployment of that name that the Workspace does not own stays, and the condition says so."""
    foreign = {"metadata": {"name": "w", "uid": "x"}, "spec": {"replicas": 1}}

    plan = decide(seen(nodes=(node(),), deployment=foreign), NOW)

    assert not any(isinstance(action, Apply) for action in plan.actions)
    assert told(plan)["InferenceReady"] == ("False", "WorkloadConflict")
    assert plan.requeue_after is not None


def test_a_lost_node_takes_readiness_down_and_leaves_the_workload() -> None:
    """Readiness is what holds now: the state becomes NotReady, nothing is deleted."""
    running = served(seen(nodes=(node(),)))
    ready = decide(running, NOW)
    assert ready.status["state"] == "Ready"

    obj = {**running.obj, "status": ready.status}
    lost = replace(running, obj={**obj, "metadata": running.obj["metadata"]})
    lost = replace(lost, nodes=(node(ready=False),), machines=(machine(node="n1"),))
    plan = decide(lost, NOW)

    assert plan.actions == ()
    assert told(plan)["ResourceReady"][0] == told(plan)["WorkspaceReady"][0] == "False"
    assert plan.status["state"] == "NotReady"


# ------------------------------------------------------------------ readiness


def test_all_true_says_upstreams_words() -> None:
    """Reasons and messages of a ready Workspace are those that scripts of the seed's era match on."""
    plan = decide(served(seen(nodes=(node(),))), NOW)

    assert {
        item["type"]: (item["status"], item["reason"], item["message"]) for item in plan.status["conditions"]
    } == {
        "MachineReady": (
            "True",
            "installNodePluginsSuccess",
            "machines plugins have been installed successfully",
        ),
        "ResourceReady": ("True", "workspaceResourceStatusSuccess", "workspace resource is ready"),
        "InferenceReady": (
            "True",
            "WorkspaceInferenceStatusSuccess",
            "Inference has been deployed successfully",
        ),
        "WorkspaceReady": ("True", "workspaceReady", "workspace is ready"),
        "WorkspaceSucceeded": ("True", "workspaceSucceeded", "workspace succeeds"),
    }
    assert {item["observedGeneration"] for item in plan.status["conditions"]} == {2}
    assert plan.status["workerNodes"] == ["n1"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"observedGeneration": 0, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}, "WorkloadPending"),
        ({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 0, "readyReplicas": 1}, "RollingOut"),
        ({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0}, "WorkloadPending"),
        ({}, "WorkloadPending"),
    ],
    ids=["old generation", "old replica left", "not updated", "not ready", "unseen"],
)
def test_only_the_current_generation_counts_as_ready(status: Json, reason: str) -> None:
    """A ready replica of what was asked for before is not what is asked for now."""
    obs = served(seen(nodes=(node(),)))
    assert obs.deployment is not None

    plan = decide(replace(obs, deployment={**obs.deployment, "status": status}), NOW)

    assert told(plan)["InferenceReady"] == ("False", reason)


def pod(name: str = "w-1", **status: Any) -> Json:
    return {"metadata": {"name": name}, "status": {"phase": "Pending", **status}}


def container(state: Json, **rest: Any) -> Json:
    return {"containerStatuses": [{"image": "example.com/x:1", "state": state, **rest}]}


KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
CRASHED = {"terminated": {"exitCode": 137, "reason": "Error", "message": "no space"}}


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        ((pod(),), "PodPending", "w-1"),
        (
            (
                pod(
                    conditions=[
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "reason": "Unschedulable",
                            "message": "0/1 nodes are available",
                        }
                    ]
                ),
            ),
            "PodUnschedulable",
            "0/1 nodes are available",
        ),
        (
            (pod(**container({"waiting": {"reason": "ImagePullBackOff", "message": "denied"}})),),
            "ImagePullFailed",
            "example.com/x:1",
        ),
        (
            (pod(**container({"waiting": {"reason": "CrashLoopBackOff"}}, lastState=CRASHED, restartCount=4)),),
            "CrashLoop",
            "exit code 137 and was restarted 4 times: no space",
        ),
        ((pod(**container({"running": {}}, lastState=CRASHED, restartCount=1)),), "CrashLoop", "137"),
        (
            (
                pod(
                    **container(
                        {"waiting": {}}, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
                    )
                ),
            ),
            "OutOfMemory",
            "memory",
        ),
        (
            (pod(**container({"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}})),),
            "ContainerStartFailed",
            "no secret",
        ),
        ((pod(**container({"running": {}})),), "ContainerStarting", "w-1"),
        ((pod(phase="Failed", reason="Evicted", message="disk"),), "PodEvicted", "disk"),
        (
            (
                pod("a", **container({"running": {}})),
                pod("b", **container({"waiting": {"reason": "ErrImagePull"}})),
            ),
            "ImagePullFailed",
            "Pod b",
        ),
        (({**pod(), "metadata": {"name": "w-1", "deletionTimestamp": STAMP}},), "PodTerminating", "w-1"),
        ((), "WorkloadPending", "0 of 1"),
    ],
)
def test_the_pods_say_why_the_endpoint_is_not_ready(pods: tuple[Json, ...], reason: str, words: str) -> None:
    """The most urgent finding over the living pods is the reason, with its facts."""
    plan = decide(replace(served(seen(nodes=(node(),)), ready=False), pods=pods), NOW)

    assert told(plan)["InferenceReady"] == told(plan)["WorkspaceReady"] == ("False", reason)
    assert words in message(plan, "InferenceReady")


def test_a_refusal_of_the_api_server_is_told_in_the_condition_that_it_blocks() -> None:
    """What could not be created is no silent retry."""
    failures = (
        Failure(MACHINE_READY, Why("machineFailedCreation", "Forbidden: no")),
        Failure(INFERENCE_READY, Why("ReconcileFailed", "Invalid: bad template")),
    )

    plan = decide(seen(failures=failures), NOW)

    assert told(plan)["MachineReady"] == told(plan)["WorkspaceReady"] == ("False", "machineFailedCreation")
    assert told(plan)["InferenceReady"] == ("False", "ReconcileFailed")


def test_deciding_twice_about_the_same_world_changes_nothing() -> None:
    """Times move with a condition's status only, so an unchanged world gives an equal status later."""
    waiting = machine(conditions=[("MachineLaunched", "False", "QuotaExceeded", "no")])
    for obs in (
        seen(),
        seen(machines=(waiting,)),
        served(seen(nodes=(node(),))),
        seen(workspace(tuning=TUNING)),
        seen(workspace(metadata={"deletionTimestamp": STAMP}), machines=(waiting,)),
    ):
        first = decide(obs, NOW).status
        obj = {**obs.obj, "status": first}
        again = replace(obs, obj=obj, workspace=Workspace.parse(obj))

        assert decide(again, NOW + timedelta(minutes=5)).status == first


def test_a_condition_that_nothing_finds_any_more_is_dropped() -> None:
    """The status holds what was observed now and no memories."""
    old = {"type": "JobStarted", "status": "True", "reason": "x", "message": "", "lastTransitionTime": STAMP}

    assert "JobStarted" not in told(decide(seen(workspace(status={"conditions": [old]})), NOW))


# ------------------------------------------------------------------ deletion


def test_deletion_asks_workload_and_machines_to_go_and_waits_for_the_machines() -> None:
    """The finalizer stays as long as a Machine is there, and the status says for which."""
    running = served(seen(nodes=(node(),)))
    obj = workspace(metadata={"deletionTimestamp": STAMP})
    leaving = machine(1, metadata={"deletionTimestamp": STAMP})
    obs = replace(running, obj=obj, workspace=Workspace.parse(obj), machines=(machine(0), leaving))

    plan = decide(obs, NOW)

    assert [type(action) for action in plan.actions] == [DeleteOwned, DeleteOwned, DeleteOwned, DeleteMachine]
    assert plan.actions[-1] == DeleteMachine(machine(0)["metadata"]["name"], "m0")
    assert told(plan)["WorkspaceDeleting"] == ("True", "workspaceDeleted")
    assert told(plan)["WorkspaceReady"] == ("False", "Deleting")


def test_deletion_ends_when_no_machine_is_left() -> None:
    """Nothing left: the finalizer goes and nothing else is written."""
    plan = decide(seen(workspace(metadata={"deletionTimestamp": STAMP})), NOW)

    assert plan == Plan((RemoveFinalizer(),), {})


def test_orphaning_keeps_the_workload() -> None:
    """Deleted with --cascade=orphan, the endpoint is left running; its Machines still go."""
    running = served(seen(nodes=(node(),)))
    obj = workspace(metadata={"deletionTimestamp": STAMP, "finalizers": [FINALIZER, "orphan"]})
    obs = replace(running, obj=obj, machines=(machine(0),))

    assert [type(action) for action in decide(obs, NOW).actions] == [DeleteMachine]


def test_a_workspace_that_is_deleted_without_our_finalizer_is_left_alone() -> None:
    """Somebody else's finalizer holds it; our work with it is over."""
    obj = workspace(metadata={"deletionTimestamp": STAMP, "finalizers": ["other"]})

    assert decide(seen(obj, machines=(machine(0),)), NOW) == Plan((), {})


def test_an_edit_that_is_refused_keeps_what_runs_and_where() -> None:
    """The nodes and their number stay in the status: the pods are there still."""
    running = served(seen(nodes=(node(),)))
    obj = workspace(
        status={"workerNodes": ["n1"], "targetNodeCount": 1}, inference={"preset": {"name": "phi-typo"}}
    )
    plan = decide(replace(running, obj=obj, workspace=Workspace.parse(obj)), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "UnknownPreset")
    assert (plan.status["workerNodes"], plan.status["targetNodeCount"]) == (["n1"], 1)
