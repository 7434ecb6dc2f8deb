"""The operator's own decision, run against an imaginary cluster.

In: a Workspace and the time. Out: the actions in the order in which the operator would take them, and what it
says in the end. Nothing is decided here. After each round the imaginary world does what a willing one would: a
Machine becomes a Ready node with its GPUs, a Deployment becomes ready, a Job completes. The world is without
matching nodes at the start, because there is no cluster to look at. What depends on the Workspace's uid, which
nobody knows yet, is shown as such: the names of Machines, and an owner reference with a uid of zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from api import catalog, keys
from api.conditions import (
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_REGISTERED,
    READY,
    WORKSPACE_READY,
    Condition,
    conditions_of,
    find,
    is_true,
)
from api.errors import InvalidSpec
from api.v1alpha1 import Workspace
from api.validation import DEFAULT, Switches
from controllers.workspace.decide import decide
from controllers.workspace.imagine import imagine
from controllers.workspace.made import instance_type
from controllers.workspace.model import (
    Action,
    AddFinalizer,
    Annotate,
    Apply,
    CreateMachine,
    CreateOnce,
    LabelNode,
    Observation,
)
from controllers.workspace.target import Target, target_of
from manager.types import Obj

_ROUNDS = 8  # a willing world needs three; more means that the operator never comes to rest
_UID = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the operator does. ``body`` is the object that it sends, where it sends a whole one."""

    verb: str
    kind: str
    name: str
    detail: str = ""
    body: Obj | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What happened.

    Attributes:
        target: what the operator made of the manifest; None where it refuses it.
        objection: the condition that keeps it from being ready even in a willing world; None where it gets ready.
    """

    steps: tuple[Step, ...]
    target: Target | None
    objection: Condition | None


@dataclass(slots=True)
class _World:
    obs: Observation
    steps: list[Step] = field(default_factory=list)


def rehearse(
    obj: Obj, registry: str, now: datetime, *, context: int | None = None, switches: Switches = DEFAULT
) -> Rehearsal:
    """Let the operator act in a willing world. ``context`` is what the Workspace's configuration asks for."""
    meta = {"namespace": "default", "uid": _UID, "resourceVersion": "1", "generation": 1, **obj["metadata"]}
    try:
        workspace, problem = Workspace.parse({**obj, "metadata": meta}), ""
    except InvalidSpec as error:
        workspace, problem = None, "; ".join(f"{path}: {what}" for path, what in error.problems)
    seen = {**obj, "metadata": meta}
    world = _World(Observation(seen, workspace, problem, context=context, registry=registry, switches=switches))
    status: Obj = {}
    for _ in range(_ROUNDS):
        plan = decide(world.obs, now)
        status = plan.status
        if not plan.actions:
            break
        for action in plan.actions:
            _act(world, action)
    conditions = conditions_of({"status": status})
    target = target_of(world.obs, now)
    return Rehearsal(
        steps=tuple(world.steps),
        target=target if isinstance(target, Target) else None,
        objection=None if is_true(conditions, WORKSPACE_READY) else find(conditions, WORKSPACE_READY),
    )


def _act(world: _World, action: Action) -> None:
    obs = world.obs
    match action:
        case AddFinalizer():
            meta = {**obs.obj["metadata"], "finalizers": [keys.WORKSPACE_FINALIZER]}
            world.obs = replace(obs, obj={**obs.obj, "metadata": meta})
            world.steps.append(Step("hold", "Workspace", obs.name, "finalizer, so that its Machines go first"))
        case CreateMachine(body):
            node = _node_of(body, len(obs.nodes))
            machine = {**body, "status": _machine_status(node["metadata"]["name"])}
            world.obs = replace(obs, machines=(*obs.machines, machine), nodes=(*obs.nodes, node))
            disk = body["spec"]["resources"]["requests"].get(keys.STORAGE_RESOURCE, "0")
            name = f"ws<hash of uid and {len(obs.machines)}>"
            shown = {
                **body,
                "metadata": {**body["metadata"], "name": name},
                "spec": {**body["spec"], "machineTemplateRef": {"name": name}},
            }
            detail = f"{instance_type(body)}, disk {disk}"
            world.steps.append(Step("create", "Machine", name, detail, shown))
        case LabelNode(node_name, labels):
            world.obs = replace(
                obs,
                nodes=tuple(
                    _labelled(node, dict(labels)) if node["metadata"]["name"] == node_name else node
                    for node in obs.nodes
                ),
            )
            text = ", ".join(f"{key}={value}" for key, value in labels)
            world.steps.append(Step("label", "Node", node_name, text))
        case Apply(resource, body) | CreateOnce(resource, body):
            world.obs = _with_ready_workload(imagine(obs, action))
            verb = "apply" if isinstance(action, Apply) else "create"
            world.steps.append(Step(verb, resource.kind, str(body["metadata"]["name"]), _detail(body), body))
        case Annotate(resource, name, annotations):
            world.obs = imagine(obs, action)
            text = ", ".join(key for key, _ in annotations)
            world.steps.append(Step("note", resource.kind, name, text))
        case _:
            world.steps.append(Step(type(action).__name__, "", obs.name))


def pod_gpus(body: Mapping[str, Any]) -> int:
    """GPUs that the pods of a workload ask for, over all containers of one pod."""
    spec = body.get("spec", {}).get("template", {}).get("spec", {})
    limits = [(item.get("resources") or {}).get("limits") or {} for item in spec.get("containers") or []]
    return sum(int(item.get(keys.GPU_RESOURCE, 0)) for item in limits)


def _detail(body: Obj) -> str:
    if body["kind"] == "ConfigMap" and keys.TRAINING_CONFIG_KEY in body["data"]:
        return "the method's training settings, to edit; left alone where it is there already"
    if body["kind"] == "ConfigMap":
        return f"the list of adapters: {len(json.loads(body['data'][keys.ADAPTERS_CONFIG_KEY])['adapters'])}"
    if body["kind"] == "ControllerRevision":
        return f"revision {body['revision']} of the specification, to go back to"
    spec = body["spec"]
    if body["kind"] == "Service":
        ports = ", ".join(f"{port['port']}→{port['targetPort']}" for port in spec["ports"])
        return f"{spec.get('type', 'ClusterIP')}, ports {ports}"
    containers = spec.get("template", {}).get("spec", {}).get("containers") or [{}]
    replicas, gpus = spec.get("replicas", 1), pod_gpus(body)
    if body["kind"] == "Job":
        word = "GPU" if gpus == 1 else "GPUs"
        return f"one pod that trains, {gpus} {word}, image {containers[0].get('image', '')}"
    count = f"{replicas} replica{'s' if replicas != 1 else ''}"
    return f"{count}, {gpus} GPU{'s' if gpus != 1 else ''} each, image {containers[0].get('image', '')}"


def _node_of(machine: Obj, number: int) -> Obj:
    """The node that a willing cloud makes of a Machine."""
    kind = instance_type(machine)
    known = catalog.sku(kind)
    labels = {**machine["metadata"]["labels"], keys.INSTANCE_TYPE_LABEL: kind}
    amount = {keys.GPU_RESOURCE: str(known.gpus if known else 1)}
    return {
        "metadata": {"name": f"node-{number + 1}", "labels": labels},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "capacity": amount, "allocatable": amount},
    }


def _machine_status(node: str) -> Obj:
    kinds = (MACHINE_LAUNCHED, MACHINE_REGISTERED, MACHINE_INITIALIZED, READY)
    return {"nodeName": node, "conditions": [{"type": kind, "status": "True"} for kind in kinds]}


def _labelled(node: Obj, labels: dict[str, str]) -> Obj:
    meta = node["metadata"]
    return {**node, "metadata": {**meta, "labels": {**meta["labels"], **labels}}}


def _with_ready_workload(obs: Observation) -> Observation:
    """A willing cluster has all pods ready at once."""
    if obs.deployment is not None:
        obs = replace(obs, deployment={**obs.deployment, "status": _workload_status(obs.deployment)})
    if group := obs.children.statefulset:
        ready = {**group, "status": _workload_status(group)}
        obs = replace(obs, children=replace(obs.children, statefulset=ready))
    if job := obs.children.job:
        done = {**job, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        obs = replace(obs, children=replace(obs.children, job=done))
    return obs


def _workload_status(workload: Obj) -> Obj:
    count, generation = workload["spec"].get("replicas", 1), workload["metadata"]["generation"]
    return {"observedGeneration": generation, "replicas": count, "updatedReplicas": count, "readyReplicas": count}
