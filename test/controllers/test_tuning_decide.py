"""What the Workspace controller decides about tuning, as tables of observations."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.progress import TuneFailure, TuneProgress, TuneStage
from api.reasons import Reason, next_step_of
from api.training_templates import training_template
from api.v1alpha1 import Workspace
from api.v1alpha1.tuning import TuningMethod
from api.validation import Switches
from controllers.workspace.decide import decide
from controllers.workspace.imagine import imagine
from controllers.workspace.model import (
    AddFinalizer,
    Annotate,
    CreateMachine,
    CreateOnce,
    DeleteOwned,
    LabelNode,
    Merge,
    Observation,
    Plan,
    PodReport,
)
from controllers.workspace.tuning.runs import Ended

Json = dict[str, Any]

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-11-20T11:50:00Z"
SAMPLES = Path(__file__).parent.parent.parent / "config" / "samples"
TUNING: Json = {
    "preset": {"name": "phi-3-mini-4k-instruct"},
    "method": "qlora",
    "input": {"urls": ["https://example.com/data.parquet"]},
    "output": {"image": "example.com/tuned:1", "imagePushSecret": "push"},
}
TEMPLATE = "qlora-params-template"


def seed(number: int) -> Json:
    """A seed's tuning manifest with its placeholders filled in."""
    (path,) = SAMPLES.glob(f"{number}-*.yaml")
    text = path.read_text().replace("ACR_REPO_HERE", "myacr").replace("IMAGE_NAME_HERE", "phi-3-adapter")
    obj = yaml.safe_load(text.replace("ACR_REGISTRY_SECRET_HERE", "push"))
    return stored(obj)


def stored(obj: Json) -> Json:
    meta = {"namespace": "ns", "uid": "u1", "resourceVersion": "5", "generation": 2}
    meta |= {"finalizers": ["workspace.finalizer.kaito.sh"]}
    return {**obj, "metadata": {**meta, **obj["metadata"]}}


def workspace(tuning: Json | None = None, **resource: Any) -> Json:
    labels = {"matchLabels": {"apps": "phi-3"}}
    return stored(
        {
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "Workspace",
            "metadata": {"name": "w"},
            "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": labels, **resource},
            "tuning": {**TUNING, **(tuning or {})},
        }
    )


def seen(obj: Json, **changes: Any) -> Observation:
    return Observation(obj, Workspace.parse(obj), registry="example.com/kaito", **changes)


def node(obj: Json, name: str = "n1") -> Json:
    own = {"node.kubernetes.io/instance-type": obj["resource"].get("instanceType", ""), "accelerator": "nvidia"}
    return {
        "metadata": {"name": name, "labels": {**obj["resource"]["labelSelector"]["matchLabels"], **own}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": "1"},
        },
    }


def configured(obs: Observation, name: str = TEMPLATE, text: str | None = None) -> Observation:
    """With a ConfigMap that somebody made."""
    data = {"training_config.yaml": training_template(TuningMethod.QLORA) if text is None else text}
    configs = {name: {"metadata": {"name": name}, "data": data}}
    return replace(obs, children=replace(obs.children, configs=configs))


def settled(obs: Observation) -> Observation:
    """After the operator's own actions, as an API server holds them."""
    for _ in range(6):
        actions = [a for a in decide(obs, NOW).actions if not isinstance(a, CreateMachine | LabelNode)]
        if not actions:
            return obs
        for action in actions:
            obs = imagine(obs, action)
    raise AssertionError(f"it never comes to rest: {actions}")


def started(obj: Json | None = None, **changes: Any) -> Observation:
    """The Job is there."""
    obj = obj or workspace()
    return settled(configured(seen(obj, nodes=(node(obj),), **changes)))


def pod(obs: Observation, name: str = "w-1", **changes: Any) -> Json:
    """The Job's pod; running unless ``state`` says otherwise."""
    assert obs.children.job is not None
    container = {
        "name": "w",
        "state": changes.get("state", {"running": {"startedAt": STAMP}}),
        "lastState": changes.get("last", {}),
        "restartCount": changes.get("restarts", 0),
    }
    owner = {"kind": "Job", "uid": obs.children.job["metadata"]["uid"], "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "creationTimestamp": changes.get("created", STAMP),
            "ownerReferences": [owner],
            "labels": {"kaito.sh/workspace": "w"},
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": changes.get("phase", "Running"),
            "podIP": "10.0.0.7",
            "startTime": STAMP,
            "containerStatuses": [container] if changes.get("phase") != "Pending" else [],
        },
    }


def end(code: int, progress: TuneProgress | str = "", reason: str = "Error") -> Json:
    """A container's terminated state."""
    text = progress if isinstance(progress, str) else progress.model_dump_json(by_alias=True, exclude_none=True)
    return {"terminated": {"exitCode": code, "reason": reason, "message": text, "finishedAt": STAMP}}


def running(progress: TuneProgress | None, obs: Observation | None = None, **changes: Any) -> Observation:
    obs = obs or started()
    found = pod(obs, **changes)
    reports = {found["metadata"]["name"]: PodReport(tune=progress)} if progress else {}
    return replace(obs, pods=(found,), reports=reports)


def job_is(obs: Observation, condition: str, message: str = "") -> Observation:
    assert obs.children.job is not None
    told_ = [{"type": condition, "status": "True", "reason": "x", "message": message}]
    return replace(obs, children=replace(obs.children, job={**obs.children.job, "status": {"conditions": told_}}))


def remembering(obs: Observation, plan: Plan) -> Observation:
    """The same world with the plan's status stored."""
    obj = {**obs.obj, "status": {key: value for key, value in plan.status.items() if value is not None}}
    return replace(obs, obj=obj, workspace=Workspace.parse(obj))


def told(plan: Plan) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in plan.status["conditions"]}


def message(plan: Plan, kind: str = "WorkspaceReady") -> str:
    return str(next(item["message"] for item in plan.status["conditions"] if item["type"] == kind))


def made(plan: Plan, kind: str) -> Json:
    return next(a.body for a in plan.actions if isinstance(a, CreateOnce) and a.body["kind"] == kind)


def job_of(obs: Observation) -> Json:
    return made(decide(obs, NOW), "Job")


def args_of(obs: Observation) -> list[str]:
    return list(job_of(obs)["spec"]["template"]["spec"]["containers"][0]["args"])


# ------------------------------------------------------------------ the seed's manifests


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.acceptance("KS-A07")
def test_a_seed_manifest_becomes_a_node_and_then_a_job(number: int) -> None:
    """One Machine with the preset's disk for tuning; once it is a node, the template's copy and the Job."""
    obs = seen(seed(number))

    first = decide(obs, NOW)
    machines = [a.body for a in first.actions if isinstance(a, CreateMachine)]
    then = decide(replace(obs, nodes=(node(obs.obj),)), NOW)

    assert len(machines) == 1
    assert machines[0]["spec"]["resources"]["requests"] == {"storage": "50Gi"}
    assert not [a for a in first.actions if isinstance(a, CreateOnce) and a.body["kind"] == "Job"]
    job, copy = made(then, "Job"), made(then, "ConfigMap")
    assert (job["metadata"]["name"], copy["metadata"]["name"]) == (obs.name, TEMPLATE)
    assert copy["data"] == {"training_config.yaml": training_template(TuningMethod.QLORA)}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["kaito", "tune"]
    preset = obs.obj["tuning"]["preset"]["name"]
    assert container["image"].startswith(f"example.com/kaito/kaito-{preset}:")
    assert f"--data-url={obs.obj['tuning']['input']['urls'][0]}" in container["args"]
    assert "--output-image=myacr.azurecr.io/phi-3-adapter:0.0.1" in container["args"]
    assert "--method=qlora" in container["args"]
    assert "--model=/workspace/weights" in container["args"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@pytest.mark.parametrize("number", [2, 4])
def test_a_placeholder_costs_no_node(number: int) -> None:
    """The seed's manifest as it stands makes nothing, and the condition names what to replace."""
    (path,) = SAMPLES.glob(f"{number}-*.yaml")
    plan = decide(seen(stored(yaml.safe_load(path.read_text()))), NOW)

    assert plan.actions == ()
    assert told(plan)["JobStarted"] == told(plan)["WorkspaceReady"] == ("False", "PlaceholderInSpec")
    assert "ACR_REPO_HERE" in message(plan)
    assert plan.status["state"] == "Pending"


@pytest.mark.parametrize(
    ("changes", "resource", "words"),
    [
        ({}, {"count": 2}, "multinode"),
        ({"method": "dora"}, {}, "Method 'dora' is not supported"),
        ({"input": None}, {}, "Input must be specified"),
        ({"output": None}, {}, "Output must be specified"),
        ({"preset": None}, {}, "Preset must be specified"),
        ({"output": {"image": "example.com/tuned", "imagePushSecret": "push"}}, {}, "Invalid image format"),
        ({"output": {"image": "example.com/Tuned:1", "imagePushSecret": "push"}}, {}, "lower-case"),
        ({"output": {"image": "example.com/tuned:1"}}, {}, "imagePushSecret"),
        ({"input": {"urls": ["http://169.254.169.254/token"]}}, {}, "169.254.169.254"),
    ],
)
@pytest.mark.acceptance("KS-A08")
def test_what_admission_refuses_makes_nothing(changes: Json, resource: Json, words: str) -> None:
    """The reconciler judges again, for a webhook that was away: no node, no Job, and the rule's own words."""
    obj = workspace(changes, **resource)
    obj["tuning"] = {key: value for key, value in obj["tuning"].items() if value is not None}

    plan = decide(seen(obj), NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", "InvalidSpec")
    assert words in message(plan)


# ------------------------------------------------------------------ the Job


def test_the_pod_passes_the_restricted_profile() -> None:
    """No privilege, no host, no root, no token of the cluster; all capabilities are dropped."""
    obj = workspace()
    spec = job_of(configured(seen(obj, nodes=(node(obj),))))["spec"]["template"]["spec"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "projected"}


def test_a_container_is_restarted_where_its_checkpoints_are() -> None:
    """OnFailure, a bounded number of times, and a grace that is long enough to save one."""
    obj = workspace()
    spec = job_of(configured(seen(obj, nodes=(node(obj),))))["spec"]

    assert spec["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 120
    assert 1 <= spec["backoffLimit"] <= 10
    assert "ttlSecondsAfterFinished" not in spec


def _mounts(changes: Json) -> dict[str, Json]:
    """By path, the volume that is mounted there."""
    obj = workspace(changes)
    spec = job_of(configured(seen(obj, nodes=(node(obj),))))["spec"]["template"]["spec"]
    by_name = {volume["name"]: volume for volume in spec["volumes"]}
    return {mount["mountPath"]: by_name[mount["name"]] | mount for mount in spec["containers"][0]["volumeMounts"]}


def test_secrets_are_mounted_where_the_program_is_told() -> None:
    """The push secret and each pull secret, with the key that the program reads."""
    source = {"image": "example.com/data:1", "imagePullSecrets": ["one", "two"]}
    places = _mounts({"input": source})

    (push,) = places["/etc/kaito/push"]["projected"]["sources"]
    assert push["secret"] == {
        "name": "push",
        "items": [{"key": ".dockerconfigjson", "path": ".dockerconfigjson"}],
    }
    pulls = places["/etc/kaito/pull-secrets"]["projected"]["sources"]
    assert [item["secret"]["name"] for item in pulls] == ["one", "two"]
    obj = workspace({"input": source})
    args = args_of(configured(seen(obj, nodes=(node(obj),))))
    assert "--data-image=example.com/data:1" in args
    assert "--push-secret=/etc/kaito/push/.dockerconfigjson" in args
    assert {"--pull-secret=/etc/kaito/pull-secrets/one", "--pull-secret=/etc/kaito/pull-secrets/two"} <= {*args}


def test_volumes_of_the_user_are_data_and_results() -> None:
    """Data is read from the one; results, and so checkpoints, are on the other; nothing is pushed."""
    claim = {"persistentVolumeClaim": {"claimName": "c"}}
    changes = {"input": {"volumeSource": claim}, "output": {"volumeSource": claim}}
    places = _mounts(changes)
    obj = workspace(changes)
    args = args_of(configured(seen(obj, nodes=(node(obj),))))

    assert places["/mnt/data"]["persistentVolumeClaim"] == {"claimName": "c"}
    assert places["/mnt/data"]["readOnly"] is True
    assert places["/mnt/results"]["persistentVolumeClaim"] == {"claimName": "c"}
    assert "emptyDir" in places["/mnt/work"]
    assert {"--data-dir=/mnt/data", "--output-dir=/mnt/results"} <= {*args}
    assert not any("push" in word or "image" in word for word in args)


@pytest.mark.parametrize(("switches", "given"), [(Switches(), False), (Switches(private_urls=True), True)])
def test_private_addresses_are_the_operators_choice(switches: Switches, given: bool) -> None:
    """The program may fetch from private addresses only where the operator was told to admit them."""
    obj = workspace()
    obs = configured(seen(obj, nodes=(node(obj),), switches=switches))

    assert ("--allow-private-dataset-urls" in args_of(obs)) is given


def test_every_flag_is_one_that_the_program_has() -> None:
    """The Job's words are understood by `kaito tune`."""
    from typer.main import get_command

    from kaito.cli import app

    claim = {"persistentVolumeClaim": {"claimName": "c"}}
    words: list[str] = []
    for changes in (
        {},
        {"input": {"image": "example.com/d:1", "imagePullSecrets": ["s"]}},
        {"input": {"volumeSource": claim}, "output": {"volumeSource": claim}},
    ):
        obj = workspace(changes)
        words += args_of(configured(seen(obj, nodes=(node(obj),), switches=Switches(private_urls=True))))
    tune = get_command(app).commands["tune"]  # type: ignore[attr-defined]
    known = {option for item in tune.params for option in (*item.opts, *item.secondary_opts)}

    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


# ------------------------------------------------------------------ its settings


def test_a_copy_that_is_there_is_left_alone() -> None:
    """What users made of the template's copy is what the run reads; nobody writes over it."""
    obj = workspace()
    text = training_template(TuningMethod.QLORA).replace("r: 8", "r: 16")
    plan = decide(configured(seen(obj, nodes=(node(obj),)), text=text), NOW)

    assert [a.body["kind"] for a in plan.actions if isinstance(a, CreateOnce)] == ["Job"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training_config:\n  LoraConf: {}\n", "unknown section LoraConf"),
        ("training_config:\n  QuantizationConfig: {load_in_4bit: 'yes'}\n", "QuantizationConfig.load_in_4bit"),
        (
            "training_config: {QuantizationConfig: {load_in_4bit: true}, TrainingArguments: {output_dir: /x}}",
            "TrainingArguments.output_dir",
        ),
        ("training_config:\n  QuantizationConfig: {load_in_4bit: true, load_in_8bit: true}\n", "both be true"),
    ],
)
def test_settings_that_break_a_rule_are_named_by_their_key(text: str, words: str) -> None:
    """No Job is made, and the condition names the ConfigMap, the key and how to edit it."""
    obj = workspace({"config": "mine"})
    plan = decide(configured(seen(obj, nodes=(node(obj),)), "mine", text), NOW)

    assert not [a for a in plan.actions if isinstance(a, CreateOnce)]
    assert told(plan)["JobStarted"] == told(plan)["WorkspaceReady"] == ("False", "TuningConfigInvalid")
    assert words in message(plan)
    assert "kubectl edit configmap mine -n ns" in message(plan)


def test_settings_that_are_missing_are_waited_for() -> None:
    """The ConfigMap that the Workspace names is not there: no Job, and the condition says which key it needs."""
    obj = workspace({"config": "mine"})
    obs = seen(obj, nodes=(node(obj),))
    plan = decide(replace(obs, children=replace(obs.children, configs={"mine": None})), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "ConfigMissing")
    assert "training_config.yaml" in message(plan)
    assert not [a for a in plan.actions if isinstance(a, CreateOnce)]


@pytest.mark.parametrize("text", [None, "training_config:\n  Broken: {}\n"])
def test_a_run_goes_on_whatever_becomes_of_its_settings(text: str | None) -> None:
    """A ConfigMap that is deleted or broken while a run trains ends nothing."""
    obj = workspace({"config": "mine"})
    obs = settled(configured(seen(obj, nodes=(node(obj),)), "mine"))
    obs = replace(obs, pods=(pod(obs),))
    if text is None:
        obs = replace(obs, children=replace(obs.children, configs={"mine": None}))
    else:
        obs = configured(obs, "mine", text)

    plan = decide(obs, NOW)

    assert not [a for a in plan.actions if isinstance(a, DeleteOwned | Merge)]
    assert told(plan)["JobStarted"][0] == "True"


# ------------------------------------------------------------------ another wish is another run

EDITS: list[Json] = [
    {"input": {"urls": ["https://example.com/other.parquet"]}},
    {"output": {"image": "example.com/tuned:2", "imagePushSecret": "push"}},
    {"output": {"image": "example.com/tuned:1", "imagePushSecret": "other"}},
]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("ended", ["", "Complete", "Failed"])
def test_another_dataset_or_output_is_another_job(edit: Json, ended: str) -> None:
    """The old Job goes, running, complete or failed; its successor comes once its pods are gone."""
    obs = started()
    obs = replace(obs, pods=(pod(obs),))
    obs = job_is(obs, ended) if ended else obs
    old = obs.children.job
    assert old is not None
    obj = {**obs.obj, "tuning": {**obs.obj["tuning"], **edit}}
    edited = replace(obs, obj=obj, workspace=Workspace.parse(obj))

    first = decide(edited, NOW)
    gone = replace(edited, children=replace(edited.children, job=None))
    waiting = decide(gone, NOW)
    after = decide(replace(gone, pods=()), NOW)

    assert DeleteOwned(resource_of_jobs(), old["metadata"]["uid"]) in first.actions
    assert told(first)["WorkspaceReady"] == ("False", "TuningJobReplacing")
    assert not [a for a in waiting.actions if isinstance(a, CreateOnce)]
    assert made(after, "Job")["metadata"]["annotations"] != old["metadata"]["annotations"]


def resource_of_jobs() -> Any:
    from manager.resources import JOBS

    return JOBS


def test_edited_settings_run_again() -> None:
    """A Job that was made of other settings is replaced."""
    obs = started()
    edited = configured(obs, text=training_template(TuningMethod.QLORA).replace("r: 8", "r: 16"))

    assert [a for a in decide(edited, NOW).actions if isinstance(a, DeleteOwned)]


@pytest.mark.parametrize("change", [{"method": "QLoRA"}, {"config": TEMPLATE}])
def test_the_same_wish_in_other_words_runs_nothing(change: Json) -> None:
    """Another spelling of the method, or the template by its name, is no other wish."""
    obs = job_is(started(), "Complete")
    obj = {**obs.obj, "tuning": {**obs.obj["tuning"], **change}}

    plan = decide(replace(obs, obj=obj, workspace=Workspace.parse(obj)), NOW)

    assert not [a for a in plan.actions if isinstance(a, DeleteOwned) and a.resource == resource_of_jobs()]


def test_another_operator_runs_nothing_again() -> None:
    """What another release, another registry or other switches would render is no reason to train again."""
    obs = job_is(started(), "Complete")
    other = replace(
        obs,
        registry="elsewhere.example.com",
        switches=Switches(private_urls=True),
        children=replace(obs.children, operator="9"),
    )

    assert decide(other, NOW).actions == ()


def test_a_foreign_job_stays_and_is_told() -> None:
    """A Job of this name that is somebody else's is not touched."""
    obj = workspace()
    foreign = {"metadata": {"name": "w", "namespace": "ns", "uid": "j9"}, "spec": {}}
    obs = configured(seen(obj, nodes=(node(obj),)))
    plan = decide(replace(obs, children=replace(obs.children, job=foreign)), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "WorkloadConflict")
    assert not [a for a in plan.actions if isinstance(a, DeleteOwned | Merge)]
    assert plan.requeue_after


def test_turning_tuning_into_inference_leaves_the_run_alone() -> None:
    """The forbidden toggle is told, and the Job stays."""
    obs = started()
    obj = {key: value for key, value in obs.obj.items() if key != "tuning"}
    obj["inference"] = {"preset": {"name": "phi-3-mini-4k-instruct"}}
    plan = decide(replace(obs, obj=obj, workspace=Workspace.parse(obj)), NOW)

    assert plan.actions == ()
    assert told(plan)["WorkspaceReady"] == ("False", "InvalidToggle")


# ------------------------------------------------------------------ what is told


TRAINING = TuneProgress(stage=TuneStage.TRAINING, epoch=0.75, step=30, steps=120, loss=0.51234, seconds_left=90)


@pytest.mark.parametrize(
    ("progress", "reason", "words"),
    [
        (None, "TuningStarting", "has not told yet"),
        (
            TuneProgress(stage=TuneStage.FETCHING, bytes_done=5 << 20, bytes_total=10 << 20),
            "DatasetFetching",
            "about 50% of 10.0 MiB",
        ),
        (TuneProgress(stage=TuneStage.LOADING), "BaseModelLoading", "loads the base model"),
        (TRAINING, "Training", "step 30 of 120, epoch 0.75, loss 0.5123"),
        (TuneProgress(stage=TuneStage.SAVING), "AdapterSaving", "saves"),
        (TuneProgress(stage=TuneStage.PUSHING), "AdapterPushing", "pushes"),
    ],
)
def test_a_running_pod_tells_where_it_is(progress: TuneProgress | None, reason: str, words: str) -> None:
    """JobStarted is True, the state is Running, and the reason is the stage with its figures."""
    plan = decide(running(progress), NOW)

    assert told(plan)["JobStarted"] == ("True", "WorkspaceTuningJobStatusStarted")
    assert told(plan)["WorkspaceReady"] == told(plan)["WorkspaceSucceeded"] == ("False", reason)
    assert words in message(plan)
    assert plan.status["state"] == "Running"
    assert "InferenceReady" not in told(plan)
    assert [item["metadata"]["name"] for item in plan.ask] == ["w-1"]


def test_the_figures_are_in_the_status() -> None:
    """status.tuning has stage, epoch, step, steps, loss and the time at which it ends."""
    found = decide(running(TRAINING), NOW).status["tuning"]

    assert found == {
        "stage": "Training",
        "epoch": "0.75",
        "step": 30,
        "steps": 120,
        "loss": "0.5123",
        "eta": "2026-11-20T12:01:30Z",
        "observedAt": "2026-11-20T12:00:00Z",
    }


def test_figures_are_not_written_for_every_step() -> None:
    """Within 15 s of the last figures news of the same stage waits; another stage does not."""
    before = running(TRAINING)
    stored_ = remembering(before, decide(before, NOW))
    next_ = TRAINING.model_copy(update={"step": 31, "epoch": 0.8})

    def status_after(seconds: float, progress: TuneProgress) -> Json:
        reports = {"w-1": PodReport(tune=progress)}
        return decide(replace(stored_, reports=reports), NOW + timedelta(seconds=seconds)).status

    early, late = status_after(14, next_), status_after(15, next_)
    assert early["tuning"] == stored_.obj["status"]["tuning"]
    assert early["conditions"] == stored_.obj["status"]["conditions"]
    assert late["tuning"]["step"] == 31
    assert status_after(1, TuneProgress(stage=TuneStage.SAVING))["tuning"]["stage"] == "Saving"


def test_an_unchanged_run_writes_the_same_status() -> None:
    """With the same answer of the pod the status stays equal, however late it is decided."""
    for obs in (running(TRAINING), running(None), started(), succeeded(), failed_for_good()):
        first = decide(obs, NOW)
        again = decide(remembering(obs, first), NOW + timedelta(minutes=5))

        assert {**again.status, "tuning": again.status["tuning"]} == first.status


def test_a_run_is_asked_every_few_seconds_and_a_finished_one_never() -> None:
    """While the pod runs there is a timer of at most 15 s; afterwards there is none, and nobody is asked."""
    waits = decide(running(TRAINING), NOW).requeue_after

    assert waits is not None
    assert waits <= 15
    for obs in (succeeded(), failed_for_good()):
        plan = decide(settled(obs), NOW)
        assert (plan.requeue_after, plan.ask, plan.actions) == (None, (), ())


# ------------------------------------------------------------------ the end


DONE = TuneProgress(
    stage=TuneStage.SUCCEEDED,
    epoch=3,
    step=120,
    steps=120,
    loss=0.1,
    image="example.com/tuned:1",
    digest="sha256:1",
)


def succeeded() -> Observation:
    obs = started()
    return job_is(replace(obs, pods=(pod(obs, phase="Succeeded", state=end(0, DONE, "Completed")),)), "Complete")


def failed_for_good() -> Observation:
    obs = started()
    failure = TuneProgress(stage=TuneStage.FAILED, reason=TuneFailure.DATASET_INVALID, message="line 7 is no JSON")
    return replace(obs, pods=(pod(obs, last=end(1, failure), restarts=1, state={"waiting": {"reason": "x"}}),))


def test_a_complete_job_makes_a_ready_workspace() -> None:
    """Upstream's reasons, state Succeeded, the image with its digest, and the node that is still paid for."""
    plan = decide(succeeded(), NOW)

    assert told(plan)["WorkspaceReady"] == ("True", "workspaceReady")
    assert told(plan)["WorkspaceSucceeded"] == ("True", "workspaceSucceeded")
    assert told(plan)["JobStarted"] == ("True", "WorkspaceTuningJobStatusStarted")
    assert plan.status["state"] == "Succeeded"
    assert (plan.status["tuning"]["image"], plan.status["tuning"]["digest"]) == ("example.com/tuned:1", "sha256:1")
    assert "node is kept" in message(plan, "JobStarted")
    assert plan.status["workerNodes"] == ["n1"]


def test_the_result_outlives_its_pod() -> None:
    """What the pod said last is kept on the Job; with the pod gone the status is the same."""
    obs = succeeded()
    first = decide(obs, NOW)
    kept = settled(obs)

    assert [a for a in first.actions if isinstance(a, Annotate)]
    assert decide(replace(kept, pods=()), NOW).status["tuning"] == first.status["tuning"]


def test_no_node_is_made_for_a_run_that_is_over() -> None:
    """A node that goes after the run is missed by nobody: ready stays ready, failed stays failed."""
    for obs in (succeeded(), failed_for_good()):
        before = decide(obs, NOW)
        plan = decide(replace(settled(obs), nodes=()), NOW)

        assert not [a for a in plan.actions if isinstance(a, CreateMachine)]
        assert told(plan)["ResourceReady"] == ("False", "TuningNodeReleased")
        assert told(plan)["WorkspaceReady"] == told(before)["WorkspaceReady"]


@pytest.mark.parametrize("failure", list(TuneFailure))
def test_every_failure_is_told_in_its_own_words(failure: TuneFailure) -> None:
    """The program's reason, message and next step; without a next step of its own the reason's usual one."""
    obs = started()
    for step in ("do this", ""):
        said = TuneProgress(stage=TuneStage.FAILED, reason=failure, message="it broke", next_step=step)
        code = 2 if failure is TuneFailure.CONFIG_INVALID else 1
        plan = decide(replace(obs, pods=(pod(obs, last=end(code, said), restarts=1),)), NOW)

        assert told(plan)["JobStarted"] == told(plan)["WorkspaceReady"] == ("False", failure.value)
        assert message(plan).startswith("it broke. ")
        assert not step or "Do this" in message(plan)
        assert "kubectl delete job w -n ns" in message(plan)
        assert plan.status["state"] == "Failed"
    assert next_step_of(Reason(failure.value))


@pytest.mark.parametrize("code", [1, 2])
def test_a_final_failure_stops_the_job(code: int) -> None:
    """The Job's deadline is over at once, in the same write that keeps the last words; then it is left alone."""
    obs = started()
    said = TuneProgress(stage=TuneStage.FAILED, reason=TuneFailure.COLUMN_MISSING, message="no column text")
    obs = replace(obs, pods=(pod(obs, last=end(code, said), restarts=1),))

    (stop,) = decide(obs, NOW).actions
    assert isinstance(stop, Merge)
    assert stop.body["spec"] == {"activeDeadlineSeconds": 1}
    (note,) = stop.body["metadata"]["annotations"].values()
    after = job_is(settled(obs), "Failed", "Job was active longer than specified deadline")
    gone = decide(replace(after, pods=()), NOW)

    assert gone.actions == ()
    assert told(gone)["WorkspaceReady"] == ("False", "DatasetColumnMissing")
    assert Ended.from_text(note) == replace(
        Ended("w-1", "uid-w-1", STAMP, code, 1, "Error"), said=json.loads(note)["said"]
    )


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (
            75,
            TuneProgress(stage=TuneStage.FAILED, reason=TuneFailure.PUSH_FAILED, message="no answer"),
            "no answer",
        ),
        (76, TuneProgress(stage=TuneStage.TRAINING, message="stopped by a signal"), "stopped by a signal"),
        (137, "", "OOMKilled"),
        (139, "Segmentation fault\n", "Segmentation fault"),
    ],
)
def test_what_may_pass_is_tried_again(code: int, said: TuneProgress | str, words: str) -> None:
    """Kubernetes restarts it; the operator stops nothing and says so."""
    obs = started()
    last = end(code, said, "OOMKilled" if code == 137 else "Error")
    obs = replace(obs, pods=(pod(obs, last=last, restarts=2, state={"waiting": {"reason": "CrashLoopBackOff"}}),))

    plan = decide(obs, NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "TuningRetrying")
    assert words in message(plan)
    assert "restart 2" in message(plan)
    assert plan.status["state"] == "Running"
    assert not [a for a in plan.actions if isinstance(a, Merge | DeleteOwned)]


def test_a_pod_that_is_done_is_not_told_as_a_failure() -> None:
    """Between the pod's success and the Job's there is nothing to warn of."""
    obs = started()
    plan = decide(replace(obs, pods=(pod(obs, phase="Succeeded", state=end(0, DONE, "Completed")),)), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "AdapterPushing")
    assert told(plan)["JobStarted"][0] == "True"


def test_a_complete_job_waits_for_its_pods_last_words() -> None:
    """Jobs and pods come by two watches: the figures of the status are those of the end."""
    obs = job_is(running(TRAINING), "Complete")

    assert told(decide(obs, NOW))["WorkspaceReady"] == ("False", "Training")


def test_a_run_that_was_tried_too_often_tells_its_last_words() -> None:
    """The Job gave up and removed its pod: the reason is the program's, from what was kept."""
    obs = started()
    said = TuneProgress(stage=TuneStage.FAILED, reason=TuneFailure.PUSH_FAILED, message="the registry is away")
    obs = settled(replace(obs, pods=(pod(obs, last=end(75, said), restarts=6),)))
    plan = decide(job_is(replace(obs, pods=()), "Failed", "Job has reached the specified backoff limit"), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "OutputPushFailed")
    assert "the registry is away" in message(plan)


def test_a_failed_job_without_words_says_what_kubernetes_says() -> None:
    """Nobody saw the pod end."""
    plan = decide(job_is(started(), "Failed", "Job has reached the specified backoff limit"), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "WorkspaceTuningJobStatusFailed")
    assert "backoff limit" in message(plan)


def test_a_pod_that_follows_a_lost_one_is_told_anew() -> None:
    """The pod was deleted with its node: the new one's stage counts, and no old words."""
    obs = started()
    lost = TuneProgress(stage=TuneStage.TRAINING, message="stopped by a signal")
    obs = settled(replace(obs, pods=(pod(obs, phase="Failed", state=end(76, lost)),)))
    plan = decide(running(TRAINING, obs, name="w-2", created="2026-11-20T11:55:00Z"), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "Training")


def test_a_pod_that_waits_names_the_secret_that_it_needs() -> None:
    """Nothing in a pod's status tells of a Secret that is missing, so its name is in the next step."""
    plan = decide(running(None, phase="Pending"), NOW)

    assert told(plan)["WorkspaceReady"] == ("False", "PodPending")
    assert "kubectl get secret push -n ns" in message(plan)


# ------------------------------------------------------------------ nodes


def test_all_gpus_of_the_node_are_asked_for() -> None:
    """Tuning never spans nodes and shares none: count is 1, and the pod has every GPU of the type."""
    obj = workspace(instanceType="Standard_NC96ads_A100_v4")
    obs = configured(seen(obj, nodes=(node(obj),)))
    limits = job_of(obs)["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]

    assert limits == {"nvidia.com/gpu": "4"}


def test_without_a_type_the_cheapest_that_upstream_would_take_is_made() -> None:
    """The same choice that `kaito plan` names."""
    obj = workspace()
    del obj["resource"]["instanceType"]
    (machine,) = [a.body for a in decide(seen(obj), NOW).actions if isinstance(a, CreateMachine)]

    kinds = {item["key"]: item["values"] for item in machine["spec"]["requirements"]}
    assert kinds["node.kubernetes.io/instance-type"][0].startswith("Standard_N")


def test_a_model_that_cannot_be_tuned_there_makes_no_node() -> None:
    """Its own weights do not fit: nothing is provisioned, and the condition has the figures."""
    obj = workspace({"preset": {"name": "falcon-40b"}, "method": "lora"})
    plan = decide(seen(obj), NOW)

    assert not [a for a in plan.actions if isinstance(a, CreateMachine)]
    assert told(plan)["WorkspaceReady"] == ("False", "ModelDoesNotFit")


def test_the_finalizer_comes_first() -> None:
    """A Machine of a Workspace without one could be left behind."""
    obj = workspace()
    obj["metadata"]["finalizers"] = []

    assert isinstance(decide(seen(obj), NOW).actions[0], AddFinalizer)


def test_deleting_the_workspace_deletes_the_run() -> None:
    """The Job goes while its node is given back."""
    obs = started()
    machine = {"metadata": {"name": "m", "uid": "m1"}, "spec": {}, "status": {}}
    obj = {**obs.obj, "metadata": {**obs.obj["metadata"], "deletionTimestamp": STAMP}}
    plan = decide(replace(obs, obj=obj, machines=(machine,)), NOW)

    assert any(isinstance(a, DeleteOwned) and a.resource == resource_of_jobs() for a in plan.actions)
