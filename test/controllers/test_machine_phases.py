"""The phases of a Machine and of a NodeClaim, as tables of observations: no server, no cloud, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.conditions import conditions_of
from controllers.machine.attempts import AttemptBook
from controllers.machine.consistency import inconsistencies
from controllers.machine.decide import decide, needs_cloud
from controllers.machine.drain import volumes
from controllers.machine.events import transitions
from controllers.machine.kinds import KINDS, MACHINE, NODECLAIM, Kind
from controllers.machine.model import (
    AddFinalizer,
    Blocked,
    CreateInstance,
    DeleteInstance,
    DeleteMachine,
    DeleteNode,
    DeletePod,
    EvictPod,
    Limits,
    Observation,
    PatchNode,
    Plan,
    RemoveFinalizer,
)
from controllers.machine.progress import History, spoken, step, under_way
from controllers.machine.replacements import ReplacementBook
from provisioner import Instance, InstanceState
from provisioner.errors import CapacityUnavailable, OperationInProgress, SkuNotAvailable, Throttled

Json = dict[str, Any]
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
ID = "local:///instances/ws1"
FINALIZER = "karpenter.sh/termination"
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def at(**before: float) -> str:
    return (NOW - timedelta(**before)).strftime("%Y-%m-%dT%H:%M:%SZ")


def claim(kind: Kind = MACHINE, *, since: str = "", messages: dict[str, str] | None = None, **true: Any) -> Json:
    """A claim whose conditions are given by phase: ``launched="True"`` and so on; the rest is metadata."""
    marks = {
        getattr(kind, phase): true.pop(phase)
        for phase in ("launched", "registered", "initialized")
        if phase in true
    }
    if "ready" in true:
        marks["Ready"] = true.pop("ready")
    listed = [
        {
            "type": type_,
            "status": status.partition("/")[0],
            "reason": status.partition("/")[2],
            "message": (messages or {}).get(type_, ""),
            "lastTransitionTime": since or at(),
        }
        for type_, status in marks.items()
    ]
    spec = true.pop("spec", {})
    return {
        "apiVersion": kind.resource.api_version,
        "kind": kind.name,
        "metadata": {
            "name": "ws1",
            "uid": "u1",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": at(hours=1),
            "labels": {"kaito.sh/workspace": "w"},
            "finalizers": [FINALIZER],
            **true,
        },
        "spec": {
            "requirements": [
                {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC6s_v3"]}
            ],
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            **spec,
        },
        "status": {"conditions": listed} if listed else {},
    }


def node(*, ready: bool = True, gpus: str = "1", taints: tuple[Json, ...] = (), **meta: Any) -> Json:
    amounts = {"cpu": "4", "nvidia.com/gpu": gpus}
    return {
        "metadata": {"name": "n", "uid": "n1", "resourceVersion": "3", "labels": {}, **meta},
        "spec": {"providerID": ID, "taints": list(taints)},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready), "message": "kubelet says"}],
            "capacity": amounts,
            "allocatable": amounts,
        },
    }


def cordoned(**changes: Any) -> Json:
    made = node(taints=({"key": "karpenter.sh/disrupted", "effect": "NoSchedule"},), **changes)
    made["spec"]["unschedulable"] = True
    made["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] = "karpenter"
    return made


def seen(kind: Kind = MACHINE, of: Json | None = None, **changes: Any) -> Observation:
    return Observation(of or claim(kind), kind, instance_name="k1", **changes)


def instance(state: InstanceState = InstanceState.RUNNING, **changes: Any) -> Instance:
    return Instance("k1", "Standard_NC6s_v3", state, **changes)


def told(plan: Plan) -> dict[str, tuple[str, str]]:
    listed = plan.status.get("conditions") or []
    return {item["type"].removeprefix("Machine"): (item["status"], item.get("reason", "")) for item in listed}


def message(plan: Plan, kind: Kind, phase: str = "launched") -> str:
    type_ = "Ready" if phase == "ready" else getattr(kind, phase)
    return next(str(item.get("message", "")) for item in plan.status["conditions"] if item["type"] == type_)


def pod(name: str, **changes: Any) -> Json:
    meta = {"name": name, "namespace": "d", "uid": name, **changes.pop("metadata", {})}
    status = {"phase": changes.pop("phase", "Running")}
    return {"metadata": meta, "spec": changes, "status": status}


LAUNCHED = {"launched": "True"}
REGISTERED = {"launched": "True", "registered": "True"}
READY = {**REGISTERED, "initialized": "True", "ready": "True"}

# ------------------------------------------------------------------ which are ours


@pytest.mark.acceptance("PV-e2e-ragengine", "PV-e2e-nodeclass-without-labels", "PV-e2e-foreign-nodeclass")
def test_only_claims_of_kaito_are_served() -> None:
    """A workspace's or RAG engine's label makes either kind ours, and the node class of ours a NodeClaim."""
    ours, foreign = (
        {"group": group, "kind": kind}
        for group, kind in (("kaito.sh", "KaitoNodeClass"), ("karpenter.azure.com", "AKSNodeClass"))
    )
    for kind in KINDS:
        assert kind.serves(claim(kind))
        assert kind.serves(claim(kind, labels={"kaito.sh/ragengine": "r"}))
        assert not kind.serves(claim(kind, labels={"other": "1"}))
    assert NODECLAIM.serves(claim(NODECLAIM, labels={}, spec={"nodeClassRef": ours}))
    assert not NODECLAIM.serves(claim(NODECLAIM, labels={}, spec={"nodeClassRef": foreign}))
    assert not MACHINE.serves(claim(MACHINE, labels={}, spec={"nodeClassRef": ours}))


# ------------------------------------------------------------------ launch


@pytest.mark.acceptance("PV-finalizer-added")
@both
def test_the_finalizer_is_first(kind: Kind) -> None:
    """Before anything is asked of the cloud the claim holds itself back from vanishing."""
    plan = decide(seen(kind, claim(kind, finalizers=[]), asked=True), NOW)

    assert (plan.actions, plan.cloud) == ((AddFinalizer(),), None)


@pytest.mark.acceptance("PV-launch-linked")
@both
def test_a_linked_claim_never_gets_another_instance(kind: Kind) -> None:
    """It stands for the instance that it names; when that is gone, so is the claim."""
    linked = claim(kind, annotations={"karpenter.sh/linked": ID})
    found = decide(seen(kind, linked, asked=True, instance=instance()), NOW)
    lost = decide(seen(kind, linked, asked=True), NOW)

    assert told(found)["Launched"][0] == "True"
    assert lost.cloud is None
    assert [type(action) for action in lost.actions] == [DeleteMachine]


@pytest.mark.acceptance("PV-launch-insufficient-capacity")
@both
def test_missing_capacity_is_told_and_tried_again(kind: Kind) -> None:
    """Condition and event say the cloud's words; the claim stays, because its reason would go with it."""
    error = CapacityUnavailable("none left", retry_after=30)
    book = AttemptBook()
    plan = decide(seen(kind, cloud_error=error, attempts=book.failed(claim(kind), error, NOW)), NOW)
    (event,) = [
        item for item in transitions((), conditions_of({"status": plan.status}), kind) if item[0] == "Warning"
    ]

    assert told(plan)["Launched"] == ("False", "CapacityUnavailable")
    assert told(plan)["Ready"][0] == "False"
    assert (plan.actions, plan.requeue_after) == ((), 30)
    assert (event.reason, event.note) == ("InsufficientCapacityError", message(plan, kind))
    assert event.note.startswith("none left. Wait for capacity")


@pytest.mark.acceptance("PV-launch-terminal")
@both
def test_what_never_works_is_not_tried_again_and_says_so_alike(kind: Kind) -> None:
    """No timer, no cloud call, no deletion; the event's note is the condition's message."""
    error, book = SkuNotAvailable("not here"), AttemptBook()
    obs = seen(kind, cloud_error=error, attempts=book.failed(claim(kind), error, NOW))
    plan = decide(obs, NOW)
    (event,) = [
        item for item in transitions((), conditions_of({"status": plan.status}), kind) if item[0] == "Warning"
    ]

    assert told(plan)["Launched"] == ("False", "SkuNotAvailable")
    assert (plan.requeue_after, plan.cloud, plan.actions) == (None, None, ())
    assert (event.reason, event.note) == ("SkuNotAvailable", message(plan, kind))
    assert not needs_cloud(replace(obs, cloud_error=None), NOW + timedelta(days=1))


@pytest.mark.acceptance("PV-progress-unknown")
@both
@pytest.mark.parametrize("error", [OperationInProgress("busy"), Throttled("slower")], ids=lambda e: e.reason)
def test_waiting_for_the_cloud_is_unknown_and_not_false(kind: Kind, error: Any) -> None:
    """In progress and throttled are no refusals; the words change by half minutes, whatever the cloud says."""
    book = AttemptBook()
    first = decide(seen(kind, cloud_error=error, attempts=book.failed(claim(kind), error, NOW)), NOW)
    assert told(first)["Launched"] == ("Unknown", error.reason)

    stored, texts = {**claim(kind), "status": first.status}, []
    for seconds in range(5, 125, 5):
        other = type(error)(f"{error.message} {seconds}")
        attempts = book.failed(claim(kind), other, NOW + timedelta(seconds=seconds))
        plan = decide(seen(kind, stored, cloud_error=other, attempts=attempts), NOW + timedelta(seconds=seconds))
        stored = {**stored, "status": plan.status}
        texts.append(message(plan, kind))
    assert list(dict.fromkeys(texts)) == [
        f"waiting for the cloud: {error.message}",
        f"waiting for the cloud, 30 s: {error.message} 30",
        f"waiting for the cloud, 1 min: {error.message} 60",
        f"waiting for the cloud, 1 min 30 s: {error.message} 90",
        f"waiting for the cloud, 2 min: {error.message} 120",
    ]


@pytest.mark.acceptance("PV-progress-usual")
@both
def test_a_creation_says_how_long_it_takes_and_usually_does(kind: Kind) -> None:
    """Half minutes up to five, then minutes; in 12 minutes of polls each 15 s the status changes 17 times."""
    started = {"kaito.sh/cloud-operation": "t", "kaito.sh/cloud-operation-started": at()}
    of = claim(kind, annotations=started)
    texts = []
    for seconds in range(0, 721, 15):
        obs = seen(kind, of, asked=True, instance=instance(InstanceState.CREATING), usual=372.0)
        plan = decide(obs, NOW + timedelta(seconds=seconds))
        of = {**of, "status": plan.status}
        assert told(plan)["Launched"] == ("Unknown", "InstanceCreating")
        texts.append(message(plan, kind))
    steps = list(dict.fromkeys(texts))

    assert steps[0] == "creating, usually 6 min (instance k1, Standard_NC6s_v3)"
    assert steps[7] == "creating, 3 min 30 s, usually 6 min (instance k1, Standard_NC6s_v3)"
    assert len(steps) == 10 + 8
    assert step(301) == 300
    assert under_way("creating", 200) == "creating, 3 min"
    assert [spoken(seconds) for seconds in (20, 200, 360, 3900)] == ["20 s", "3 min 20 s", "6 min", "1 h 5 min"]


def test_the_history_is_a_median_of_the_last_creations() -> None:
    """One odd creation does not change what is usual, and nothing is said before the first."""
    history = History()
    assert history.usual("a") is None
    for seconds in (300.0, 360.0, 5000.0):
        history.took("a", seconds)

    assert history.usual("a") == 360.0
    assert history.usual("b") is None


def test_a_look_that_has_to_wait_leaves_the_progress_as_it_was() -> None:
    """While an operation is under way, a throttled poll is no news about it."""
    of = claim(launched="Unknown/InstanceCreating", annotations={"kaito.sh/cloud-operation": "t"})
    error = Throttled("slower", retry_after=9)
    plan = decide(seen(of=of, cloud_error=error, attempts=AttemptBook().failed(of, error, NOW)), NOW)

    assert told(plan)["Launched"] == ("Unknown", "InstanceCreating")
    assert plan.requeue_after == 9


# ------------------------------------------------------------------ registration


@pytest.mark.acceptance("PV-registration-multiple", "PV-termination-multiple-nodes")
@both
def test_several_nodes_are_told_and_all_of_them_go(kind: Kind) -> None:
    """None of them is made the claim's; at the end every one is removed."""
    two = (node(), node(name="m", uid="m1"))
    plan = decide(seen(kind, claim(kind, **LAUNCHED), nodes=two), NOW)
    end = decide(seen(kind, claim(kind, **LAUNCHED, deletionTimestamp=at()), nodes=two, asked=True), NOW)

    assert told(plan)["Registered"] == (kind.pending, "MultipleNodesFound")
    assert not [action for action in plan.actions if isinstance(action, PatchNode)]
    assert end.actions == (DeleteNode("n", "n1"), DeleteNode("m", "m1"), RemoveFinalizer())


@pytest.mark.acceptance(
    "PV-registration-annotations", "PV-registration-startup-taints", "PV-registration-startup-taints-once",
    "PV-registration-label-already",
)  # fmt: skip
@both
def test_the_node_gets_what_the_claim_says_once(kind: Kind) -> None:
    """Annotations and start-up taints are put on at registration; taken off by others, they stay off."""
    startup = {"key": "wait", "effect": "NoExecute"}
    annotations = {"own": "1", "kaito.sh/cloud-operation": "secret"}
    unregistered = {"key": "karpenter.sh/unregistered", "effect": "NoExecute"}
    owner = {"kind": "Provisioner", "name": "default", "uid": "p"}
    fresh = node(taints=(unregistered,), ownerReferences=[owner])
    of = claim(kind, **LAUNCHED, annotations=annotations, spec={"startupTaints": [startup]})
    first = next(a for a in decide(seen(kind, of, nodes=(fresh,)), NOW).actions if isinstance(a, PatchNode))
    later = claim(kind, **REGISTERED, annotations=annotations, spec={"startupTaints": [startup]})
    again = next(a for a in decide(seen(kind, later, nodes=(node(),)), NOW).actions if isinstance(a, PatchNode))

    assert first.patch["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}, startup]
    assert first.patch["metadata"]["annotations"] == {"own": "1"}
    assert [item["kind"] for item in first.patch["metadata"]["ownerReferences"]] == [kind.name]
    assert "spec" not in again.patch
    assert again.patch["metadata"]["labels"]["karpenter.sh/registered"] == "true"


def test_a_node_that_keeps_its_taints_to_itself_is_not_tainted() -> None:
    """The label do-not-sync-taints leaves all but the mark of the unregistered alone."""
    own = {"key": "own", "effect": "NoSchedule"}
    mark = {"key": "karpenter.sh/unregistered", "effect": "NoExecute"}
    fresh = node(taints=(own, mark), labels={"karpenter.sh/do-not-sync-taints": "true"})
    plan = decide(seen(NODECLAIM, claim(NODECLAIM, **LAUNCHED), nodes=(fresh,)), NOW)
    (patch,) = [action for action in plan.actions if isinstance(action, PatchNode)]

    assert patch.patch["spec"]["taints"] == [own]


# ------------------------------------------------------------------ initialization

_STARTUP: Json = {"key": "wait", "effect": "NoSchedule"}


@pytest.mark.acceptance(
    "PV-initialization-not-ready",
    "PV-initialization-resources-missing",
    "PV-initialization-resources-there",
    "PV-initialization-startup-present",
    "PV-initialization-startup-removed",
    "PV-initialization-ephemeral-present",
    "PV-initialization-ephemeral-removed",
)
@both
@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (node(ready=False), "NodeNotReady"),
        (node(gpus="0"), "ResourceNotRegistered"),
        (node(taints=(_STARTUP,)), "StartupTaintsExist"),
        (
            node(taints=({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},)),
            "KnownEphemeralTaintsExist",
        ),
        (node(), ""),
    ],
    ids=["not ready", "no gpu", "start-up taint", "ephemeral taint", "fine"],
)
def test_initialization_names_its_obstacle(kind: Kind, of: Json, expected: str) -> None:
    """GPUs are waited for although only storage is asked for; the device plugin is named."""
    spec = {"startupTaints": [_STARTUP], "resources": {"requests": {"storage": "50Gi"}}}
    plan = decide(seen(kind, claim(kind, **REGISTERED, spec=spec), nodes=(of,)), NOW)

    if not expected:
        assert told(plan)["Initialized"][0] == told(plan)["Ready"][0] == "True"
        return
    assert told(plan)["Initialized"] == (kind.pending, expected)
    assert plan.requeue_after == 900
    assert ("device plugin" in message(plan, kind, "initialized")) == (expected == "ResourceNotRegistered")


@pytest.mark.acceptance("PV-initialization-deadline")
@both
def test_a_node_without_gpus_is_replaced_a_bounded_number_of_times(kind: Kind) -> None:
    """After 15 minutes the claim is given up and says why; the fourth of its name stays, for a person to look."""
    of = claim(kind, **REGISTERED, since=at(minutes=15))
    early = decide(seen(kind, of, nodes=(node(gpus="0"),)), NOW - timedelta(seconds=1))
    late = decide(seen(kind, of, nodes=(node(gpus="0"),)), NOW)
    last = decide(seen(kind, of, nodes=(node(gpus="0"),), replaced=3), NOW)
    book = ReplacementBook()
    for uid in ("a", "b", "b"):
        book.given_up("ws1", uid)

    assert told(early)["Initialized"] == (kind.pending, "ResourceNotRegistered")
    assert told(late)["Initialized"] == told(last)["Initialized"] == ("False", "NotInitialized")
    (delete,) = [action for action in late.actions if isinstance(action, DeleteMachine)]
    assert delete.counts
    assert "nvidia.com/gpu" in delete.note
    assert not [action for action in last.actions if isinstance(action, DeleteMachine)]
    assert "3 nodes before" in message(last, kind, "initialized")
    assert book.of("ws1") == 2
    book.works("ws1")
    assert book.of("ws1") == 0


# ------------------------------------------------------------------ liveness


@pytest.mark.acceptance(
    "PV-liveness-registered-past-ttl", "PV-liveness-unregistered-past-ttl", "PV-liveness-never-launched"
)
@both
@pytest.mark.parametrize(
    ("phases", "deleted"),
    [(REGISTERED, False), (LAUNCHED, True), ({"launched": "Unknown/InstanceCreating"}, False)],
    ids=["registered", "unregistered", "never launched"],
)
def test_liveness_ends_what_launched_and_never_joined(kind: Kind, phases: Json, deleted: bool) -> None:
    """A claim that was never launched stays and says why: a new one would only lose its place in the queue."""
    of = claim(kind, **phases, since=at(minutes=16))
    plan = decide(seen(kind, of, asked=True, instance=instance(InstanceState.CREATING)), NOW)

    assert bool([action for action in plan.actions if isinstance(action, DeleteMachine)]) == deleted


# ------------------------------------------------------------------ health


@pytest.mark.acceptance("PV-status-true-false", "PV-status-false-true")
@both
def test_ready_follows_the_node_down_and_up(kind: Kind) -> None:
    """An initialized claim is as ready as its node is, and its history stays."""
    down = decide(seen(kind, claim(kind, **READY), nodes=(node(ready=False),)), NOW)
    up = decide(seen(kind, {**claim(kind), "status": down.status}, nodes=(node(),)), NOW)

    assert told(down)["Ready"] == ("False", "NodeNotReady")
    assert told(up)["Ready"][0] == "True"
    assert told(down)["Initialized"][0] == told(up)["Initialized"][0] == "True"


# ------------------------------------------------------------------ conditions of the two kinds


def test_a_nodeclaims_conditions_follow_metav1() -> None:
    """Missing ones are Unknown since the claim was made; a time moves with the status alone; Ready is last."""
    first = decide(seen(NODECLAIM, asked=True, instance=instance(InstanceState.CREATING)), NOW)
    of = {**claim(NODECLAIM), "status": first.status}
    later = NOW + timedelta(minutes=1)
    plan = decide(seen(NODECLAIM, of, asked=True, instance=instance()), later)
    by_type = {item["type"]: item for item in plan.status["conditions"]}

    assert [item["type"] for item in first.status["conditions"]][-1] == "Ready"
    assert by_type["Launched"]["reason"] == "Launched"
    assert by_type["Launched"]["lastTransitionTime"] == at(minutes=-1)
    assert by_type["Registered"]["lastTransitionTime"] == at(hours=1)
    assert {item["observedGeneration"] for item in by_type.values()} == {1}
    assert (by_type["Ready"]["status"], by_type["Ready"]["reason"]) == ("Unknown", "ReconcilingDependents")
    assert by_type["Ready"]["message"] == "Registered=Unknown, Initialized=Unknown"


@both
def test_deciding_again_changes_nothing(kind: Kind) -> None:
    """The status is a fixed point in every phase: what is equal is not written."""
    for obs in (
        seen(kind, asked=True, instance=instance(InstanceState.CREATING)),
        seen(kind, claim(kind, **LAUNCHED)),
        seen(kind, claim(kind, **REGISTERED), nodes=(node(gpus="0"),)),
        seen(kind, claim(kind, **READY), nodes=(node(ready=False),)),
        seen(kind, claim(kind, **READY, deletionTimestamp=at()), nodes=(cordoned(),), pods=(pod("a"),)),
        seen(kind, claim(kind, **READY, deletionTimestamp=at()), asked=True, instance=instance()),
    ):
        first = decide(obs, NOW).status
        again = replace(obs, machine={**obs.machine, "status": first})
        assert decide(again, NOW + timedelta(seconds=20)).status == first


# ------------------------------------------------------------------ termination


@pytest.mark.acceptance("PV-termination-not-launched", "PV-termination-no-provider-id")
@both
def test_without_an_instance_nothing_is_deleted_in_the_cloud(kind: Kind) -> None:
    """The cloud was asked and has none: the claim goes, with no deletion and no node."""
    plan = decide(seen(kind, claim(kind, deletionTimestamp=at()), asked=True), NOW)

    assert (plan.cloud, plan.actions) == (None, (RemoveFinalizer(),))


@pytest.mark.acceptance("PV-termination-waits-for-nodes", "PV-node-no-instance")
@both
def test_the_way_out_goes_step_by_step(kind: Kind) -> None:
    """Cordon; pods; instance; node; finalizer. A node whose instance is gone is not drained."""
    going = claim(kind, **READY, deletionTimestamp=at())
    cordon = decide(seen(kind, going, nodes=(node(),), pods=(pod("a"),)), NOW)
    drain = decide(seen(kind, going, nodes=(cordoned(),), pods=(pod("a"),)), NOW)
    instance_ = decide(seen(kind, going, nodes=(cordoned(),), asked=True, instance=instance()), NOW)
    gone = decide(seen(kind, going, nodes=(node(ready=False),), pods=(pod("a"),), asked=True), NOW)

    assert [type(action) for action in cordon.actions] == [PatchNode]
    assert drain.actions == (EvictPod("d", "a", "a"),)
    assert cordon.cloud is drain.cloud is None
    assert instance_.cloud == DeleteInstance()
    assert gone.actions == (DeleteNode("n", "n1"), RemoveFinalizer())


@pytest.mark.acceptance("PV-termination-linked", "PV-node-parallel")
@both
def test_a_deleting_instance_is_not_deleted_again(kind: Kind) -> None:
    """Who comes second to a deletion waits for it."""
    going = claim(kind, **READY, deletionTimestamp=at())
    plan = decide(seen(kind, going, nodes=(node(),), asked=True, instance=instance(InstanceState.DELETING)), NOW)

    assert (plan.cloud, plan.actions) == (None, ())
    assert told(plan)["Ready"] == ("False", "InstanceDeleting")


@pytest.mark.acceptance(
    "PV-node-noncritical-first", "PV-node-static-pods", "PV-node-terminal-pods", "PV-node-tolerating-pods",
    "PV-node-terminating-pods", "PV-node-ownerless-pods", "PV-node-mirror-pods",
)  # fmt: skip
def test_who_has_to_leave_and_in_which_order() -> None:
    """Ordinary pods first; critical ones when only they are left; what belongs to the node is not asked."""
    going = claim(**READY, deletionTimestamp=at())
    stuck = (NOW - timedelta(seconds=61)).strftime("%Y-%m-%dT%H:%M:%SZ")
    left_alone = (
        pod("static", metadata={"ownerReferences": [{"kind": "Node"}]}),
        pod("mirror", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}),
        pod("daemon", metadata={"ownerReferences": [{"kind": "DaemonSet"}]}),
        pod("done", phase="Succeeded"),
        pod("failed", phase="Failed"),
        pod("stuck", metadata={"deletionTimestamp": stuck}),
        pod("tolerates", tolerations=[{"operator": "Exists"}]),
        pod("disrupted", tolerations=[{"key": "karpenter.sh/disrupted", "operator": "Exists"}]),
    )
    critical = pod("dns", priorityClassName="system-cluster-critical")
    leaving = pod("leaving", metadata={"deletionTimestamp": at()})

    def asked(*pods: Json) -> list[str]:
        plan = decide(seen(of=going, nodes=(cordoned(),), pods=(*left_alone, *pods)), NOW)
        return [action.name for action in plan.actions if isinstance(action, EvictPod)]

    assert asked(critical, pod("plain"), pod("sku", tolerations=[{"key": "sku"}])) == ["plain", "sku"]
    assert asked(critical, leaving) == []
    assert asked(critical) == ["dns"]
    empty = seen(of=going, nodes=(cordoned(),), pods=left_alone)
    assert needs_cloud(empty, NOW)
    assert not needs_cloud(replace(empty, pods=(leaving,)), NOW)


@pytest.mark.acceptance("PV-node-pdb", "PV-node-not-drained", "PV-termination-grace-period")
@both
def test_what_holds_a_drain_is_told_and_bounded(kind: Kind) -> None:
    """Pod, budget and since when stay in the message; by the deadline each pod is deleted with its own grace."""
    spec = {} if kind is MACHINE else {"terminationGracePeriod": "15m"}
    going = claim(kind, **READY, deletionTimestamp=at(), spec=spec)
    held = (Blocked("d/a", "guard", "needs 1 healthy pods"),)
    obs = seen(kind, going, nodes=(cordoned(),), pods=(pod("a", terminationGracePeriodSeconds=60),), evicted=True)
    first = decide(replace(obs, blocked=held), NOW)
    stored = {**going, "status": first.status}
    later = decide(replace(obs, machine=stored, blocked=held), NOW + timedelta(minutes=5))
    near = decide(replace(obs, machine=stored), NOW + timedelta(minutes=14))
    over = decide(replace(obs, machine=stored, asked=True, instance=instance()), NOW + timedelta(minutes=15))

    expected = f"Pod d/a is held since {at()}, disruption budget guard: needs 1 healthy pods"
    assert expected in message(first, kind, "ready")
    assert message(later, kind, "ready") == message(first, kind, "ready")
    assert DeletePod("d", "a", "a", 60) in near.actions
    assert over.cloud == DeleteInstance()


@pytest.mark.acceptance("PV-node-volumes")
@both
def test_volumes_are_detached_before_their_node_goes(kind: Kind) -> None:
    """After the pods the volumes are waited for, by name and within the same deadline; not for pods that stay."""
    going = claim(kind, **READY, deletionTimestamp=at())
    attached = [
        {"spec": {"nodeName": "n", "source": {"persistentVolumeName": "pv-1"}}},
        {"spec": {"nodeName": "other", "source": {"persistentVolumeName": "pv-2"}}},
    ]
    stays = pod("daemon", volumes=[{"persistentVolumeClaim": {"claimName": "c"}}])
    found = volumes(attached, (node(),), ())
    obs = seen(kind, going, nodes=(cordoned(),), volumes=found)
    plan = decide(obs, NOW)
    late = decide(replace(obs, asked=True, instance=instance()), NOW + timedelta(minutes=15))

    assert (found, volumes(attached, (node(),), (stays,))) == (("pv-1",), ())
    assert told(plan)["Ready"] == ("False", "VolumesAttached")
    assert "pv-1" in message(plan, kind, "ready")
    assert not needs_cloud(obs, NOW)
    assert late.cloud == DeleteInstance()


@pytest.mark.acceptance("PV-node-deletes-claims")
@both
def test_a_node_that_is_deleted_takes_its_claim_with_it(kind: Kind) -> None:
    """Whoever deletes the node wants all of it gone; that is no failed attempt."""
    plan = decide(seen(kind, claim(kind, **READY), nodes=(node(deletionTimestamp=at()),)), NOW)
    (delete,) = [action for action in plan.actions if isinstance(action, DeleteMachine)]

    assert (delete.reason, delete.counts) == ("NodeDeleted", False)


# ------------------------------------------------------------------ consistency


@pytest.mark.acceptance("PV-consistency-smaller")
def test_a_node_that_shrank_is_told() -> None:
    """Less than nine tenths of what the claim came with, or nothing at all of it."""
    machine = {"status": {"capacity": {"cpu": "10", "memory": "100Gi", "nvidia.com/gpu": "4", "disk": "1"}}}
    now = {"status": {"capacity": {"cpu": "9", "memory": "89Gi", "nvidia.com/gpu": "3"}}}

    assert list(inconsistencies(machine, now)) == [
        'expected resource "disk" not found',
        "expected 100Gi of resource memory, but found 89Gi (89.0% of expected)",
        "expected 4 of resource nvidia.com/gpu, but found 3 (75.0% of expected)",
    ]


def test_limits_are_the_specifications() -> None:
    """Fifteen minutes to register and to initialize, and as long for pods to leave."""
    assert Limits() == Limits(registration=900, initialization=900, replacements=3, drain=900)
    assert isinstance(decide(seen(asked=True), NOW).cloud, CreateInstance)
