from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.workloads import history
from kaito.local.workloads.pods import labels_of, name_of
from kaito.local.workloads.statefulset.decide import Plan, Revisions, decide
from kaito.local.workloads.statefulset.identity import new_claims, new_pod
from kaito.local.workloads.times import rfc3339

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
TEMPLATE: Obj = {
    "metadata": {"labels": {"app": "db"}},
    "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "data", "emptyDir": {}}]},
}
ONE = Revisions("r1", "r1", {"r1": TEMPLATE})
TWO = Revisions("r1", "r2", {"r1": TEMPLATE, "r2": TEMPLATE})


def statefulset(replicas: int = 3, status: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "d", "uid": "sts", "generation": 2},
        "spec": {
            "replicas": replicas,
            "serviceName": "db-head",
            "selector": {"matchLabels": {"app": "db"}},
            "template": TEMPLATE,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
        "status": status or {},
    }


def pod(
    ordinal: int, *, ready: bool = True, revision: str = "r1", phase: str = "Running", leaving: bool = False
) -> Obj:
    made = new_pod(statefulset(), ordinal, TEMPLATE, revision)
    made["metadata"]["uid"] = name_of(made)
    if leaving:
        made["metadata"]["deletionTimestamp"] = rfc3339(NOW)
    since = rfc3339(NOW - timedelta(seconds=100))
    made["status"] = {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": since}],
    }
    return made


def summary(plan: Plan) -> tuple[list[int], list[str], list[str]]:
    return list(plan.create), [name_of(x) for x in plan.delete], [name_of(x) for x in plan.recreate]


@pytest.mark.parametrize(
    ("owner", "pods", "revisions", "expected"),
    [
        (statefulset(), [], ONE, ([0], [], [])),
        (statefulset(podManagementPolicy="Parallel"), [], ONE, ([0, 1, 2], [], [])),
        (statefulset(), [pod(0, ready=False)], ONE, ([], [], [])),
        (statefulset(), [pod(0)], ONE, ([1], [], [])),
        (statefulset(1), [pod(0), pod(1), pod(2)], ONE, ([], ["db-2"], [])),
        (statefulset(1), [pod(0), pod(1), pod(2, leaving=True)], ONE, ([], [], [])),
        (
            statefulset(1, podManagementPolicy="Parallel"),
            [pod(0), pod(1), pod(2)],
            ONE,
            ([], ["db-2", "db-1"], []),
        ),
        (statefulset(1), [pod(0, ready=False), pod(1)], ONE, ([], [], [])),
        (statefulset(2), [pod(0, phase="Failed", ready=False), pod(1)], ONE, ([], [], ["db-0"])),
        (statefulset(2), [pod(0), pod(1)], TWO, ([], ["db-1"], [])),
        (statefulset(2), [pod(0), pod(1, revision="r2", ready=False)], TWO, ([], [], [])),
        (statefulset(2), [pod(0), pod(1, revision="r2")], TWO, ([], ["db-0"], [])),
        (statefulset(2, updateStrategy={"type": "OnDelete"}), [pod(0), pod(1)], TWO, ([], [], [])),
        (
            statefulset(2, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}),
            [pod(0), pod(1, revision="r2")],
            TWO,
            ([], [], []),
        ),
        (statefulset(2, ordinals={"start": 5}), [], ONE, ([5], [], [])),
    ],
)
def test_order_is_kept(
    owner: Obj, pods: list[Obj], revisions: Revisions, expected: tuple[list[int], list[str], list[str]]
) -> None:
    """Up in order and only over ready ones, down from the top, updates one by one from the top."""
    assert summary(decide(owner, pods, revisions, NOW)) == expected


def test_a_lost_pod_below_the_partition_comes_back_as_it_was() -> None:
    """During a partitioned update only pods from the partition on get the new template."""
    owner = statefulset(2, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    plan = decide(owner, [pod(1, revision="r2")], TWO, NOW)

    assert labels_of(plan.create[0])["controller-revision-hash"] == "r1"


def test_the_status_moves_to_the_update_revision_when_all_follow() -> None:
    """currentRevision changes only once every pod is of the update revision and ready."""
    half = decide(statefulset(2), [pod(0), pod(1, revision="r2")], TWO, NOW).status
    assert (half["currentRevision"], half["currentReplicas"], half["updatedReplicas"]) == ("r1", 1, 1)

    done = decide(statefulset(2), [pod(0, revision="r2"), pod(1, revision="r2")], TWO, NOW).status
    assert (done["currentRevision"], done["currentReplicas"], done["readyReplicas"]) == ("r2", 2, 2)


def test_pods_have_an_identity() -> None:
    """Name, host name, subdomain, labels and claims of a pod follow from its number."""
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    owner = statefulset(volumeClaimTemplates=[claim])
    made = new_pod(owner, 1, TEMPLATE, "r1")

    assert name_of(made) == "db-1"
    assert (made["spec"]["hostname"], made["spec"]["subdomain"]) == ("db-1", "db-head")
    assert labels_of(made)["apps.kubernetes.io/pod-index"] == "1"
    assert made["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}]
    (pvc,) = new_claims(owner, 1)
    assert name_of(pvc) == "data-db-1"
    assert labels_of(pvc) == {"app": "db"}
    assert "ownerReferences" not in pvc["metadata"]


def test_history_numbers_new_templates_and_finds_old_ones_again() -> None:
    """A template seen before gets its revision back with a new number; idle ones beyond the limit go."""
    owner = statefulset(revisionHistoryLimit=1)
    first = history.plan(owner, [], ())
    assert (first.create, history.number_of(first.update)) == (True, 1)

    def other(image: str) -> Obj:
        return {**TEMPLATE, "spec": {"containers": [{"name": "c", "image": image}]}}

    owner["spec"]["template"] = other("two")
    second = history.plan(owner, [first.update], ())
    owner["spec"]["template"] = other("three")
    third = history.plan(owner, [first.update, second.update], {name_of(second.update)})
    assert history.number_of(third.update) == 3
    assert third.delete == []

    owner["spec"]["template"] = TEMPLATE
    back = history.plan(owner, [first.update, second.update, third.update], ())
    assert (back.renumber, name_of(back.update), history.number_of(back.update)) == (
        True,
        name_of(first.update),
        4,
    )
    assert [name_of(r) for r in back.delete] == [name_of(second.update)]
