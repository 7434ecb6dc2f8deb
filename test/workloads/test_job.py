from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.workloads.conditions import condition
from kaito.local.workloads.job.decide import decide
from kaito.local.workloads.job.indexes import INDEX, give_index, spell
from kaito.local.workloads.pods import name_of
from kaito.local.workloads.times import rfc3339

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def job(status: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "d", "uid": "job", "generation": 1},
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 2, **spec},
        "status": status or {},
    }


def pod(name: str, phase: str, *, ended: float = 5, **annotations: str) -> Obj:
    finished = {"finishedAt": rfc3339(NOW - timedelta(seconds=ended))}
    return {
        "metadata": {"name": name, "uid": name, "annotations": annotations},
        "spec": {},
        "status": {"phase": phase, "containerStatuses": [{"state": {"terminated": finished}, "restartCount": 0}]},
    }


@pytest.mark.parametrize(
    ("owner", "pods", "create", "delete"),
    [
        (job(), [], 1, []),
        (job(completions=3, parallelism=2), [], 2, []),
        (job(completions=3, parallelism=2), [pod("a", "Succeeded"), pod("b", "Succeeded")], 1, []),
        (job(completions=None, parallelism=2), [pod("a", "Succeeded"), pod("b", "Running")], 0, []),
        (job(), [pod("a", "Failed", ended=5)], 0, []),
        (job(), [pod("a", "Failed", ended=11)], 1, []),
        (job(), [pod("a", "Failed", ended=90), pod("b", "Failed", ended=15)], 0, []),
        (job(), [pod("a", "Failed", ended=90), pod("b", "Failed", ended=21)], 1, []),
        (job(parallelism=1, completions=5), [pod("a", "Running"), pod("b", "Running")], 0, ["a"]),
        (job(suspend=True), [pod("a", "Running")], 0, ["a"]),
    ],
)
def test_it_keeps_as_many_pods_as_it_needs(owner: Obj, pods: list[Obj], create: int, delete: list[str]) -> None:
    """Parallelism, what is left to complete, and the doubling pause after failures decide the count."""
    plan = decide(owner, pods, NOW)

    assert (len(plan.create), [name_of(p) for p in plan.delete]) == (create, delete)


@pytest.mark.parametrize(
    ("owner", "pods", "kind", "reason"),
    [
        (job(), [pod("a", "Succeeded")], "Complete", "CompletionsReached"),
        (job(completions=None), [pod("a", "Succeeded")], "Complete", "CompletionsReached"),
        (job(backoffLimit=0), [pod("a", "Failed")], "Failed", "BackoffLimitExceeded"),
        (
            job({"startTime": rfc3339(NOW - timedelta(seconds=61))}, activeDeadlineSeconds=60),
            [pod("a", "Running")],
            "Failed",
            "DeadlineExceeded",
        ),
    ],
)
def test_it_ends_with_a_condition_that_says_why(owner: Obj, pods: list[Obj], kind: str, reason: str) -> None:
    """The verdict is a condition, and whatever still runs is removed."""
    plan = decide(owner, pods, NOW)

    found = condition(plan.status["conditions"], kind)
    assert found is not None
    assert (found["status"], found["reason"]) == ("True", reason)
    assert len(plan.delete) == sum(p["status"]["phase"] == "Running" for p in pods)
    assert ("completionTime" in plan.status) is (kind == "Complete")


def test_restarts_in_place_count_against_the_limit() -> None:
    """With restartPolicy OnFailure the containers' restarts are the failures."""
    running = pod("a", "Running")
    running["status"]["containerStatuses"][0]["restartCount"] = 2
    plan = decide(job(template={"spec": {"restartPolicy": "OnFailure"}}), [running], NOW)

    assert plan.verdict is not None
    assert plan.verdict.reason == "BackoffLimitExceeded"


def test_a_failure_is_retried_when_its_pause_is_over() -> None:
    """Until then the reconcile asks to be called again at that moment."""
    assert decide(job(), [pod("a", "Failed", ended=4)], NOW).look_again == pytest.approx(6)


@pytest.mark.parametrize(("ttl", "past", "gone"), [(100, 99, False), (100, 100, True), (0, 0, True)])
def test_a_finished_job_lives_for_its_ttl(ttl: int, past: int, gone: bool) -> None:
    """ttlSecondsAfterFinished counts from the final condition."""
    ended = {"type": "Complete", "status": "True", "lastTransitionTime": rfc3339(NOW - timedelta(seconds=past))}
    plan = decide(job({"conditions": [ended]}, ttlSecondsAfterFinished=ttl), [], NOW)

    assert plan.remove_job is gone
    assert gone or plan.look_again == ttl - past


def test_indexed_jobs_do_each_index_once() -> None:
    """Missing indexes are created lowest first, and each pod knows its own."""
    owner = job(completionMode="Indexed", completions=4, parallelism=2)
    done = pod("a", "Succeeded", **{INDEX: "0"})
    running = pod("b", "Running", **{INDEX: "2"})

    plan = decide(owner, [done, running], NOW)
    assert plan.create == [1]
    assert plan.status["completedIndexes"] == "0"
    made = give_index({"metadata": {}, "spec": {"containers": [{"name": "c"}]}}, owner, 1)
    assert made["spec"]["hostname"] == "train-1"
    assert made["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


def test_indexes_are_spelled_as_ranges() -> None:
    """Three in a row become a range, two do not."""
    assert spell([7, 1, 3, 4, 5, 9, 10]) == "1,3-5,7,9,10"
