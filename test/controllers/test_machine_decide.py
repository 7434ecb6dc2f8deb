"""What the Machine controller decides, as tables of observations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controllers.machine.attempts import AttemptBook
from controllers.machine.decide import decide, needs_cloud
from controllers.machine.model import (
    AddFinalizer,
    Attempts,
    CreateInstance,
    DeleteInstance,
    DeleteMachine,
    DeleteNode,
    EvictPod,
    Limits,
    Observation,
    PatchNode,
    Plan,
    RemoveFinalizer,
)
from controllers.machine.request import instance_request
from provisioner import Instance, InstanceState, Owner, Taint
from provisioner.errors import CloudUnavailable, QuotaExceeded, SkuNotAllowed

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-11-20T12:00:00Z"
PROVIDER_ID = "local:///instances/ws1"
FINALIZER = "karpenter.sh/termination"


def machine(*, conditions: dict[str, str] | None = None, since: str = STAMP, **meta: Any) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if conditions is not None:
        status = {
            "providerID": PROVIDER_ID,
            "conditions": [
                {"type": kind, "status": value, "reason": "", "message": "", "lastTransitionTime": since}
                for kind, value in conditions.items()
            ],
        }
    return {
        "apiVersion": "karpenter.sh/v1alpha5",
        "kind": "Machine",
        "metadata": {
            "name": "ws1",
            "uid": "u1",
            "resourceVersion": "7",
            "labels": {"kaito.sh/workspace": "w", "apps": "phi-3"},
            "finalizers": [FINALIZER],
            **meta,
        },
        "spec": {
            "requirements": [
                {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3", "b"]}
            ],
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            "resources": {"requests": {"storage": "50Gi", "nvidia.com/gpu": "1"}},
        },
        "status": status,
    }


def node(*, ready: bool = True, gpus: str = "1", **changes: Any) -> dict[str, Any]:
    amounts = {"cpu": "4", "nvidia.com/gpu": gpus}
    return {
        "metadata": {"name": "ws1", "uid": "n1", "resourceVersion": "3", "labels": {}},
        "spec": {"providerID": PROVIDER_ID, "taints": changes.get("taints", [])},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False", "message": "kubelet says"}],
            "capacity": amounts,
            "allocatable": amounts,
        },
    }


def instance(state: InstanceState = InstanceState.RUNNING, **changes: Any) -> Instance:
    return Instance("ws1", "Standard_NC6s_v3", state, **{"provider_id": PROVIDER_ID, **changes})


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item.get("reason", "")) for item in plan.status["conditions"]}


ALL = {"MachineLaunched": "True", "MachineRegistered": "True", "MachineInitialized": "True", "Ready": "True"}


def test_the_finalizer_comes_before_anything_else() -> None:
    """A Machine without the finalizer gets it, and nothing else happens in that step."""
    plan = decide(Observation(machine(finalizers=[]), asked=True), NOW)

    assert plan.actions == (AddFinalizer(),)
    assert plan.cloud is None


def test_an_absent_instance_is_created_with_the_first_type_that_is_acceptable() -> None:
    """The request carries the instance's name, types in order, labels, taints, disk and owner of the Machine."""
    plan = decide(Observation(machine(creationTimestamp=STAMP), instance_name="k1", asked=True), NOW)

    assert isinstance(plan.cloud, CreateInstance)
    request = plan.cloud.request
    assert (request.name, request.instance_types) == ("k1", ("Standard_NC6s_v3", "b"))
    assert request.taints == (Taint("sku", "NoSchedule", "gpu"),)
    assert request.owner == Owner("ws1", "u1", "Machine", NOW)
    assert request.labels["apps"] == "phi-3"
    assert request.storage_bytes == 50 * 1024**3


def test_zones_capacity_and_image_are_asked_for() -> None:
    """Requirements choose zones and spot, the annotation the image; start-up taints stay apart."""
    wanted = machine(annotations={"kaito.sh/node-image-family": "AzureLinux"})
    wanted["spec"]["requirements"] += [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eastus-2", "eastus-1"]},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]},
        {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["eastus-3"]},
    ]
    wanted["spec"]["startupTaints"] = [{"key": "wait", "effect": "NoExecute"}]

    request = instance_request(wanted, "k1")

    assert request.zones == ("eastus-2", "eastus-1")
    assert request.capacity_types == ("spot", "on-demand")
    assert request.image_family == "AzureLinux"
    assert request.startup_taints == (Taint("wait", "NoExecute"),)
    assert request.taints == (Taint("sku", "NoSchedule", "gpu"),)
    assert instance_request(machine(), "k1").capacity_types == ("on-demand",)


def test_what_can_never_succeed_is_not_tried_again() -> None:
    """A terminal refusal stands in the condition, no timer runs, and only an edit or a deletion asks again."""
    book, wanted = AttemptBook(), machine(generation=1)
    error = SkuNotAllowed("not in your subscription")
    refused = Observation(wanted, asked=False, cloud_error=error, attempts=book.failed(wanted, error, NOW))

    plan = decide(refused, NOW)

    assert conditions(plan)["MachineLaunched"] == ("False", "SkuNotAllowedInSubscription")
    assert plan.requeue_after is None
    later = NOW + timedelta(days=30)
    edited, deleting = machine(generation=2), machine(generation=2, deletionTimestamp=STAMP)
    assert not needs_cloud(Observation(wanted, attempts=book.of(wanted)), later)
    assert needs_cloud(Observation(edited, attempts=book.of(edited)), later)
    assert needs_cloud(Observation(deleting, attempts=book.failed(deleting, error, NOW)), later)


def test_a_machine_that_names_no_type_is_told_so_and_not_retried() -> None:
    """Only an edit helps, so the condition names the field and no timer runs."""
    broken = machine()
    broken["spec"]["requirements"] = []

    plan = decide(Observation(broken, asked=True), NOW)

    assert plan.cloud is None
    assert conditions(plan)["MachineLaunched"] == ("False", "InvalidMachine")
    assert "spec.requirements" in plan.status["conditions"][1]["message"]
    assert plan.requeue_after is None


@pytest.mark.parametrize(
    ("found", "launched", "cloud"),
    [
        (instance(InstanceState.CREATING), ("Unknown", "InstanceCreating"), None),
        (instance(InstanceState.RUNNING), ("True", ""), None),
        (instance(InstanceState.RUNNING, provider_id=""), ("True", ""), None),
        (instance(InstanceState.FAILED), None, DeleteInstance()),
        (instance(InstanceState.DELETING), None, None),
    ],
    ids=["creating", "running", "running without id", "failed", "deleting"],
)
def test_an_instance_is_followed(found: Instance, launched: tuple[str, str] | None, cloud: object) -> None:
    """Each state of the cloud's instance has one answer, and none of them is a second create."""
    plan = decide(Observation(machine(), asked=True, instance=found), NOW)

    assert conditions(plan).get("MachineLaunched") == launched
    assert plan.cloud == cloud


def test_a_refusal_is_told_with_its_reason_its_way_out_and_the_next_attempt() -> None:
    """The cloud's words reach MachineLaunched and Ready in the reconcile that saw them."""
    error = QuotaExceeded("0 of 6 cores left")
    obs = Observation(machine(), cloud_error=error, attempts=Attempts(1, NOW + timedelta(seconds=60)))

    plan = decide(obs, NOW)

    assert plan.cloud is None
    assert plan.requeue_after == 60
    told = {item["type"]: item for item in plan.status["conditions"]}
    assert conditions(plan)["Ready"] == conditions(plan)["MachineLaunched"] == ("False", "QuotaExceeded")
    for part in ("0 of 6 cores left", error.next_step, "2026-11-20T12:01:00Z"):
        assert part in told["MachineLaunched"]["message"]


def test_between_two_attempts_the_cloud_is_left_alone() -> None:
    """Before the next attempt is due nothing is asked, nothing created, and the condition stays."""
    waiting = Attempts(3, NOW + timedelta(seconds=40))
    before = machine(conditions={"MachineLaunched": "False"})
    obs = Observation(before, attempts=waiting)

    plan = decide(obs, NOW)

    assert not needs_cloud(obs, NOW)
    assert (plan.cloud, plan.requeue_after) == (None, 40)
    assert conditions(plan)["MachineLaunched"] == ("False", "")
    assert needs_cloud(obs, NOW + timedelta(seconds=41))


@pytest.mark.parametrize(
    ("nodes", "registered"),
    [
        ((), ("False", "NodeNotFound")),
        ((node(), node()), ("False", "MultipleNodesFound")),
        ((node(),), ("True", "")),
    ],
    ids=["none", "two", "one"],
)
def test_registration_needs_exactly_one_node(
    nodes: tuple[dict[str, Any], ...], registered: tuple[str, str]
) -> None:
    """A launched Machine is registered by the one node that bears its providerID."""
    plan = decide(Observation(machine(conditions={"MachineLaunched": "True"}), nodes=nodes), NOW)

    assert conditions(plan)["MachineRegistered"] == registered


def test_the_node_is_made_the_machines_own_in_one_patch() -> None:
    """Labels, owner and the taints it lacks are merged, guarded by the resourceVersion that was read."""
    own_taint = {"key": "own", "effect": "NoExecute"}
    plan = decide(
        Observation(machine(conditions={"MachineLaunched": "True"}), nodes=(node(taints=[own_taint]),)), NOW
    )

    (patch,) = plan.actions
    assert isinstance(patch, PatchNode)
    assert patch.patch["metadata"]["resourceVersion"] == "3"
    assert patch.patch["metadata"]["labels"] == {
        "kaito.sh/workspace": "w",
        "apps": "phi-3",
        "karpenter.sh/registered": "true",
        "accelerator": "nvidia",
    }
    assert patch.patch["metadata"]["finalizers"] == [FINALIZER]
    assert patch.patch["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert patch.patch["spec"]["taints"] == [own_taint, {"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert plan.status["nodeName"] == "ws1"
    assert plan.status["capacity"]["nvidia.com/gpu"] == "1"


def test_taints_are_not_put_back_after_registration() -> None:
    """A taint that somebody took off a registered node stays off."""
    obs = Observation(machine(conditions=ALL), nodes=(node(),))

    (patch,) = decide(obs, NOW).actions

    assert isinstance(patch, PatchNode)
    assert "spec" not in patch.patch
    assert patch.patch["metadata"]["labels"]["karpenter.sh/initialized"] == "true"


@pytest.mark.parametrize(
    ("of", "initialized"),
    [
        (node(ready=False), ("False", "NodeNotReady")),
        (
            node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]),
            ("False", "KnownEphemeralTaintsExist"),
        ),
        (node(gpus="0"), ("False", "ResourceNotRegistered")),
        (node(), ("True", "")),
    ],
    ids=["not ready", "ephemeral taint", "no gpu", "fine"],
)
def test_initialization_waits_for_a_usable_node(of: dict[str, Any], initialized: tuple[str, str]) -> None:
    """Ready, free of start-up taints and showing what was asked for; storage is not asked of the node."""
    obs = Observation(machine(conditions={"MachineLaunched": "True"}), nodes=(of,))

    plan = decide(obs, NOW)

    assert conditions(plan)["MachineInitialized"] == initialized
    assert conditions(plan)["Ready"][0] == initialized[0]


@pytest.mark.parametrize(
    ("nodes", "ready"),
    [
        ((node(),), ("True", "")),
        ((node(ready=False),), ("False", "NodeNotReady")),
        ((), ("False", "NodeNotFound")),
    ],
    ids=["healthy", "not ready", "gone"],
)
def test_ready_follows_the_node_and_the_history_stays(
    nodes: tuple[dict[str, Any], ...], ready: tuple[str, str]
) -> None:
    """A node that falters takes Ready down and back up, and leaves the other three as they are."""
    plan = decide(Observation(machine(conditions=ALL), nodes=nodes), NOW)

    assert conditions(plan)["Ready"] == ready
    assert {conditions(plan)[kind][0] for kind in ALL if kind != "Ready"} == {"True"}


def test_deciding_twice_about_the_same_world_changes_nothing() -> None:
    """The status of a plan is a fixed point: decided again a minute later it is equal, so not written."""
    for obs in (
        Observation(machine(), cloud_error=QuotaExceeded("no"), attempts=Attempts(1, NOW + timedelta(hours=1))),
        Observation(machine(), asked=True, instance=instance(InstanceState.CREATING)),
        Observation(machine(conditions={"MachineLaunched": "True"}), nodes=(node(),)),
        Observation(machine(conditions=ALL), nodes=(node(ready=False),)),
    ):
        first = decide(obs, NOW).status
        again = Observation(
            {**obs.machine, "status": first},
            instance=obs.instance,
            asked=obs.asked,
            cloud_error=obs.cloud_error,
            nodes=obs.nodes,
            attempts=obs.attempts,
        )

        assert decide(again, NOW + timedelta(minutes=1)).status == first


def test_a_machine_whose_node_never_comes_is_given_up() -> None:
    """Measured from the launch; before the limit the time that is left is the requeue."""
    launched = machine(conditions={"MachineLaunched": "True"})
    obs = Observation(launched, limits=Limits(registration=900))

    assert decide(obs, NOW + timedelta(seconds=100)).requeue_after == 800
    (given_up,) = decide(obs, NOW + timedelta(seconds=900)).actions
    assert isinstance(given_up, DeleteMachine)
    assert (given_up.uid, given_up.reason) == ("u1", "RegistrationTimeout")


def pod(name: str, **changes: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": name, **changes.get("metadata", {})}
    return {"metadata": meta, "status": {"phase": changes.get("phase", "Running")}}


DELETING = {"deletionTimestamp": STAMP}


def test_termination_empties_the_node_first() -> None:
    """The node is cordoned, then its pods are asked to leave; the instance lives on meanwhile."""
    cordoned = node(taints=[{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}])
    cordoned["spec"]["unschedulable"] = True
    cordoned["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] = "karpenter"
    obs = Observation(
        machine(conditions=ALL, **DELETING),
        asked=True,
        instance=instance(),
        nodes=(cordoned,),
        pods=(
            pod("model"),
            pod("leaving", metadata={"deletionTimestamp": STAMP}),
            pod("daemon", metadata={"ownerReferences": [{"kind": "DaemonSet"}]}),
            pod("done", phase="Succeeded"),
        ),
    )

    first = decide(replace(obs, nodes=(node(),)), NOW)
    plan = decide(obs, NOW)

    (cordon,) = first.actions
    assert isinstance(cordon, PatchNode)
    assert cordon.patch["spec"] == {
        "taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}],
        "unschedulable": True,
    }
    assert plan.actions == (EvictPod("default", "model", "model"),)
    assert first.cloud is plan.cloud is None
    assert conditions(plan)["Ready"] == ("False", "Draining")

    late = decide(obs, NOW + timedelta(seconds=obs.limits.drain))
    assert late.cloud == DeleteInstance()


@pytest.mark.parametrize(
    ("found", "nodes", "actions", "cloud"),
    [
        (instance(), (), (), DeleteInstance()),
        (instance(InstanceState.DELETING), (node(),), (), None),
        (None, (node(),), (DeleteNode("ws1", "n1"), RemoveFinalizer()), None),
        (None, (), (RemoveFinalizer(),), None),
    ],
    ids=["running", "deleting", "instance gone", "all gone"],
)
def test_termination_goes_one_step_at_a_time(
    found: Instance | None, nodes: tuple[dict[str, Any], ...], actions: tuple[object, ...], cloud: object
) -> None:
    """Instance, then node object, then finalizer; what is absent already counts as done."""
    obs = Observation(machine(conditions=ALL, **DELETING), asked=True, instance=found, nodes=nodes)

    plan = decide(obs, NOW)

    assert (plan.actions, plan.cloud) == (actions, cloud)


def test_a_cloud_that_cannot_be_asked_holds_the_finalizer_and_is_told() -> None:
    """Without an answer nothing counts as gone."""
    error = CloudUnavailable("refused")
    obs = Observation(
        machine(conditions=ALL, **DELETING), cloud_error=error, attempts=Attempts(1, NOW + timedelta(seconds=2))
    )

    plan = decide(obs, NOW)

    assert plan.actions == ()
    assert plan.requeue_after == 2
    assert conditions(plan)["Ready"] == ("False", "CloudUnavailable")


def test_a_machine_without_our_finalizer_that_is_deleted_is_left_alone() -> None:
    """Somebody else's finalizer holds it; our work with it is over."""
    obs = Observation(machine(finalizers=["other"], **DELETING))

    assert decide(obs, NOW) == Plan((), None, {})
    assert not needs_cloud(obs, NOW)


def test_waiting_for_quota_does_not_delay_a_deletion() -> None:
    """Attempts to create and to delete are counted apart, and a namesake starts afresh."""
    book = AttemptBook()
    error = QuotaExceeded("no")

    assert book.failed(machine(), error, NOW) == Attempts(1, NOW + timedelta(seconds=60), since=NOW)
    later = NOW + timedelta(seconds=60)
    assert book.failed(machine(), error, later) == Attempts(2, later + timedelta(seconds=120), since=NOW)
    assert book.of(machine(**DELETING)) == Attempts()
    assert book.of(machine(uid="u2")) == Attempts()
    book.forget("ws1")
    assert book.of(machine()) == Attempts()
