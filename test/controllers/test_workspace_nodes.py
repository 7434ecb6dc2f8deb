"""Which nodes a Workspace gets: types, counts, layouts, Machines and NodeClaims, as tables of observations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from api import catalog
from api.v1 import NodeClaim
from api.v1alpha1 import Workspace
from api.validation import Switches, validate_create
from controllers.workspace.decide import decide
from controllers.workspace.made import machine_name
from controllers.workspace.model import (
    Apply,
    Claim,
    CreateMachine,
    DeleteMachine,
    LabelNode,
    NodeUse,
    Observation,
    Plan,
)
from controllers.workspace.nodeapi import NODECLAIM_API
from controllers.workspace.recreations import Recreations
from controllers.workspace.target import Target, target_of

Json = dict[str, Any]

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
A10, A100, A100X4, V100, V100X2 = (
    "Standard_NV36ads_A10_v5",
    "Standard_NC24ads_A100_v4",
    "Standard_NC96ads_A100_v4",
    "Standard_NC6s_v3",
    "Standard_NC12s_v3",
)
PRIVATE = {"accessMode": "private", "presetOptions": {"image": "example.com/llama:1"}}
NEVER = {"kaito.sh/node-provisioning": "never"}
ALWAYS = {"kaito.sh/node-provisioning": "always"}


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def seen(
    preset: str | None = "microsoft/phi-4-mini-instruct",
    *,
    type_: str | None = None,
    count: int | None = None,
    annotations: Json | None = None,
    preferred: list[str] | None = None,
    status: Json | None = None,
    template: Json | None = None,
    meta: Json | None = None,
    **changes: Any,
) -> Observation:
    resource = {"labelSelector": {"matchLabels": {"apps": "x"}}, "instanceType": type_, "count": count}
    resource |= {"preferredNodes": preferred}
    spec = {"name": preset, **(PRIVATE if (preset or "").startswith("llama-2") else {})}
    obj: Json = {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {
            "name": "w",
            "namespace": "ns",
            "uid": "u1",
            "generation": 1,
            "creationTimestamp": at(-100),
            "finalizers": ["workspace.finalizer.kaito.sh"],
            "annotations": annotations or {},
            **(meta or {}),
        },
        "resource": {key: value for key, value in resource.items() if value is not None},
        "inference": {"template": template} if template else {"preset": spec},
        "status": status or {},
    }
    return Observation(obj, Workspace.parse(obj), registry="example.com/kaito", **changes)


def node(
    name: str = "n1",
    type_: str | None = A10,
    *,
    gpus: int = 1,
    ready: bool = True,
    since: float | None = None,
    labels: Json | None = None,
    **meta: Any,
) -> Json:
    own = {"apps": "x", "accelerator": "nvidia", **(labels or {})}
    if type_:
        own["node.kubernetes.io/instance-type"] = type_
    condition = {"type": "Ready", "status": str(ready)}
    if since is not None:
        condition["lastTransitionTime"] = at(since)
    return {
        "metadata": {"name": name, "labels": own, **meta},
        "status": {"conditions": [condition], "allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


def feature_labels(product: str = "NVIDIA-A10", count: int = 1, mib: int = 24_564) -> Json:
    """What NVIDIA's GPU feature discovery writes."""
    return {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(mib),
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "6",
    }


def machine(index: int = 0, type_: str = A10, *, uid: str = "u1", at_node: str = "", going: bool = False) -> Json:
    meta: Json = {"name": machine_name("ns", "w", uid, index), "uid": f"m{index}"}
    if going:
        meta["deletionTimestamp"] = at(0)
    return {
        "metadata": meta,
        "spec": {"requirements": [{"key": "node.kubernetes.io/instance-type", "values": [type_]}]},
        "status": {"nodeName": at_node},
    }


def bodies(plan: Plan) -> list[Json]:
    return [action.body for action in plan.actions if isinstance(action, CreateMachine)]


def types(plan: Plan) -> list[str]:
    return [requirement(body)["node.kubernetes.io/instance-type"][0] for body in bodies(plan)]


def requirement(body: Json) -> dict[str, list[str]]:
    return {item["key"]: item["values"] for item in body["spec"]["requirements"]}


def told(plan: Plan, kind: str = "ResourceReady") -> tuple[str, str]:
    return next((item["status"], item["reason"]) for item in plan.status["conditions"] if item["type"] == kind)


def message(plan: Plan, kind: str = "ResourceReady") -> str:
    return str(next(item["message"] for item in plan.status["conditions"] if item["type"] == kind))


def target(obs: Observation) -> Target:
    found = target_of(obs, NOW)
    assert isinstance(found, Target), found
    return found


def world(made: list[Json]) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """The Machines that were asked for and their Ready nodes."""
    machines, nodes = [], []
    for number, body in enumerate(made):
        kind = requirement(body)["node.kubernetes.io/instance-type"][0]
        sku = catalog.sku(kind)
        name = f"node-{number}"
        machines.append({**body, "status": {"nodeName": name}})
        nodes.append(node(name, kind, gpus=sku.gpus if sku else 1, labels=body["metadata"]["labels"]))
    return tuple(machines), tuple(nodes)


# ------------------------------------------------------------------ upstream's examples


def _examples() -> Iterator[Any]:
    for number, preset, type_, count, disk, machines, gpus in (
        ("KS-A01", "phi-3-mini-4k-instruct", V100, None, "50Gi", 1, 1),
        ("KS-A02", "falcon-7b", V100X2, None, "50Gi", 1, 1),
        ("KS-A02", "falcon-7b-instruct", V100X2, None, "50Gi", 1, 1),
        ("KS-A02", "falcon-40b", A100X4, None, "400Gi", 1, 2),
        ("KS-A02", "falcon-40b-instruct", A100X4, None, "400Gi", 1, 2),
        ("KS-A02", "mistral-7b", V100X2, None, "100Gi", 1, 1),
        ("KS-A02", "mistral-7b-instruct", V100X2, None, "100Gi", 1, 1),
        ("KS-A02", "phi-2", V100, None, "50Gi", 1, 1),
        ("KS-A02", "phi-3-mini-128k-instruct", V100, None, "50Gi", 1, 1),
        ("KS-A02", "phi-3-medium-4k-instruct", A100, None, "50Gi", 1, 1),
        ("KS-A02", "phi-3-medium-128k-instruct", A100, None, "50Gi", 1, 1),
        ("KS-A03", "llama-2-7b", V100X2, None, "34Gi", 1, 1),
        ("KS-A03", "llama-2-7b-chat", V100X2, None, "34Gi", 1, 1),
        ("KS-A04", "llama-2-13b", V100X2, 1, "46Gi", 1, 2),
        ("KS-A04", "llama-2-13b-chat", V100X2, 1, "46Gi", 1, 2),
        ("KS-A04", "llama-2-13b", V100X2, 2, "46Gi", 2, 1),
        ("KS-A05", "llama-2-70b", A100X4, 2, "158Gi", 2, 4),
        ("KS-A05", "llama-2-70b-chat", A100X4, 2, "158Gi", 2, 4),
    ):
        mark = pytest.mark.acceptance(number)
        yield pytest.param(
            preset, type_, count, disk, machines, gpus, marks=mark, id=f"{preset}-{count or 'plan'}"
        )


@pytest.mark.parametrize(("preset", "type_", "count", "disk", "machines", "gpus"), [*_examples()])
def test_the_presets_of_the_seeds_era_get_their_nodes(
    preset: str, type_: str, count: int | None, disk: str, machines: int, gpus: int
) -> None:
    """Type, number, disk and taint of the Machines, and the GPUs of each pod, are upstream's of that era."""
    obs = seen(preset, type_=type_, count=count)
    made = bodies(decide(obs, NOW))

    assert [requirement(body)["node.kubernetes.io/instance-type"] for body in made] == [[type_]] * machines
    assert {body["spec"]["resources"]["requests"]["storage"] for body in made} == {disk}
    assert all(body["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}] for body in made)
    assert len({body["metadata"]["name"] for body in made}) == machines
    assert target(obs).layout.gpus_per_node == gpus


@pytest.mark.acceptance("KS-A04", "KS-A05")
@pytest.mark.parametrize(
    ("preset", "type_", "count", "layout"),
    [
        ("llama-2-13b", V100X2, 1, (1, 2, 2, 1, False)),
        ("llama-2-13b-chat", V100X2, 2, (2, 1, 1, 2, True)),
        ("llama-2-70b", A100X4, 2, (2, 4, 4, 2, True)),
        ("llama-2-70b", A100X4, None, (2, 4, 4, 2, True)),
        ("llama-2-70b-chat", "Standard_ND96asr_v4", 1, (1, 8, 8, 1, False)),
    ],
)
def test_llama_2_keeps_its_world(
    preset: str, type_: str, count: int | None, layout: tuple[int, int, int, int, bool]
) -> None:
    """The world size of the original server is dealt evenly to the nodes: 2 for 13b, 8 for 70b."""
    found = target(seen(preset, type_=type_, count=count)).layout

    assert (
        found.nodes,
        found.gpus_per_node,
        found.tensor_parallel,
        found.pipeline_parallel,
        found.distributed,
    ) == layout
    assert found.tensor_parallel * found.pipeline_parallel == catalog.preset(preset).world_size


@pytest.mark.parametrize(
    ("preset", "type_", "count", "layout"),
    [
        ("qwen2.5-coder-32b-instruct", A100, None, (2, 1, 1, 2, True)),
        ("microsoft/phi-4", A10, None, (2, 1, 1, 2, True)),
        ("llama-3.3-70b-instruct", A100X4, None, (1, 4, 4, 1, False)),
        ("llama-3.3-70b-instruct", A100X4, 2, (2, 4, 4, 2, True)),
        ("phi-4-mini-instruct", A100, 1, (1, 1, 1, 1, False)),
        ("deepseek-r1-0528", A100X4, None, (3, 4, 4, 3, True)),
    ],
)
def test_models_of_the_newer_catalogue_are_laid_out_by_sizing(
    preset: str, type_: str, count: int | None, layout: tuple[int, int, int, int, bool]
) -> None:
    """An absent count is the plan's, a written one is exact; each Machine is there in the first reconcile."""
    obs = seen(preset, type_=type_, count=count)
    found = target(obs).layout

    assert types(decide(obs, NOW)) == [type_] * layout[0]
    assert (
        found.nodes,
        found.gpus_per_node,
        found.tensor_parallel,
        found.pipeline_parallel,
        found.distributed,
    ) == layout


def test_nodes_of_a_model_that_cannot_span_them_are_replicas() -> None:
    """falcon-7b on three nodes is three servers, none of which needs another."""
    found = target(seen("falcon-7b", type_=V100X2, count=3)).layout

    assert (found.nodes, found.tensor_parallel, found.pipeline_parallel, found.distributed) == (3, 1, 1, False)


def test_a_pod_runs_one_copy() -> None:
    """A small model on eight large GPUs is spread over all of them: a server holds one engine."""
    found = target(seen("phi-4-mini-instruct", type_="Standard_ND96isr_H100_v5")).layout

    assert (found.gpus_per_node, found.tensor_parallel, found.pipeline_parallel) == (8, 8, 1)


def test_what_the_cache_holds_is_the_longest_request() -> None:
    """Where the cache is the limit the engine is told; where the model's own limit is, it needs no telling."""
    assert target(seen("llama-3.3-70b-instruct", type_=A10)).layout.max_model_len == 45016
    assert target(seen("microsoft/phi-4", type_=A10)).layout.max_model_len is None
    assert target(seen("google/gemma-3-27b-it", type_=A100)).layout.max_model_len is None  # we know an upper bound


def test_a_context_that_is_asked_for_takes_more_nodes() -> None:
    """What the Workspace's own configuration asks of the context decides the number of nodes, as in kaito plan."""
    obs = seen("llama-3.3-70b-instruct", type_=A10)

    assert target(replace(obs, context=131_072)).count > target(obs).count


# ------------------------------------------------------------------ what does not fit, what nobody knows


def test_what_does_not_fit_costs_nothing() -> None:
    """A written count is exact: where the model does not fit, no Machine is made, and the figures are told."""
    obs = seen("microsoft/phi-4", type_=A10, count=1)
    plan = decide(obs, NOW)

    assert plan.actions == ()
    assert told(plan, "WorkspaceReady") == ("False", "ModelDoesNotFit")
    assert "weights 27.9 GiB" in message(plan, "WorkspaceReady")
    assert "kaito plan" in message(plan, "WorkspaceReady")


def test_who_insists_gets_the_nodes() -> None:
    """With the annotation that makes memory checks advice, the nearest layout is tried."""
    obs = seen("microsoft/phi-4", type_=A10, count=1, annotations={"kaito.sh/bypass-resource-checks": ""})

    assert types(decide(obs, NOW)) == [A10]


def test_an_unknown_model_of_the_hub_needs_numbers() -> None:
    """Nothing is known of its size: without type and count the cause says what to write."""
    for obs in (seen("acme/model"), seen("acme/model", type_=A100), seen("acme/model", count=1)):
        plan = decide(obs, NOW)

        assert plan.actions == ()
        assert told(plan, "WorkspaceReady") == ("False", "ModelUnknown")
        assert "resource.count and resource.instanceType" in message(plan, "WorkspaceReady")
    assert "Did you mean microsoft/phi-4?" in message(decide(seen("microsoft/phi4"), NOW), "WorkspaceReady")


def test_an_unknown_model_runs_where_its_user_wrote_it() -> None:
    """With type and count the nodes are made: every layer over a node's GPUs, the layers over the nodes."""
    obs = seen("Acme/Model", type_=A100X4, count=2)
    made, found = bodies(decide(obs, NOW)), target(obs)

    assert [body["spec"]["resources"]["requests"] for body in made] == [{"storage": "1024Gi"}] * 2
    assert (found.layout.tensor_parallel, found.layout.pipeline_parallel) == (4, 2)
    assert found.preset is not None
    assert found.preset.hf_id == "Acme/Model"


def test_without_hub_models_an_unknown_one_is_unknown() -> None:
    """Where the operator admits the catalogue only, the id is a name that does not exist."""
    obs = replace(seen("acme/model", type_=A100, count=1), switches=Switches(hub_models=False))

    assert told(decide(obs, NOW), "WorkspaceReady") == ("False", "UnknownPreset")


# ------------------------------------------------------------------ no instance type


@pytest.mark.parametrize(
    ("preset", "type_", "number"),
    [
        ("phi-3-mini-4k-instruct", A10, 1),
        ("microsoft/phi-4", A100, 1),
        ("qwen2.5-coder-32b-instruct", "Standard_NC40ads_H100_v5", 1),
        ("llama-2-13b", "Standard_NV72ads_A10_v5", 1),
        ("deepseek-r1-0528", A100X4, 3),
    ],
)
def test_the_cheapest_type_that_fits_is_taken(preset: str, type_: str, number: int) -> None:
    """Without a type and without nodes, one node comes before several and then the price decides."""
    assert types(decide(seen(preset), NOW)) == [type_] * number


def test_what_was_made_settles_the_type() -> None:
    """Later reconciles and other prices change nothing: the type is that of the Machines that are there."""
    obs = seen("microsoft/phi-4", machines=(machine(0, A10),), status={"targetNodeCount": 2})
    plan = decide(obs, NOW)

    assert types(plan) == [A10]
    assert plan.status["targetNodeCount"] == 2


def test_the_number_of_nodes_stays_once_something_was_made() -> None:
    """A release that sizes otherwise does not resize what runs; without Machines the number is computed anew."""
    status = {"targetNodeCount": 3}

    assert target(seen("microsoft/phi-4", type_=A10, status=status, machines=(machine(0),))).count == 3
    assert target(seen("microsoft/phi-4", type_=A10, status=status)).count == 2


def test_spot_counts_in_the_choice() -> None:
    """Whoever asks for spot nodes gets the type that is cheapest on spot."""
    obs = seen("microsoft/phi-4-mini-instruct", annotations={"kaito.sh/capacity-type": "spot"})

    assert types(decide(obs, NOW)) == [A100]


def test_retired_types_are_not_chosen_and_old_ones_neither() -> None:
    """In the seed's day the same rule holds as today: nothing without bfloat16 unless it is named."""
    (kind,) = types(decide(seen("phi-2"), datetime(2024, 7, 11, tzinfo=UTC)))

    sku = catalog.sku(kind)
    assert sku is not None
    assert not sku.old


# ------------------------------------------------------------------ nodes that are brought along


def test_nodes_that_match_come_before_new_ones() -> None:
    """Labels alone are enough: no type, no list of names, and no Machine."""
    plan = decide(seen("microsoft/phi-4", nodes=(node("a"), node("b"))), NOW)

    assert bodies(plan) == []
    assert plan.status["workerNodes"] == ["a", "b"]
    assert plan.status["targetNodeCount"] == 2


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        ((node("a", None, labels=feature_labels()), node("b", None, labels=feature_labels())), (2, 1, 1, 2)),
        ((node("a", None, gpus=2, labels=feature_labels(count=2)),), (1, 2, 2, 1)),
        ((node("a", None, gpus=1, labels=feature_labels("NVIDIA-A100-80GB-PCIe", 1, 81_920)),), (1, 1, 1, 1)),
        # More than pods can have does not count.
        ((node("a", None, gpus=1, labels=feature_labels("NVIDIA-A100-80GB-PCIe", 4, 81_920)),), (1, 1, 1, 1)),
        # Nothing but the device plugin: how many there are is known, their memory is not.
        ((node("a", None, gpus=2),), (1, 2, 2, 1)),
    ],
    ids=["two labelled", "two GPUs", "large", "partly visible", "allocatable only"],
)
def test_facts_of_nodes_come_from_their_labels_or_what_they_offer(
    nodes: tuple[Json, ...], layout: tuple[int, int, int, int]
) -> None:
    """The layout is made for the GPUs that the nodes have, whoever named their type."""
    obs = seen("microsoft/phi-4", nodes=nodes)
    found = target(obs).layout

    assert bodies(decide(obs, NOW)) == []
    assert (found.nodes, found.gpus_per_node, found.tensor_parallel, found.pipeline_parallel) == layout


def test_a_gpu_that_drops_out_does_not_lay_the_model_out_anew() -> None:
    """What runs keeps its layout while its node has as many GPUs by its labels, whatever shows just now."""
    large = feature_labels("NVIDIA-A100-80GB-PCIe", 2, 81_920)
    obs = seen("microsoft/phi-4", nodes=(node("a", None, gpus=2, labels=large),))
    before = target(obs).layout
    owner = {"kind": "Workspace", "name": "w", "uid": "u1", "controller": True}
    spec = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": str(before.gpus_per_node)}}}]}
    running = {"metadata": {"name": "w", "ownerReferences": [owner]}, "spec": {"template": {"spec": spec}}}
    for shown in (2, 1, 0):
        now = replace(obs, deployment=running, nodes=(node("a", None, gpus=shown, labels=large),))

        assert target(now).layout == before


def test_nodes_that_are_not_alike_are_not_mixed() -> None:
    """A model runs on nodes with the same GPUs: the first kind that suffices is taken."""
    nodes = (node("a", A10), node("b", A100), node("c", A10))

    assert decide(seen("microsoft/phi-4", nodes=nodes), NOW).status["workerNodes"] == ["a", "c"]
    assert decide(seen("microsoft/phi-4", nodes=nodes[:2]), NOW).status["workerNodes"] == ["b"]


def test_what_matches_and_is_too_little_is_added_to() -> None:
    """One of two nodes is there: the other is made, of the same type, however cheap others are."""
    plan = decide(seen("microsoft/phi-4", nodes=(node("a", A10),)), NOW)

    assert types(plan) == [A10]
    assert plan.status["workerNodes"] == ["a"]


def test_nodes_that_cannot_hold_the_model_are_passed_over() -> None:
    """Matching nodes whose type nobody can be asked for, and that do not fit, do not stand in the way."""
    small = node("a", None, labels=feature_labels("NVIDIA-T4", 1, 4_000))
    plan = decide(seen("microsoft/phi-4", nodes=(small,)), NOW)

    assert types(plan) == [A100]


@pytest.mark.parametrize("type_", [None, A10])
def test_never_makes_no_node(type_: str | None) -> None:
    """With provisioning off for a Workspace, no Machine is made whatever is missing, and the reason is plain."""
    none = decide(seen(type_=type_, annotations=NEVER), NOW)
    short = decide(seen("microsoft/phi-4", type_=A10, annotations=NEVER, nodes=(node("a"),)), NOW)
    enough = decide(seen(type_=type_, annotations=NEVER, nodes=(node("a"),)), NOW)

    assert (bodies(none), bodies(short), bodies(enough)) == ([], [], [])
    assert told(none) == ("False", "NoNodeMatches")
    assert "No node matches apps=x" in message(none)
    assert told(short) == ("False", "NodesMissing")
    assert "1 nodes match apps=x, 1 of them can be used and 2 are wanted" in message(short)
    assert told(enough) == ("True", "workspaceResourceStatusSuccess")


def test_always_uses_only_what_was_made_for_it() -> None:
    """Nodes that match and were not made for this Workspace are left to others."""
    own = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "ns"}
    foreign = decide(seen(type_=A10, annotations=ALWAYS, nodes=(node("a"),)), NOW)
    made = decide(seen(type_=A10, annotations=ALWAYS, nodes=(node("a"), node("b", labels=own))), NOW)

    assert types(foreign) == [A10]
    assert made.status["workerNodes"] == ["b"]
    assert types(decide(seen(annotations=ALWAYS, nodes=(node("a"),)), NOW)) == [A10]


def test_a_wrong_word_is_refused_with_the_right_ones() -> None:
    """The annotations' values are checked at admission, literally."""
    obj = seen(
        type_=A10, annotations={"kaito.sh/node-provisioning": "Never", "kaito.sh/capacity-type": "cheap"}
    ).obj

    assert [str(item) for item in validate_create({key: obj[key] for key in obj if key != "status"})] == [
        "metadata.annotations[kaito.sh/node-provisioning]: 'Never' is not a value of this annotation "
        "(write auto or never or always)",
        "metadata.annotations[kaito.sh/capacity-type]: 'cheap' is not a value of this annotation "
        "(write on-demand or spot)",
    ]


# ------------------------------------------------------------------ which of the nodes


def _matrix() -> Iterator[Any]:
    """Every combination of a node's health, deletion, type, preference, use and origin."""
    yes_no = (False, True)
    for ready, going, kind, preferred, used, made in product(
        yes_no, yes_no, (A10, A100, None), yes_no, yes_no, yes_no
    ):
        yield pytest.param(
            ready,
            going,
            kind,
            preferred,
            used,
            made,
            id="-".join(
                [
                    "ready" if ready else "unready",
                    "deleting" if going else "staying",
                    {A10: "right", A100: "wrong", None: "untyped"}[kind],
                    *(word for word, is_so in (("preferred", preferred), ("used", used), ("made", made)) if is_so),
                ]
            ),
        )


@pytest.mark.acceptance("KS-A16")
@pytest.mark.parametrize(("ready", "going", "kind", "preferred", "used", "made"), [*_matrix()])
def test_a_node_qualifies_and_ranks_as_upstream_says(
    ready: bool, going: bool, kind: str | None, preferred: bool, used: bool, made: bool
) -> None:
    """Ready, not deleting, of the type or of none; preferred before used before provisioned before its name.

    The node stands beside one plain node whose name is smaller: it is taken instead of that one exactly when it
    qualifies and has any of the three marks.
    """
    labels = {"karpenter.sh/nodepool": "kaito"} if made else {}
    subject = node("z", kind, ready=ready, labels=labels)
    if going:
        subject["metadata"]["deletionTimestamp"] = at(0)
    obs = seen(
        type_=A10,
        count=1,
        nodes=(node("a"), subject),
        preferred=["z"] if preferred else None,
        status={"workerNodes": ["z"]} if used else None,
    )
    qualifies = ready and not going and kind in (A10, None)
    alone = decide(replace(obs, nodes=(subject,)), NOW)

    assert alone.status["workerNodes"] == (["z"] if qualifies else [])
    assert len(bodies(alone)) == (0 if qualifies else 1)
    first = "z" if qualifies and (preferred or used or made) else "a"
    assert decide(obs, NOW).status["workerNodes"] == [first]


@pytest.mark.acceptance("KS-A16")
def test_the_marks_of_a_node_outrank_each_other() -> None:
    """Of two nodes with different marks the earlier rule decides, whatever the later ones say."""
    marks = [*product((True, False), repeat=3)]
    for (number, left), (other, right) in product(enumerate(marks), repeat=2):
        if left == right:
            continue
        # The names speak against the order that is expected.
        names = ("b", "a") if number < other else ("a", "b")
        made = {"kaito.sh/machine-type": "gpu"}
        nodes = [
            node(name, labels=made if mark[2] else {}) for name, mark in zip(names, (left, right), strict=True)
        ]
        preferred = [name for name, mark in zip(names, (left, right), strict=True) if mark[0]]
        used = [name for name, mark in zip(names, (left, right), strict=True) if mark[1]]
        obs = seen(type_=A10, count=1, nodes=tuple(nodes), preferred=preferred, status={"workerNodes": used})

        assert decide(obs, NOW).status["workerNodes"] == ["b"], (left, right)


@pytest.mark.acceptance("KS-A16")
def test_no_more_nodes_are_taken_than_wanted() -> None:
    """Of many that qualify the best are taken, and the rest is left to others."""
    nodes = tuple(node(f"n{number}") for number in range(5))

    assert decide(seen(type_=A10, count=2, nodes=nodes), NOW).status["workerNodes"] == ["n0", "n1"]


# ------------------------------------------------------------------ how many are missing


def test_all_missing_nodes_are_asked_for_at_once_and_only_once() -> None:
    """Three Machines in one reconcile; while they come, and when they are nodes, nothing more is made."""
    obs = seen("deepseek-r1-0528", type_=A100X4)
    made = bodies(decide(obs, NOW))
    machines, nodes = world(made)
    pending = decide(replace(obs, machines=machines), NOW)
    ready = decide(replace(obs, machines=machines, nodes=nodes), NOW)

    assert len(made) == 3
    assert (bodies(pending), bodies(ready)) == ([], [])
    assert told(ready)[0] == "True"


def test_a_cache_that_shows_nothing_asks_for_the_same_names() -> None:
    """A restart before the cache shows what was made cannot make one too many: the names are taken."""
    obs = seen("deepseek-r1-0528", type_=A100X4)
    made = bodies(decide(obs, NOW))
    some = world(made[:1])[0]

    assert bodies(decide(obs, NOW)) == made
    assert bodies(decide(replace(obs, machines=some), NOW)) == made[1:]


def test_a_machine_that_became_one_too_many_is_left() -> None:
    """A node that appears takes the place of a Machine under way, which is neither deleted nor doubled."""
    obs = seen(type_=A10, count=1, machines=(machine(0),), nodes=(node("byo"),))
    plan = decide(obs, NOW)

    assert plan.status["workerNodes"] == ["byo"]
    assert not any(isinstance(action, CreateMachine | DeleteMachine) for action in plan.actions)
    assert told(plan)[0] == "True"


def test_a_node_that_has_just_become_unready_is_waited_for() -> None:
    """A reboot is no reason for a new node; after the grace it is, and the operator looks again by itself then."""
    at_once = decide(seen(type_=A10, count=1, nodes=(node("a", ready=False, since=-10),)), NOW)
    later = decide(seen(type_=A10, count=1, nodes=(node("a", ready=False, since=-301),)), NOW)

    assert bodies(at_once) == []
    assert told(at_once) == ("False", "NodeNotReady")
    assert at_once.requeue_after == pytest.approx(291)
    assert types(later) == [A10]


def test_a_machines_own_node_is_its_machines_affair() -> None:
    """Where the node of a Machine is not Ready, the Machine stands for it: nothing is counted twice."""
    own = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "ns"}
    sick = node("a", ready=False, since=-10, labels=own)
    plan = decide(seen(type_=A10, count=2, nodes=(sick,), machines=(machine(0, at_node="a"),)), NOW)

    assert len(bodies(plan)) == 1


def test_what_somebody_keeps_deleting_is_made_ever_more_rarely() -> None:
    """The first replacement comes at once, the next ones after twice the time; the reason says when and why."""
    recreations, now, waits, plans = Recreations(), NOW, [], []
    for _ in range(10):
        recreations.made("ns/w", machine_name("ns", "w", "u1", 0), now)
        plans.append(decide(seen(type_=A10, count=1, pauses=recreations.pauses("ns/w")), now))
        waits.append(0.0 if bodies(plans[-1]) else (plans[-1].requeue_after or -1.0) - 1)
        now += timedelta(seconds=waits[-1])

    assert waits == [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert told(plans[-1]) == ("False", "MachineVanished")
    assert "was made 10 times and deleted by somebody else" in message(plans[-1])


def test_a_machine_that_lived_is_replaced_at_once() -> None:
    """What goes after hours was no failed attempt, and other Machines are not held up by one that is paused."""
    recreations, names = Recreations(), [machine_name("ns", "w", "u1", index) for index in range(2)]
    for hours in (0, 2):
        recreations.made("ns/w", names[0], NOW + timedelta(hours=hours))
    two = seen("phi-2", type_=A10, count=2, pauses=recreations.pauses("ns/w"))
    recreations.made("ns/w", names[0], NOW + timedelta(hours=2))
    one = replace(two, pauses=recreations.pauses("ns/w"))
    later = NOW + timedelta(hours=2)

    assert [body["metadata"]["name"] for body in bodies(decide(two, later))] == names
    assert [body["metadata"]["name"] for body in bodies(decide(one, later))] == names[1:]
    recreations.forget("ns/w")
    assert recreations.pauses("ns/w") == {}


# ------------------------------------------------------------------ namesakes, renamed selectors, rivals


def test_a_namesakes_leaving_machines_hold_nothing_up() -> None:
    """A Workspace made again under the same name does not wait for what its predecessor leaves behind."""
    old = machine(0, uid="u0", going=True)
    plan = decide(seen(type_=A10, count=1, machines=(old,)), NOW)

    assert [body["metadata"]["name"] for body in bodies(plan)] == [machine_name("ns", "w", "u1", 0)]


def test_a_namesakes_machines_that_stay_are_taken_over() -> None:
    """They bear the same labels: one of the right type serves the new Workspace, another does not."""
    right = decide(seen(type_=A10, count=1, machines=(machine(0, A10, uid="u0"),)), NOW)
    wrong = decide(seen(type_=A10, count=1, machines=(machine(0, A100, uid="u0"),)), NOW)

    assert bodies(right) == []
    assert types(wrong) == [A10]


def test_own_machines_that_leave_are_waited_for() -> None:
    """The name is taken until then."""
    plan = decide(seen(type_=A10, count=1, machines=(machine(0, going=True),)), NOW)

    assert bodies(plan) == []
    assert told(plan) == ("False", "MachineDeleting")


def test_a_node_goes_with_its_machine() -> None:
    """A node whose Machine is being deleted is not counted on, however healthy it looks."""
    nodes = (node("a", labels={"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "ns"}),)
    plan = decide(seen(type_=A10, count=1, nodes=nodes, machines=(machine(0, going=True, at_node="a"),)), NOW)

    assert plan.status["workerNodes"] == []
    assert told(plan) == ("False", "MachineDeleting")


def test_a_node_whose_labels_no_longer_match_is_given_up() -> None:
    """The selector decides, on every reconcile: a node that was relabelled is replaced, its Machine told about."""
    own = machine(0, at_node="n1")
    own["status"]["conditions"] = [
        {"type": kind, "status": "True"}
        for kind in ("MachineLaunched", "MachineRegistered", "MachineInitialized", "Ready")
    ]
    byo = decide(seen(type_=A10, count=1, status={"workerNodes": ["n1"]}), NOW)
    made = decide(seen(type_=A10, count=1, status={"workerNodes": ["n1"]}, machines=(own,)), NOW)

    assert types(byo) == [A10]
    assert bodies(made) == []
    assert told(made) == ("False", "NodeMismatch")


OTHER = Claim("ns/other", at(-200))
YOUNGER = Claim("ns/younger", at(-50))
MINE = Claim("ns/w", at(-100))


@pytest.mark.parametrize(
    ("use", "gpus", "taken"),
    [
        (NodeUse(), 1, True),
        (NodeUse((OTHER,)), 1, False),
        (NodeUse((YOUNGER,)), 1, False),
        (NodeUse((MINE, OTHER)), 1, False),
        (NodeUse((MINE, YOUNGER)), 1, True),
        (NodeUse((MINE, YOUNGER), {"ns/younger": 1}), 1, False),
        (NodeUse((MINE, OTHER), {"ns/w": 1}), 1, True),
        (NodeUse((OTHER,), {"ns/other": 1}), 2, True),
        (NodeUse((OTHER,), {"ns/other": 2}), 2, False),
        (NodeUse((OTHER,), {"ns/other": 1, "": 1}), 2, False),
        (NodeUse((OTHER,), {}), 2, False),
        (NodeUse((), {"": 1}), 1, True),
    ],
    ids=[
        "nobody's",
        "another's",
        "a younger one's, which was first",
        "both took it, the other is older",
        "both took it, we are older",
        "both took it, its pod is there",
        "both took it, our pod is there",
        "a GPU is left",
        "no GPU is left",
        "a GPU is left but for a stranger",
        "its pods are still to come",
        "a stranger's pod, no Workspace's",
    ],
)
def test_workspaces_with_overlapping_selectors_do_not_share_a_node(use: NodeUse, gpus: int, taken: bool) -> None:
    """A node belongs to whom was there first, unless it has GPUs left for both."""
    status = {"workerNodes": ["a"]} if MINE in use.claims else None
    nodes = (node("a", None, gpus=gpus),)
    plan = decide(seen("phi-2", type_=A10, count=1, nodes=nodes, use={"a": use}, status=status), NOW)

    assert plan.status["workerNodes"] == (["a"] if taken else [])
    assert len(bodies(plan)) == (0 if taken else 1)


def test_of_two_that_took_a_node_exactly_one_leaves() -> None:
    """Whatever is on the node, the rule gives it to one of the two and not to none."""
    for gpus in ({}, {"ns/w": 1}, {"ns/x": 1}, {"ns/w": 1, "ns/x": 1}):
        keeps = []
        for me, other in (("w", "x"), ("x", "w")):
            claims = (Claim(f"ns/{me}", at(-100)), Claim(f"ns/{other}", at(-100)))
            obs = seen(
                "phi-2",
                type_=A10,
                count=1,
                nodes=(node("a"),),
                use={"a": NodeUse(claims, gpus)},
                meta={"name": me},
            )
            keeps.append(decide(obs, NOW).status["workerNodes"] == ["a"])

        assert sum(keeps) == 1, gpus


def test_a_node_made_for_another_is_only_taken_by_name() -> None:
    """Whom a node was made for has it, also before it says so; a user who names the node overrules that."""
    labels = {"kaito.sh/workspace": "other", "kaito.sh/workspacenamespace": "ns"}
    nodes = (node("a", labels=labels),)

    assert decide(seen(type_=A10, count=1, nodes=nodes), NOW).status["workerNodes"] == []
    assert decide(seen(type_=A10, count=1, nodes=nodes, preferred=["a"]), NOW).status["workerNodes"] == ["a"]


# ------------------------------------------------------------------ GPUs that do not show


@pytest.mark.parametrize(
    ("since", "words", "again"),
    [
        (-10, "has 300 s for that, until 2026-11-20T12:04:50Z", 291.0),
        (-300, "has not reported any within 300 s, by 2026-11-20T12:00:00Z", None),
        (None, "has not reported any", None),
    ],
)
def test_gpus_that_do_not_show_have_a_deadline(since: float | None, words: str, again: float | None) -> None:
    """The reason names node, plug-in and limit; the operator looks again when the limit passes, not before."""
    obs = seen(type_=A10, count=1, nodes=(node("a", gpus=0, since=since),))
    plan = decide(obs, NOW)

    assert told(plan) == told(plan, "WorkspaceReady") == ("False", "GpuNotVisible")
    assert words in message(plan)
    assert "Node a is Ready and offers no nvidia.com/gpu: its NVIDIA device plugin" in message(plan)
    assert "Check that the NVIDIA device plugin runs on the node" in message(plan)
    assert plan.requeue_after == again
    assert not any(isinstance(action, Apply) for action in plan.actions)


def test_the_deadline_is_told_once_and_not_counted_down() -> None:
    """The text changes when the limit passes and at no other time, so the status is not written for nothing."""
    obs = seen(type_=A10, count=1, nodes=(node("a", gpus=0, since=0),))
    texts = [message(decide(obs, NOW + timedelta(seconds=second))) for second in range(0, 600, 7)]

    assert len(set(texts)) == 2


# ------------------------------------------------------------------ spot


def test_spot_is_asked_for_and_tolerated() -> None:
    """The Machine asks for spot capacity, and the pods tolerate the taint that AKS puts on such nodes."""
    obs = seen("phi-2", type_=A10, annotations={"kaito.sh/capacity-type": "spot"})
    (body,) = bodies(decide(obs, NOW))
    machines, nodes = world([body])
    plan = decide(replace(obs, machines=machines, nodes=nodes), NOW)
    workload = next(
        action.body
        for action in plan.actions
        if isinstance(action, Apply) and "template" in action.body.get("spec", {})
    )

    assert requirement(body)["karpenter.sh/capacity-type"] == ["spot"]
    assert {
        "key": "kubernetes.azure.com/scalesetpriority",
        "operator": "Equal",
        "value": "spot",
        "effect": "NoSchedule",
    } in workload["spec"]["template"]["spec"]["tolerations"]


def test_nobody_asked_for_spot() -> None:
    """Without the annotation neither the Machine nor the pod says anything of capacity."""
    obs = seen("phi-2", type_=A10)

    assert "karpenter.sh/capacity-type" not in requirement(bodies(decide(obs, NOW))[0])
    assert target(obs).tolerations == ()


# ------------------------------------------------------------------ NodeClaims


def claims(**changes: Any) -> Observation:
    return seen("phi-2", type_=A10, node_api=NODECLAIM_API, **changes)


def test_a_node_claim_is_what_provisioners_of_its_api_expect() -> None:
    """Class, pool, labels, requirements, taint, disk and annotation are as upstream writes them."""
    (body,) = bodies(decide(claims(), NOW))
    parsed = NodeClaim.parse(body)

    assert body["apiVersion"] == "karpenter.sh/v1"
    assert body["metadata"]["labels"] == {
        "apps": "x",
        "karpenter.sh/nodepool": "kaito",
        "kaito.sh/workspace": "w",
        "kaito.sh/workspacenamespace": "ns",
    }
    assert body["metadata"]["annotations"] == {"karpenter.sh/do-not-disrupt": "true"}
    assert requirement(body) == {
        "karpenter.sh/nodepool": ["kaito"],
        "node.kubernetes.io/instance-type": [A10],
        "kubernetes.io/os": ["linux"],
        "karpenter.azure.com/sku-name": [A10],
    }
    assert body["spec"]["nodeClassRef"] == {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"}
    assert body["spec"]["taints"] == [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert body["spec"]["resources"] == {"requests": {"storage": "50Gi"}}
    assert parsed.instance_type == A10


def test_a_node_claim_elsewhere() -> None:
    """On AWS the number of GPUs is asked for instead of Azure's name; a template's disk is upstream's figure."""
    obs = claims(switches=Switches(cloud="aws"))
    obs = replace(
        seen(None, template={"spec": {"containers": []}}, type_="g5.xlarge", node_api=NODECLAIM_API),
        switches=obs.switches,
    )
    (body,) = bodies(decide(obs, NOW))

    assert {"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "Gt", "values": ["0"]} in body["spec"][
        "requirements"
    ]
    assert body["spec"]["resources"] == {"requests": {"storage": "1024Gi"}}


def claim(*conditions: tuple[str, str, str]) -> Json:
    made = machine(0)
    made["status"]["conditions"] = [
        {"type": kind, "status": status, "reason": reason, "message": f"{reason} it is"}
        for kind, status, reason in conditions
    ]
    return made


@pytest.mark.parametrize(
    ("conditions", "state", "reason"),
    [
        ((), "Unknown", "NodeClaimNotReady"),
        ((("Launched", "Unknown", "AwaitingReconciliation"),), "Unknown", "NodeClaimNotReady"),
        ((("Launched", "Unknown", "LaunchFailed"),), "False", "LaunchFailed"),
        ((("Launched", "False", "InsufficientCapacity"),), "False", "InsufficientCapacity"),
        ((("Launched", "True", ""), ("Registered", "Unknown", "NodeNotFound")), "Unknown", "NodeNotFound"),
        (
            (
                ("Launched", "True", ""),
                ("Registered", "True", ""),
                ("Initialized", "False", "ResourceNotRegistered"),
            ),
            "Unknown",
            "ResourceNotRegistered",
        ),
    ],
)
def test_progress_of_a_node_claim_is_told(
    conditions: tuple[tuple[str, str, str], ...], state: str, reason: str
) -> None:
    """NodeClaimReady stands where MachineReady stood, and the claim's own reason is the Workspace's."""
    plan = decide(claims(machines=(claim(*conditions),)), NOW)

    assert "MachineReady" not in {item["type"] for item in plan.status["conditions"]}
    assert told(plan, "NodeClaimReady")[0] == state
    assert told(plan) == told(plan, "WorkspaceReady") == ("False", reason)


def test_node_claims_are_told_in_upstreams_words() -> None:
    """Pending, done, and a cluster without the CRD."""
    done = decide(claims(nodes=(node(),)), NOW)
    absent = decide(claims(machine_api=False), NOW)

    assert told(decide(claims(), NOW), "NodeClaimReady") == ("Unknown", "CreateNodeClaimPending")
    assert told(done, "NodeClaimReady") == ("True", "installNodePluginsSuccess")
    assert told(absent, "NodeClaimReady") == ("False", "NodeClaimApiMissing")
    assert "config/nodeclaim" in message(absent, "NodeClaimReady")
    assert bodies(absent) == []


def test_an_unlabelled_gpu_node_gets_the_label_of_the_device_plugin() -> None:
    """Also beside NodeClaims."""
    bare = node()
    del bare["metadata"]["labels"]["accelerator"]

    assert LabelNode("n1", (("accelerator", "nvidia"),)) in decide(claims(nodes=(bare,)), NOW).actions
