"""Every cause that a Workspace can show, as tables of observations, and which of several is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.adapters import AdapterList, AdapterState, ObservedAdapter, ObservedAdapters, WantedAdapter
from api.conditions import INFERENCE_READY, RESOURCE_READY, render_time
from api.progress import LoadProgress, LoadStage
from api.reasons import Reason
from api.v1alpha1 import Workspace
from controllers.workspace import findings, pace
from controllers.workspace.adapters_status import adapters_finding, observed_adapters, wanted_adapters
from controllers.workspace.children import Children
from controllers.workspace.findings import Finding, Turn
from controllers.workspace.lastwords import last_line
from controllers.workspace.model import Observation, PodReport, Why
from controllers.workspace.pods import diagnose
from controllers.workspace.rollout import unfinished

Json = dict[str, Any]
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
READY = {"type": "Ready", "status": "True"}


def pod(name: str = "w-1", *, node: str = "n1", revision: str = "", made: str = "", **status: Any) -> Json:
    meta: Json = {"name": name, "uid": name, "namespace": "ns", "labels": {}}
    if revision:
        meta["labels"] = {"pod-template-hash": revision}
    if made:
        meta["creationTimestamp"] = made
    if "deleted" in status:
        meta["deletionTimestamp"] = status.pop("deleted")
    return {"metadata": meta, "spec": {"nodeName": node}, "status": {"phase": "Pending", **status}}


def container(state: Json, **more: Any) -> Json:
    return {"containerStatuses": [{"name": "w", "image": "example.com/x:1", "state": state, **more}]}


RUNNING = container({"running": {"startedAt": "2026-11-20T11:59:00Z"}})


def node(name: str = "n1", **conditions: tuple[str, str]) -> Json:
    listed = {"Ready": ("True", ""), **conditions}
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [
                {"type": kind, "status": status, "message": message} for kind, (status, message) in listed.items()
            ]
        },
    }


def told(*pods: Json, nodes: tuple[Json, ...] = (), **reports: PodReport) -> tuple[str, str]:
    by_name = {item["metadata"]["name"]: item for item in nodes}
    cause = diagnose(pods, by_name, {key.replace("_", "-"): value for key, value in reports.items()}, NOW)
    return ("", "") if cause is None else (str(cause.reason), cause.message)


# ------------------------------------------------------------------ one pod


TRACEBACK = 'Traceback\n  File "x.py"\ntorch.OutOfMemoryError: CUDA out of memory\n'
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes: taint",
}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ({"conditions": [UNSCHEDULABLE]}, "PodUnschedulable", "0/3 nodes: taint"),
        (container({"waiting": {"reason": "ErrImagePull", "message": "denied"}}), "ImagePullFailed", "denied"),
        (container({"waiting": {"reason": "InvalidImageName"}}), "ImagePullFailed", "InvalidImageName"),
        (container({"waiting": {"reason": "CreateContainerError", "message": "m"}}), "ContainerStartFailed", "m"),
        (container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "OutOfMemory", "memory"),
        (
            container({"terminated": {"exitCode": 1, "message": TRACEBACK}}, restartCount=4),
            "CrashLoop",
            "exit code 1 and was restarted 4 times: torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            container(
                {"waiting": {"reason": "CrashLoopBackOff"}},
                lastState={"terminated": {"exitCode": 2, "message": "x"}},
            ),
            "CrashLoop",
            "exit code 2",
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "PodEvicted", "low on disk"),
        (RUNNING, "ContainerStarting", "not ready yet"),
        ({}, "PodPending", "not started"),
        ({"deleted": "2026-11-20T11:58:00Z"}, "PodStuckTerminating", "should have ended at 2026-11-20T11:58:00Z"),
        ({"deleted": "2026-11-20T12:00:20Z"}, "PodTerminating", "is ending"),
    ],
)
def test_a_pod_says_what_is_wrong(status: Json, reason: str, words: str) -> None:
    """Each state of a pod has its reason, with the words of whoever knows: scheduler, kubelet, or the process."""
    found, text = told(pod(**status))

    assert found == reason
    assert words in text


def test_a_pod_that_serves_has_nothing_to_tell() -> None:
    """That it crashed once is forgotten when it is ready."""
    again = container({"running": {}}, ready=True, lastState={"terminated": {"exitCode": 1}})

    assert told(pod(conditions=[READY], **again)) == ("", "")


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        (node(Ready=("Unknown", "kubelet stopped")), "NodeNotReady", "kubelet stopped"),
        (node(DiskPressure=("True", "85% used")), "NodeDiskPressure", "85% used"),
        (node(MemoryPressure=("True", "1Gi left")), "NodeMemoryPressure", "1Gi left"),
        (node(DiskPressure=("False", "")), "ContainerStarting", ""),
    ],
)
def test_the_node_is_named_when_it_is_the_trouble(seen: Json, reason: str, words: str) -> None:
    """A pod that does not get ready on a node in trouble is the node's matter."""
    found, text = told(pod(**RUNNING), nodes=(seen,))

    assert found == reason
    assert words in text


@pytest.mark.parametrize(
    ("progress", "reason", "words"),
    [
        (
            LoadProgress(stage=LoadStage.PULLING, bytes_done=3 * 2**30, bytes_total=8 * 2**30),
            "ModelPulling",
            "about 30% of 8Gi",
        ),
        (LoadProgress(stage=LoadStage.PULLING), "ModelPulling", "size is not known"),
        (LoadProgress(stage=LoadStage.LOADING, message="shard 2 of 4"), "ModelLoading", "shard 2 of 4"),
        (LoadProgress(stage=LoadStage.FAILED, message="401 from the hub"), "EngineFailed", "401 from the hub"),
        (LoadProgress(stage=LoadStage.READY), "ContainerStarting", ""),
    ],
)
def test_the_engine_has_its_own_word(progress: LoadProgress, reason: str, words: str) -> None:
    """What a server says of its loading replaces that it is not ready yet."""
    found, text = told(pod(**RUNNING), w_1=PodReport(progress=progress))

    assert found == reason
    assert words in text


def test_the_newest_revision_speaks() -> None:
    """The trouble of a pod that a rollout removes is not told; that of its successor is."""
    old = pod("a", revision="1", made="2026-11-20T11:00:00Z", **container({"waiting": {"reason": "ErrImagePull"}}))
    new = pod("b", revision="2", made="2026-11-20T11:50:00Z", **RUNNING)

    assert told(old, new)[0] == "ContainerStarting"


def test_a_pod_that_does_not_go_is_told_beside_living_ones() -> None:
    """One that ends in time is not news; one that does not is more urgent than one that starts."""
    assert told(pod("a", deleted="2026-11-20T11:50:00Z"), pod("b", **RUNNING))[0] == "PodStuckTerminating"
    assert told(pod("a", deleted="2026-11-20T12:00:10Z"), pod("b", **RUNNING))[0] == "ContainerStarting"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n\n", "b"),
        ("", ""),
        (None, ""),
        ("ValueError: too long\nat x\nRuntimeError: Engine failed. See root cause above.", "ValueError: too long"),
        (
            "RuntimeError: Engine failed. See root cause above.",
            "RuntimeError: Engine failed. See root cause above.",
        ),
        (
            "(Worker pid=7) ERROR 11-26 12:36:48 [executor.py:953] torch.DistNetworkError: address in use\n"
            "(EngineCore) ERROR Exception: WorkerProc initialization failed. See stack trace for root cause.\n"
            "error: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
            "multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked\n"
            "  warnings.warn('resource_tracker: There appear to be %d '",
            "torch.DistNetworkError: address in use",
        ),
        ("x" * 400, "x" * 299 + "…"),
        (
            "╭─ Error ──────────────╮\n│ No such option: --mode │\n╰────────────────────────╯\n",
            "No such option: --mode",
        ),
    ],
)
def test_the_last_line_is_the_one_that_explains(text: str | None, line: str) -> None:
    """An engine that points further up is followed there."""
    assert last_line(text) == line


# ------------------------------------------------------------------ which one is told


def finding(reason: str, kind: str = INFERENCE_READY, status: str = "False") -> Finding:
    return Finding(kind, status, Why(reason, ""))


@pytest.mark.parametrize(
    ("reasons", "told_first"),
    [
        (("MachineCreating", "CrashLoop"), "CrashLoop"),
        (("MachineCreating", "PodUnschedulable"), "MachineCreating"),
        (("QuotaExceeded", "CrashLoop"), "QuotaExceeded"),
        (("CapacityUnavailable", "ImagePullFailed"), "ImagePullFailed"),
        (("NodeNotReady", "WorkloadPending"), "NodeNotReady"),
        (("SomethingThatNobodyKnows", "WaitingForResource"), "SomethingThatNobodyKnows"),
        (("InvalidSpec", "QuotaExceeded"), "InvalidSpec"),
    ],
)
def test_the_most_urgent_cause_blocks(reasons: tuple[str, str], told_first: str) -> None:
    """What a person must act on is told before what takes time, and causes before what follows from them."""
    resource, inference = reasons
    found = findings.blocking([finding(resource, RESOURCE_READY), finding(inference)])

    assert found is not None
    assert found.why.reason == told_first
    reverse = findings.blocking([finding(inference), finding(resource, RESOURCE_READY)])
    assert reverse is not None
    assert reverse.why.reason == told_first


def test_what_is_no_part_of_being_ready_never_blocks() -> None:
    """Adapters that are missing leave the endpoint ready; what is True blocks nothing."""
    assert findings.blocking([finding("AdapterFailed", "AdaptersReady"), finding("x", status="True")]) is None


def test_every_reason_has_a_turn() -> None:
    """Whose move it is can be told for each reason of ours and for those that nobody has classified."""
    turns = {str(reason): findings.turn_of(str(reason)) for reason in Reason}

    assert turns["CrashLoop"] is Turn.YOU
    assert turns["ModelPulling"] is Turn.ENGINE
    assert turns["MachineNotRegistered"] is Turn.CLOUD
    assert findings.turn_of("BrandNewRefusal") is Turn.YOU


# ------------------------------------------------------------------ the rollout


def workload(kind: str = "Deployment", generation: int = 1, wanted: int = 1, **status: Any) -> Json:
    return {
        "kind": kind,
        "metadata": {"generation": generation},
        "spec": {"replicas": wanted},
        "status": {"observedGeneration": 1, **status},
    }


FULL = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}


@pytest.mark.parametrize(
    ("stored", "pods", "reason"),
    [
        (workload(**FULL), (), None),
        (workload(**FULL), (pod(conditions=[READY]),), None),
        (workload(**FULL), (pod(conditions=[{"type": "Ready", "status": "False"}]),), "WorkloadPending"),
        (workload(generation=2, **FULL), (), "WorkloadPending"),
        (workload(**{**FULL, "updatedReplicas": 0}), (), "RollingOut"),
        (workload(**{**FULL, "replicas": 2}), (), "RollingOut"),
        (workload(wanted=0), (), None),
        (workload("StatefulSet", **{**FULL, "currentRevision": "1", "updateRevision": "2"}), (), None),
        (
            workload(
                "StatefulSet",
                replicas=1,
                readyReplicas=1,
                currentReplicas=1,
                currentRevision="2",
                updateRevision="2",
            ),
            (),
            None,
        ),
        (
            workload(
                "StatefulSet",
                replicas=1,
                readyReplicas=1,
                updatedReplicas=0,
                currentRevision="1",
                updateRevision="2",
            ),
            (),
            "RollingOut",
        ),
    ],
)
def test_ready_means_all_pods_of_the_newest_revision(
    stored: Json, pods: tuple[Json, ...], reason: str | None
) -> None:
    """Controllers' figures count only at the current generation, and pods that say otherwise are believed."""
    found = unfinished(stored, pods)

    assert (str(found.reason) if found else None) == reason


# ------------------------------------------------------------------ adapters, pod by pod


WANTED = AdapterList(revision="r2", adapters=(WantedAdapter(name="a", image="example.com/a:2"),))


def observed(*pods: Json, stored: list[Json] | None = None, wanted: AdapterList = WANTED, **reports: Any) -> Json:
    labels = {"labelSelector": {"matchLabels": {"apps": "x"}}}
    obj = {
        "metadata": {"name": "w", "namespace": "ns", "uid": "u"},
        "resource": labels,
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        "status": {"adapters": stored or []},
    }
    data = {"metadata": {"name": "w-adapters"}, "data": {"adapters.json": wanted.to_json()}}
    obs = Observation(
        obj,
        Workspace.parse(obj),
        pods=pods,
        children=Children(adapters=data),
        reports=reports,
    )
    asked = wanted_adapters(obs)
    entries = observed_adapters(obs, asked)
    found = adapters_finding(entries, asked)
    return {
        "entries": entries,
        "reason": found.why.reason if found else None,
        "status": found.status if found else None,
        "message": found.why.message if found else "",
        "asking": [item["metadata"]["name"] for item in pace.asking(obs)],
        "again": pace.look_again(obs, NOW),
    }


def has(state: AdapterState, revision: str = "r2", image: str = "example.com/a:2", message: str = "") -> PodReport:
    item = ObservedAdapter(name="a", state=state, image=image, message=message)
    return PodReport(adapters=ObservedAdapters(revision=revision, adapters=(item,)))


SERVING = pod("p", conditions=[READY])


@pytest.mark.parametrize(
    ("report", "reason", "status", "state"),
    [
        (has(AdapterState.LOADED), "AdaptersLoaded", "True", "Loaded"),
        (has(AdapterState.PULLING), "AdaptersLoading", "False", "Loading"),
        (has(AdapterState.FAILED, message="rank 64"), "AdapterFailed", "False", "Failed"),
        (has(AdapterState.LOADED, revision="r1"), "AdaptersOutdated", "False", "Outdated"),
        (
            has(AdapterState.FAILED, revision="r1", image="example.com/a:1"),
            "AdaptersOutdated",
            "False",
            "Outdated",
        ),
        (PodReport(adapters=ObservedAdapters(revision="r2")), "AdaptersOutdated", "False", "Outdated"),
        (PodReport(failed="no answer within 2 s"), "AdaptersUnknown", "Unknown", "Unknown"),
        (PodReport(), "AdaptersUnknown", "Unknown", "Unknown"),
    ],
    ids=["loaded", "pulling", "failed", "older list", "failure of before", "lost", "silent", "other server"],
)
def test_a_pod_is_believed_about_its_adapters(report: PodReport, reason: str, status: str, state: str) -> None:
    """Only a pod that reports the wanted revision with all of it loaded counts; silence is unknown."""
    found = observed(SERVING, p=report)

    assert (found["reason"], found["status"]) == (reason, status)
    assert [item["state"] for item in found["entries"]] == [state]
    assert found["asking"] == ([] if state == "Loaded" else ["p"])


def test_each_pod_has_its_own_adapters() -> None:
    """One pod that lacks an adapter is named, though the other has it."""
    found = observed(SERVING, pod("q", conditions=[READY]), p=has(AdapterState.LOADED), q=has(AdapterState.FAILED))

    assert [(item["pod"], item["state"]) for item in found["entries"]] == [("p", "Loaded"), ("q", "Failed")]
    assert "Pod q cannot load adapter a" in found["message"]


def test_what_was_stored_stands_until_the_pod_is_asked() -> None:
    """An operator that has just started does not call unknown what was told before; it asks."""
    entry = {"pod": "p", "state": "Loaded", "revision": "r2", "adapters": [{"name": "a", "state": "Loaded"}]}
    found = observed(SERVING, stored=[entry])

    assert found["entries"] == [entry]
    assert found["asking"] == ["p"]
    assert found["again"] == 5.0


def test_an_empty_list_that_was_reached_is_not_told_any_more() -> None:
    """After the last adapter has gone there is neither entry nor condition, and nobody is asked."""
    empty = AdapterList(revision="r3")
    gone = PodReport(adapters=ObservedAdapters(revision="r3"))
    found = observed(SERVING, stored=[{"pod": "p", "state": "Loaded"}], wanted=empty, p=gone)

    assert found["entries"] == []
    assert found["reason"] is None
    assert observed(SERVING, wanted=empty)["asking"] == []


def test_questions_become_rarer() -> None:
    """A pod that loads is asked every 5 seconds at first and every 15 in the end; one that serves is not asked."""
    waits = []
    for minutes in (0, 2, 60):
        start = render_time(NOW - timedelta(minutes=minutes))
        waits.append(observed(pod("p", podIP="10.0.0.1", startTime=start, **RUNNING))["again"])

    assert waits == [5.0, 9.0, 15.0]
    assert observed(SERVING, p=has(AdapterState.LOADED))["again"] is None


def test_the_wire_is_the_servers() -> None:
    """What a server writes as JSON is what is read here."""
    text = has(AdapterState.LOADED).adapters
    assert text is not None
    assert ObservedAdapters.model_validate(json.loads(text.model_dump_json(by_alias=True))) == text
