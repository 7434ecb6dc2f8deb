"""What a Workspace's pods are made of, what an edit does to them, and what a deletion takes along."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api import catalog, keys
from api.v1alpha1 import Workspace
from controllers.workspace.decide import decide
from controllers.workspace.imagine import imagine
from controllers.workspace.model import Annotate, Apply, DeleteMachine, DeleteOwned, NodeUse, Observation, Plan
from controllers.workspace.workload.placement import TOLERATIONS
from controllers.workspace.workload.replacing import strategy

Json = dict[str, Any]

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
PHI = {"preset": {"name": "phi-3-mini-4k-instruct"}}
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def workspace(
    *, sku: str = "Standard_NC6s_v3", count: int | None = None, meta: Json | None = None, **parts: Any
) -> Json:
    resource: Json = {"instanceType": sku, "labelSelector": {"matchLabels": {"apps": "phi-3"}}}
    if count:
        resource["count"] = count
    return {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {
            "name": "w",
            "namespace": "ns",
            "uid": "u1",
            "resourceVersion": "5",
            "generation": 2,
            "finalizers": [keys.WORKSPACE_FINALIZER],
            **(meta or {}),
        },
        "resource": resource,
        **(parts or {"inference": PHI}),
    }


def node(name: str, sku: str = "Standard_NC6s_v3", gpus: int = 1, **spec: Any) -> Json:
    labels = {"apps": "phi-3", "node.kubernetes.io/instance-type": sku, "accelerator": "nvidia"}
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": str(gpus)}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def seen(obj: Json, *nodes: Json, operator: str = "1.0", **changes: Any) -> Observation:
    obs = Observation(obj, Workspace.parse(obj), registry="example.com/kaito", nodes=nodes, **changes)
    return replace(obs, children=replace(obs.children, operator=operator))


def settled(obs: Observation) -> Observation:
    """The observation once nothing is left to do, with every pod ready."""
    for _ in range(5):
        plan = decide(obs, NOW)
        for action in plan.actions:
            obs = imagine(obs, action)
        if not plan.actions:
            break
    assert decide(obs, NOW).actions == ()
    return obs


def ready(obs: Observation) -> Observation:
    def reported(obj: Json | None) -> Json | None:
        if obj is None:
            return None
        count, meta = obj["spec"]["replicas"], obj["metadata"]
        figures = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas"), count)
        return {**obj, "status": {"observedGeneration": meta["generation"], **figures}}

    children = replace(obs.children, statefulset=reported(obs.children.statefulset))
    return replace(obs, deployment=reported(obs.deployment), children=children)


def edited(obs: Observation, **parts: Any) -> Observation:
    obj = {**obs.obj, **parts}
    return replace(obs, obj=obj, workspace=Workspace.parse(obj))


def with_adapters(obs: Observation, *sources: Json) -> Observation:
    adapters = [
        {"source": {key: value for key, value in item.items() if key != "strength"}}
        | ({"strength": item["strength"]} if "strength" in item else {})
        for item in sources
    ]
    return edited(obs, inference={**obs.obj["inference"], "adapters": adapters})


def image(name: str, *secrets: str, strength: str = "1.0") -> Json:
    return {
        "name": name,
        "image": f"example.com/{name}:1",
        "imagePullSecrets": list(secrets),
        "strength": strength,
    }


def kinds(plan: Plan) -> list[str]:
    return [action.body["kind"] for action in plan.actions if isinstance(action, Apply)]


def pod_of(workload: Json | None) -> Json:
    assert workload is not None
    pod: Json = workload["spec"]["template"]["spec"]
    return pod


def arguments(workload: Json | None) -> list[str]:
    return list(pod_of(workload)["containers"][0]["args"])


def generation(obs: Observation) -> int:
    assert obs.workload is not None
    return int(obs.workload["metadata"]["generation"])


# ------------------------------------------------------------------ presets (KS-A01 to A06)


def private(name: str) -> Json:
    return {"preset": {"name": name, "accessMode": "private", "presetOptions": {"image": "example.com/llama:1"}}}


@pytest.mark.parametrize(
    ("preset", "sku", "gpus"),
    [
        pytest.param("phi-3-mini-4k-instruct", "Standard_NC6s_v3", 1, marks=pytest.mark.acceptance("KS-A01")),
        *(
            pytest.param(name, sku, gpus, marks=pytest.mark.acceptance("KS-A02"))
            for name, sku, gpus in [
                ("falcon-7b", "Standard_NC12s_v3", 1),
                ("falcon-7b-instruct", "Standard_NC12s_v3", 1),
                ("mistral-7b", "Standard_NC12s_v3", 1),
                ("mistral-7b-instruct", "Standard_NC12s_v3", 1),
                ("phi-2", "Standard_NC6s_v3", 1),
                ("falcon-40b", "Standard_NC96ads_A100_v4", 2),
                ("falcon-40b-instruct", "Standard_NC96ads_A100_v4", 2),
            ]
        ),
    ],
)
def test_a_preset_on_one_node_is_a_deployment(preset: str, sku: str, gpus: int) -> None:
    """One replica with GPUs enough for the preset, behind ports 80 and 29500."""
    known = catalog.sku(sku)
    assert known is not None
    obs = settled(seen(workspace(sku=sku, inference={"preset": {"name": preset}}), node("n1", sku, known.gpus)))

    assert obs.deployment is not None
    assert obs.children.statefulset is None
    assert obs.deployment["spec"]["replicas"] == 1
    (container,) = pod_of(obs.deployment)["containers"]
    assert gpus <= int(container["resources"]["limits"]["nvidia.com/gpu"]) <= known.gpus
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert obs.service is not None
    assert [port["port"] for port in obs.service["spec"]["ports"]] == [80, 29500]


@pytest.mark.acceptance("KS-A03")
@pytest.mark.parametrize("preset", ["llama-2-7b", "llama-2-7b-chat"])
def test_a_private_preset_runs_the_users_image(preset: str) -> None:
    """The image is the user's; on one GPU no parallelism is asked for."""
    sku = "Standard_NC24ads_A100_v4"
    obs = settled(seen(workspace(sku=sku, inference=private(preset)), node("n1", sku)))

    assert pod_of(obs.deployment)["containers"][0]["image"] == "example.com/llama:1"
    assert not any("parallel" in word or "node" in word for word in arguments(obs.deployment))


@pytest.mark.acceptance("KS-A04")
@pytest.mark.parametrize("preset", ["llama-2-13b", "llama-2-13b-chat"])
def test_a_preset_made_for_several_processes_is_a_statefulset(preset: str) -> None:
    """On one node with two GPUs: a StatefulSet with its headless Service, and one group of two GPUs."""
    sku = "Standard_NC12s_v3"
    obs = settled(seen(workspace(sku=sku, count=1, inference=private(preset)), node("n1", sku, 2)))

    group, headless = obs.children.statefulset, obs.children.headless
    assert group is not None
    assert obs.deployment is None
    assert (group["spec"]["replicas"], group["spec"]["podManagementPolicy"]) == (1, "Parallel")
    assert group["spec"]["serviceName"] == "w-headless"
    assert headless is not None
    assert (headless["metadata"]["name"], headless["spec"]["clusterIP"]) == ("w-headless", "None")
    assert "--tensor-parallel-size=2" in arguments(group)
    assert pod_of(group)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


@pytest.mark.acceptance("KS-A05")
@pytest.mark.parametrize("preset", ["llama-2-70b", "llama-2-70b-chat"])
def test_a_preset_over_two_nodes_is_one_group(preset: str) -> None:
    """Two replicas with four GPUs each that know their number, their rank and where the first of them is."""
    sku = "Standard_NC96ads_A100_v4"
    obj = workspace(sku=sku, count=2, inference=private(preset))
    obs = settled(seen(obj, node("n1", sku, 4), node("n2", sku, 4)))

    group = obs.children.statefulset
    assert group is not None
    assert group["spec"]["replicas"] == 2
    words = arguments(group)
    assert "--nodes=2" in words
    assert "--node-rank=$(POD_NAME)" in words
    assert "--leader-address=w-0.w-headless.ns.svc:29500" in words
    by_flag = dict(word.split("=", 1) for word in words)
    assert int(by_flag["--tensor-parallel-size"]) * int(by_flag["--pipeline-parallel-size"]) == 8
    assert pod_of(group)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert {"name": "dshm", "emptyDir": {"medium": "Memory"}} in pod_of(group)["volumes"]
    assert obs.service is not None
    assert obs.service["spec"]["selector"] == {
        "kaito.sh/workspace": "w",
        "statefulset.kubernetes.io/pod-name": "w-0",
    }


def test_a_group_with_too_long_a_name_costs_no_node() -> None:
    """Its pods could never be made: the name is refused before any Machine."""
    sku = "Standard_NC96ads_A100_v4"
    obj = workspace(sku=sku, count=2, inference=private("llama-2-70b"), meta={"name": "w" * 53})

    plan = decide(seen(obj), NOW)

    assert plan.actions == ()
    assert "52 at most" in next(
        item["message"] for item in plan.status["conditions"] if item["type"] == "WorkspaceReady"
    )


@pytest.mark.acceptance("KS-A06")
@pytest.mark.parametrize("preset", ["falcon-7b", "phi-3-mini-4k-instruct"])
def test_adapters_are_a_list_with_strengths(preset: str) -> None:
    """What upstream does by init containers and variables is data: name, image and strength of each adapter."""
    sku = "Standard_NC24ads_A100_v4"
    obs = seen(workspace(sku=sku, inference={"preset": {"name": preset}}), node("n1", sku))
    obs = settled(with_adapters(obs, image("one", strength="0.5"), image("two", "secret")))

    assert obs.children.adapters is not None
    wanted = json.loads(obs.children.adapters["data"]["adapters.json"])
    assert [(item["name"], item["image"], item["strength"]) for item in wanted["adapters"]] == [
        ("one", "example.com/one:1", 0.5),
        ("two", "example.com/two:1", 1.0),
    ]
    assert wanted["adapters"][1]["pullSecrets"] == ["secret"]
    assert "initContainers" not in pod_of(obs.deployment)
    assert "--adapters=/etc/kaito/adapters/adapters.json" in arguments(obs.deployment)


def test_every_presets_pod_passes_the_restricted_profile() -> None:
    """No privilege, no path of the node, no root: the rules of Pod Security's strictest profile."""
    tried = 0
    for preset in catalog.presets():
        half = private(preset.name) if preset.private else {"preset": {"name": preset.name}}
        sku = "Standard_ND96isr_H100_v5"
        for count in (1, 2):
            obs = seen(workspace(sku=sku, count=count, inference=half), node("n1", sku, 8), node("n2", sku, 8))
            for action in decide(obs, NOW).actions:
                if isinstance(action, Apply) and action.body["kind"] in ("Deployment", "StatefulSet"):
                    assert not list(violations(action.body["spec"]["template"]["spec"])), preset.name
                    tried += 1
    assert tried >= len(catalog.presets())


def violations(pod: Json) -> list[str]:
    """Where a pod leaves the ``restricted`` profile (Kubernetes' Pod Security Standards)."""
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    for volume in pod.get("volumes") or []:
        found += [f"volume {kind}" for kind in set(volume) - {"name"} - VOLUMES]
    shared = pod.get("securityContext") or {}
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        own = container.get("securityContext") or {}
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("privileged") or own.get("procMount"):
            found.append("privileged")
        capabilities = own.get("capabilities") or {}
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            found.append("capabilities")
        if own.get("runAsNonRoot", shared.get("runAsNonRoot")) is not True:
            found.append("runAsNonRoot")
        if 0 in (own.get("runAsUser"), shared.get("runAsUser")):
            found.append("runAsUser")
        profile = own.get("seccompProfile") or shared.get("seccompProfile") or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        found += ["hostPort" for port in container.get("ports") or [] if port.get("hostPort")]
    return found


def test_a_slow_load_is_not_killed_and_a_drain_fits() -> None:
    """The start-up probe's time grows with the weights, and the pod's last seconds hold the server's drain."""
    times = {}
    for name in ("phi-3-mini-4k-instruct", "meta-llama/llama-3.1-8b-instruct", "deepseek-ai/deepseek-r1-0528"):
        preset, sku = catalog.preset(name), "Standard_ND96isr_H100_v5"
        obj = workspace(sku=sku, inference={"preset": {"name": preset.name}})
        plan = decide(seen(obj, *(node(f"n{index}", sku, 8) for index in range(4))), NOW)
        (body,) = (a.body for a in plan.actions if isinstance(a, Apply) and "template" in a.body.get("spec", {}))
        probe = pod_of(body)["containers"][0]["startupProbe"]
        times[name] = probe["periodSeconds"] * probe["failureThreshold"]
        drain = next(word for word in arguments(body) if word.startswith("--drain-seconds="))
        assert pod_of(body)["terminationGracePeriodSeconds"] > int(drain.partition("=")[2])
    small, middle, large = times.values()
    assert small == middle == 1800
    assert large > 7200


def test_weights_of_the_hub_survive_a_restarted_container() -> None:
    """A downloaded model lies in a volume of the pod, and a token comes from the user's Secret."""
    options = {"presetOptions": {"modelAccessSecret": "hf", "imagePullSecrets": ["acr"]}}
    sku = "Standard_NC24ads_A100_v4"
    obj = workspace(sku=sku, inference={"preset": {"name": "meta-llama/llama-3.1-8b-instruct", **options}})
    pod = pod_of(settled(seen(obj, node("n1", sku))).deployment)

    assert {"name": "weights", "emptyDir": {}} in pod["volumes"]
    assert {"name": "weights", "mountPath": "/workspace/weights"} in pod["containers"][0]["volumeMounts"]
    env = {item["name"]: item for item in pod["containers"][0]["env"]}
    assert env["HF_HOME"]["value"] == "/workspace/weights"
    assert env["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hf", "key": "HF_TOKEN"}
    assert pod["imagePullSecrets"] == [{"name": "acr"}]


# ------------------------------------------------------------------ templates (KS-A13)


@pytest.mark.acceptance("KS-A13")
def test_a_template_gains_only_what_it_lacks() -> None:
    """The user's alternatives of nodes each get the Workspace's labels, and no toleration is there twice."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    zone = {"key": "zone", "operator": "In", "values": ["1"]}
    apps = {"key": "apps", "operator": "In", "values": ["phi-3"]}
    spec = {
        "containers": [{"name": "c", "image": "example.com/x:1", "command": ["run"]}],
        "tolerations": [TOLERATIONS[1], {"operator": "Exists", "key": "mine"}],
        "affinity": {
            "nodeAffinity": {
                required: {"nodeSelectorTerms": [{"matchExpressions": [zone]}, {"matchExpressions": [apps]}]}
            }
        },
    }
    obs = settled(seen(workspace(inference={"template": {"spec": spec}}), node("n1")))

    pod = pod_of(obs.deployment)
    assert pod["containers"] == spec["containers"]
    terms = pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [zone, apps]}, {"matchExpressions": [apps]}]
    assert pod["tolerations"] == [*spec["tolerations"], TOLERATIONS[0]]  # type: ignore[misc]
    assert (obs.service, obs.children.headless, obs.children.adapters) == (None, None, None)


def test_pods_prefer_the_nodes_of_their_workspace() -> None:
    """Another Workspace with the same labels may have nodes too; a wish of the user's own stays the first."""
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    own = {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    spec = {
        "containers": [{"name": "c", "image": "example.com/x:1"}],
        "affinity": {"nodeAffinity": {preferred: [own]}},
    }
    obs = settled(seen(workspace(inference={"template": {"spec": spec}}), node("n1")))

    first, second = pod_of(obs.deployment)["affinity"]["nodeAffinity"][preferred]
    mine = [("kaito.sh/workspace", ["w"]), ("kaito.sh/workspacenamespace", ["ns"])]

    assert first == own
    assert [(item["key"], item["values"]) for item in second["preference"]["matchExpressions"]] == mine


def test_a_toleration_of_everything_needs_no_other() -> None:
    """A pod that tolerates every taint stays as it is."""
    spec = {"containers": [{"name": "c", "image": "example.com/x:1"}], "tolerations": [{"operator": "Exists"}]}
    obs = settled(seen(workspace(inference={"template": {"spec": spec}}), node("n1")))

    assert pod_of(obs.deployment)["tolerations"] == [{"operator": "Exists"}]


# ------------------------------------------------------------------ edits of adapters


def test_the_first_adapter_restarts_nothing() -> None:
    """An adapter without a pull secret is an edit of the ConfigMap: pods without any are prepared for it."""
    before = settled(seen(workspace(), node("n1")))
    after = with_adapters(before, image("one"))

    assert kinds(decide(after, NOW)) == ["ControllerRevision", "ConfigMap"]
    assert settled(after).deployment == before.deployment


def test_a_new_secret_is_a_roll_out_and_the_same_one_is_none() -> None:
    """The pods get the pull secret's file once; adapters come and go with it afterwards."""
    before = settled(seen(workspace(), node("n1")))
    first = settled(with_adapters(before, image("one", "s1")))
    second = settled(with_adapters(first, image("two", "s1"), image("three")))
    third = settled(with_adapters(second))

    assert generation(first) == generation(before) + 1
    assert generation(third) == generation(second) == generation(first)
    assert first.deployment is not None
    assert first.deployment["metadata"]["annotations"][keys.WORKSPACE_REVISION] == "2"
    (volume,) = (item for item in pod_of(first.deployment)["volumes"] if item["name"] == "pull-secrets")
    (source,) = volume["projected"]["sources"]
    assert source["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "s1/.dockerconfigjson"}]
    mounts = {
        item["name"]: item["mountPath"] for item in pod_of(first.deployment)["containers"][0]["volumeMounts"]
    }
    assert mounts["pull-secrets"] == "/etc/kaito/pull-secrets"
    assert json.loads((third.children.adapters or {})["data"]["adapters.json"])["adapters"] == []


def test_an_adapter_on_a_volume_is_mounted() -> None:
    """A new volume is a roll-out, and the list names the folder; another source is another volume."""
    before = settled(seen(workspace(), node("n1")))
    claim = {"name": "one", "volumeSource": {"persistentVolumeClaim": {"claimName": "a"}}}
    first = settled(with_adapters(before, claim))
    other = {"name": "one", "volumeSource": {"persistentVolumeClaim": {"claimName": "b"}}}
    second = settled(with_adapters(first, other))

    assert (generation(first), generation(second)) == (generation(before) + 1, generation(before) + 2)
    wanted = json.loads((first.children.adapters or {})["data"]["adapters.json"])["adapters"]
    assert [(item["name"], item["path"]) for item in wanted] == [("one", "/mnt/adapter/one")]
    names = [
        next(item["name"] for item in pod_of(obs.deployment)["volumes"] if "persistentVolumeClaim" in item)
        for obs in (first, second)
    ]
    assert names[0] != names[1]


# ------------------------------------------------------------------ the engine's settings


def with_config(obs: Observation, text: str | None) -> Observation:
    stored = None if text is None else {"metadata": {"name": "cfg"}, "data": {"inference_config.yaml": text}}
    obs = edited(obs, inference={**PHI, "config": "cfg"})
    return replace(obs, children=replace(obs.children, configs={"cfg": stored}))


def test_an_edit_of_the_settings_rolls() -> None:
    """The ConfigMap is mounted, its content is part of what pods are made of, and only a change of it rolls."""
    first = settled(with_config(seen(workspace(), node("n1")), "vllm:\n  max-num-seqs: 4\n"))
    same = settled(with_config(first, "vllm:\n  max-num-seqs: 4\n"))
    other = settled(with_config(first, "vllm:\n  max-num-seqs: 8\n"))

    assert "--config-file=/mnt/config/inference_config.yaml" in arguments(first.deployment)
    assert {"name": "config", "configMap": {"name": "cfg"}} in pod_of(first.deployment)["volumes"]
    assert (generation(same), generation(other)) == (generation(first), generation(first) + 1)


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "ConfigMissing"), ("vllm: [", "ConfigInvalid"), ("vllm: [1]", "ConfigInvalid")]
)
def test_settings_that_cannot_be_used_reach_no_pod(text: str | None, reason: str) -> None:
    """Nothing is started with them, and what runs is left alone; the condition says what to correct."""
    fresh = with_config(seen(workspace(), node("n1")), text)
    running = settled(seen(workspace(), node("n1")))

    for obs in (fresh, with_config(running, text)):
        plan = decide(obs, NOW)
        told = {item["type"]: item["reason"] for item in plan.status["conditions"]}
        assert kinds(plan) == []
        assert told["InferenceReady"] == reason


def test_settings_that_vanish_leave_the_pods_alone() -> None:
    """Pods that run keep what they have read when their ConfigMap is deleted."""
    running = ready(settled(with_config(seen(workspace(), node("n1")), "vllm: {}")))

    plan = decide(with_config(running, None), NOW)

    assert plan.actions == ()
    assert {item["type"]: item["status"] for item in plan.status["conditions"]}["InferenceReady"] == "True"


# ------------------------------------------------------------------ how pods are replaced


@pytest.mark.parametrize(
    ("nodes", "taken", "gpus", "replicas", "beside"),
    [
        ((node("n1"),), {}, 1, 1, False),
        ((node("n1"), node("n2")), {}, 1, 1, True),
        ((node("n1", gpus=4),), {}, 2, 1, True),
        ((node("n1", gpus=4),), {}, 2, 2, False),
        ((node("n1", gpus=4),), {"n1": 3}, 2, 1, False),
        ((node("n1"), node("n2")), {"n2": 1}, 1, 1, False),
        ((node("n1"), node("n2", unschedulable=True)), {}, 1, 1, False),
        ((node("n1", gpus=3), node("n2", gpus=3)), {}, 2, 2, False),
        ((node("n1"),), {}, 0, 1, True),
        ((), {}, 0, 1, False),
    ],
)
def test_old_pods_serve_on_where_a_gpu_is_free(
    nodes: tuple[Json, ...], taken: dict[str, int], gpus: int, replicas: int, beside: bool
) -> None:
    """New pods start beside the old ones where one fits; else the old one makes room."""
    pod = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}]}

    steps = strategy(nodes, (), taken, pod, replicas)["rollingUpdate"]

    assert steps == ({"maxSurge": 1, "maxUnavailable": 0} if beside else {"maxSurge": 0, "maxUnavailable": 1})


def test_a_roll_outs_own_pod_does_not_turn_it_around() -> None:
    """The room that the new pod takes still counts, or the old one would be taken down before its time."""
    obs = settled(seen(workspace(), node("n1"), node("n2")))
    rolling = replace(obs, use={"n1": NodeUse(gpus={"ns/w": 1}), "n2": NodeUse(gpus={"ns/w": 1})})

    assert decide(rolling, NOW).actions == ()


def test_a_neighbour_that_takes_the_room_changes_nothing_until_the_next_roll_out() -> None:
    """At rest a Deployment is not written because of others' pods; an edit finds out how to replace its own."""
    obs = ready(settled(seen(workspace(), node("n1"), node("n2"))))
    crowded = replace(obs, use={"n1": NodeUse(gpus={"ns/w": 1}), "n2": NodeUse(gpus={"ns/other": 1})})

    done = settled(with_adapters(crowded, image("a", "pull")))

    assert decide(crowded, NOW).actions == ()
    assert [found.deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] for found in (obs, done)] == [1, 0]


def test_a_new_pod_that_finds_no_node_makes_the_old_one_give_way() -> None:
    """What the scheduler knows and we do not (other programs' memory) must not stall a roll-out."""
    obs = settled(seen(workspace(), node("n1"), node("n2")))
    waiting = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = {"metadata": {"name": "w-2", "uid": "p"}, "spec": {}, "status": {"conditions": [waiting]}}

    done = settled(replace(obs, pods=(pod,)))

    assert done.deployment is not None
    assert done.deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def pod(name: str, *, ready: bool = True, leaving: bool = False, **meta: Any) -> Json:
    if leaving:
        meta["deletionTimestamp"] = "2026-11-20T11:59:00Z"
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "uid": name, **meta}, "spec": {}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("pods", "published"),
    [
        ((), True),
        ((pod("a", ready=False),), True),
        ((pod("a"),), True),
        ((pod("a"), pod("b", ready=False)), False),
        ((pod("a", leaving=True), pod("b")), False),
        ((pod("a", ready=False), pod("b", ready=False)), True),
    ],
)
def test_clients_go_to_pods_that_can_answer(pods: tuple[Json, ...], published: bool) -> None:
    """Addresses that are not ready are published, as upstream does, unless there is a better one."""
    obs = settled(replace(seen(workspace(), node("n1")), pods=pods))

    assert obs.service is not None
    assert obs.service["spec"]["publishNotReadyAddresses"] is published


def a_group() -> tuple[Observation, Json, list[Json]]:
    """A model over two nodes: what is seen, its StatefulSet, and the owners of the pods of that."""
    sku = "Standard_NC96ads_A100_v4"
    obj = workspace(sku=sku, count=2, inference=private("llama-2-70b"))
    obs = ready(settled(seen(obj, node("n1", sku, 4), node("n2", sku, 4))))
    group = obs.children.statefulset
    assert group is not None
    return obs, group, [{"uid": group["metadata"]["uid"], "controller": True}]


def test_a_group_is_replaced_at_once() -> None:
    """All members of an earlier revision go in one reconcile, once the new revision is known, and no other pod."""
    obs, group, owner = a_group()
    members = tuple(
        pod(f"w-{index}", ownerReferences=owner, labels={"controller-revision-hash": revision})
        for index, revision in enumerate(("old", "old"))
    )
    fresh = pod("w-2", ownerReferences=owner, labels={"controller-revision-hash": "new"})
    stranger = pod("x", labels={"controller-revision-hash": "old"})
    group = {**group, "status": {**group["status"], "updateRevision": "new"}}
    rolled = replace(obs, pods=(*members, fresh, stranger), children=replace(obs.children, statefulset=group))
    unseen = {**group, "metadata": {**group["metadata"], "generation": 99}}
    early = replace(rolled, children=replace(rolled.children, statefulset=unseen))

    gone = [action.name for action in decide(rolled, NOW).actions if isinstance(action, DeleteOwned)]

    assert gone == ["w-0", "w-1"]
    assert not any(isinstance(action, DeleteOwned) for action in decide(early, NOW).actions)


def member(number: int, started: str, ready: str | None, **meta: Any) -> Json:
    """A member of a group: when its container began, and since when it is ready."""
    told = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": ready or started}
    made = pod(f"w-{number}", **meta)
    made["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [told],
        "containerStatuses": [{"name": "w", "state": {"running": {"startedAt": started}}}],
    }
    return made


@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        pytest.param(("T11:00:00Z", "T11:02:00Z"), ("T11:30:00Z", None), True, id="restarted"),
        pytest.param(("T11:30:00Z", None), ("T11:00:00Z", "T11:02:00Z"), True, id="leader restarted"),
        pytest.param(("T11:00:00Z", "T11:02:00Z"), ("T11:00:30Z", None), False, id="still loads"),
        pytest.param(("T11:00:00Z", "T11:02:00Z"), ("T11:30:00Z", "T11:31:00Z"), False, id="met again"),
        pytest.param(("T11:00:00Z", None), ("T11:30:00Z", None), False, id="never met"),
    ],
)
def test_a_group_that_lost_a_part_begins_again(
    first: tuple[str, str | None], second: tuple[str, str | None], goes: bool
) -> None:
    """Parts of a model meet once: one that starts after another was ready is joined by fresh pods of all."""
    obs, _, owner = a_group()
    pods = tuple(
        member(index, f"2026-11-20{started}", f"2026-11-20{since}" if since else None, ownerReferences=owner)
        for index, (started, since) in enumerate((first, second))
    )

    gone = [action for action in decide(replace(obs, pods=pods), NOW).actions if isinstance(action, DeleteOwned)]

    assert [action.name for action in gone] == (["w-0", "w-1"] if goes else [])
    assert [bool(action.why) for action in gone] == ([True, False] if goes else [])


# ------------------------------------------------------------------ revisions


def test_revisions_are_kept_ten_deep() -> None:
    """Every specification is a revision named by its content; the newest number is current, ten are kept."""
    obs = settled(seen(workspace(), node("n1")))
    for index in range(15):
        obs = settled(with_adapters(obs, image(f"a{index}")))

    numbers = sorted(item["revision"] for item in obs.children.revisions)
    assert numbers == list(range(7, 17))
    newest = max(obs.children.revisions, key=lambda item: int(item["revision"]))
    assert newest["data"]["inference"] == obs.obj["inference"]
    mark = obs.obj["metadata"]["annotations"][keys.WORKSPACE_HASH]
    assert newest["metadata"]["name"] == f"w-{mark[:10]}"
    assert len(mark) == 64


def test_going_back_gives_the_old_revision_the_newest_number() -> None:
    """The same content is the same object: history has no twins."""
    first = settled(seen(workspace(), node("n1")))
    second = settled(with_adapters(first, image("one")))
    third = settled(edited(second, inference=PHI))

    assert [(item["metadata"]["name"], item["revision"]) for item in first.children.revisions] != []
    assert len(third.children.revisions) == 2
    name = first.children.revisions[0]["metadata"]["name"]
    assert {item["metadata"]["name"]: item["revision"] for item in third.children.revisions}[name] == 3


# ------------------------------------------------------------------ a newer operator


def newer(obs: Observation, **changes: Any) -> Observation:
    """The same world, seen by an operator that renders another image."""
    obs = replace(obs, registry="example.org/newer")
    return replace(obs, children=replace(obs.children, operator="2.0", **changes))


def test_an_operator_upgrade_leaves_running_pods_alone() -> None:
    """The pod template of the earlier operator stays, with its version; the decision says that it is outdated."""
    running = ready(settled(seen(workspace(), node("n1"))))

    plan = decide(newer(running), NOW)

    assert plan.actions == ()
    assert plan.outdated
    assert running.deployment is not None
    assert running.deployment["metadata"]["annotations"][keys.RENDERED_BY] == "1.0"


def test_an_adapter_is_added_under_a_newer_operator_without_a_restart() -> None:
    """Data goes on flowing to pods of an earlier operator."""
    running = ready(settled(seen(workspace(), node("n1"))))
    after = newer(with_adapters(running, image("one")))

    plan = decide(after, NOW)
    done = after
    for action in plan.actions:
        done = imagine(done, action)

    assert kinds(plan) == ["ControllerRevision", "ConfigMap"]
    assert done.deployment == running.deployment


def test_an_edit_or_the_word_upgrades() -> None:
    """An edit that pods must follow renders them anew, and so does the annotation, or the operator's flag."""
    running = ready(settled(seen(workspace(), node("n1"))))
    rolled = settled(newer(with_adapters(running, image("one", "secret"))))
    asked = settled(newer(running, upgrade=True))

    for obs in (rolled, asked):
        assert pod_of(obs.deployment)["containers"][0]["image"].startswith("example.org/newer/")
        assert obs.deployment is not None
        assert obs.deployment["metadata"]["annotations"][keys.RENDERED_BY] == "2.0"
        assert not decide(obs, NOW).outdated
    assert asked.deployment is not None
    assert asked.deployment["metadata"]["annotations"][keys.UPGRADED_TO] == "2.0"


def test_a_workload_of_before_these_notes_is_held_from_now_on() -> None:
    """What an operator without them left is noted and not replaced; the next edit is followed."""
    running = ready(settled(seen(workspace(), node("n1"))))
    assert running.deployment is not None
    meta = {**running.deployment["metadata"], "annotations": {}}
    old = replace(running, deployment={**running.deployment, "metadata": meta})

    (note,) = decide(old, NOW).actions
    assert isinstance(note, Annotate)
    held = imagine(old, note)
    assert generation(held) == generation(running)
    assert decide(held, NOW).outdated
    assert generation(settled(with_adapters(held, image("one", "secret")))) == generation(running) + 1


# ------------------------------------------------------------------ whose objects


def relabelled(obj: Json | None, *, owner: str | None) -> Json:
    """The object of an earlier Workspace of this name, or of nobody."""
    assert obj is not None
    references = [{**item, "uid": owner} for item in obj["metadata"]["ownerReferences"]] if owner else []
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": references}}


def test_what_an_earlier_workspace_left_is_removed_before_anything_is_made() -> None:
    """A dead owner's objects are deleted by their uid; the condition says what is waited for."""
    old = settled(seen(workspace(), node("n1")))
    left = replace(
        seen(workspace(), node("n1")),
        deployment=relabelled(old.deployment, owner="u0"),
        service=relabelled(old.service, owner="u0"),
    )

    plan = decide(left, NOW)

    assert {type(action) for action in plan.actions} == {DeleteOwned}
    assert len(plan.actions) == 2
    told = {item["type"]: item["reason"] for item in plan.status["conditions"]}
    assert told["InferenceReady"] == "LeftoverOfAnEarlierWorkspace"


def test_an_orphan_of_ours_is_adopted() -> None:
    """After --cascade=orphan a Workspace of the same name goes on with what runs."""
    old = settled(seen(workspace(), node("n1")))
    orphaned = replace(
        seen(workspace(), node("n1")),
        deployment=relabelled(old.deployment, owner=None),
        service=relabelled(old.service, owner=None),
    )

    done = settled(orphaned)

    assert done.workload is not None
    assert generation(done) == generation(old)


@pytest.mark.parametrize("which", ["deployment", "service", "adapters"])
def test_what_belongs_to_somebody_else_is_not_touched(which: str) -> None:
    """One foreign object of a needed name stops all, and is named."""
    foreign = {"metadata": {"name": "w", "uid": "x", "labels": {keys.WORKSPACE_LABEL: "w"}}}
    obs = seen(workspace(), node("n1"))
    if which == "adapters":
        obs = replace(obs, children=replace(obs.children, adapters=foreign))
    else:
        obs = replace(obs, **{which: foreign})

    plan = decide(obs, NOW)

    assert plan.actions == ()
    assert {item["reason"] for item in plan.status["conditions"] if item["type"] == "InferenceReady"} == {
        "WorkloadConflict"
    }


# ------------------------------------------------------------------ deletion (KS-A15)


def leaving(minutes: int, **ready: Any) -> Json:
    asked = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": asked, **ready}] if ready else []
    return {
        "kind": "Machine",
        "metadata": {"name": "ws1", "uid": "m1", "deletionTimestamp": asked},
        "status": {"conditions": conditions},
    }


@pytest.mark.acceptance("KS-A15")
def test_deletion_takes_the_group_and_its_data_along() -> None:
    """Services, StatefulSet, ConfigMap and Machines are asked to go in one reconcile, the workload first."""
    sku = "Standard_NC96ads_A100_v4"
    obj = workspace(sku=sku, count=2, inference=private("llama-2-70b"))
    obs = settled(seen(obj, node("n1", sku, 4), node("n2", sku, 4)))
    gone = {**obs.obj, "metadata": {**obs.obj["metadata"], "deletionTimestamp": "2026-11-20T12:00:00Z"}}
    machine = {"metadata": {"name": "ws1", "uid": "m1"}, "status": {}}

    plan = decide(replace(obs, obj=gone, machines=(machine,)), NOW)

    deleted = [(a.resource.kind, a.name) for a in plan.actions if isinstance(a, DeleteOwned)]
    assert deleted == [
        ("Service", "w"),
        ("Service", "w-headless"),
        ("StatefulSet", "w"),
        ("ConfigMap", "w-adapters"),
    ]
    assert plan.actions[-1] == DeleteMachine("ws1", "m1")
    assert plan.requeue_after is not None


@pytest.mark.acceptance("KS-A15")
@pytest.mark.parametrize(
    ("machine", "reason", "words"),
    [
        (
            leaving(0),
            "workspaceDeleted",
            "Machine ws1: its instance and node are given back (the cloud is at work)",
        ),
        (
            leaving(3, reason="Throttled", message="429"),
            "workspaceDeleted",
            "Throttled: 429, since 3 min (the cloud",
        ),
        (leaving(25, reason="DrainFailed", message="pod x"), "DeletionStuck", "DrainFailed: pod x, since 25 min"),
    ],
)
def test_what_holds_a_deletion_up_is_told(machine: Json, reason: str, words: str) -> None:
    """Which Machine, why in its own words, for how long, and whose turn it is."""
    obj = workspace(meta={"deletionTimestamp": "2026-11-20T11:00:00Z"})

    plan = decide(seen(obj, machines=(machine,)), NOW)

    told = next(item for item in plan.status["conditions"] if item["type"] == "WorkspaceDeleting")
    assert (told["status"], told["reason"]) == ("True", reason)
    assert words in told["message"]
