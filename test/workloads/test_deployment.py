from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.local.workloads.conditions import condition
from kaito.local.workloads.deployment.decide import Plan, decide
from kaito.local.workloads.deployment.revisions import DESIRED, HISTORY, MAXIMUM, REVISION
from kaito.local.workloads.pods import annotations_of, labels_of, name_of
from kaito.local.workloads.times import rfc3339

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def deployment(image: str = "v1", replicas: int = 3, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1, "annotations": {"note": "n"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": ROLLING,
            "template": {
                "metadata": {"labels": {"app": "web"}, "creationTimestamp": None},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


class World:
    """Deployment and ReplicaSets, moved on by carrying out plans; pods of a good image are available at once."""

    def __init__(self, dep: Obj, bad_images: tuple[str, ...] = ()) -> None:
        self.dep, self.rss, self.bad, self.notes, self.now = dep, [], bad_images, [], NOW
        self.rss: list[Obj] = []
        self.notes: list[str] = []

    def step(self, *, pods_follow: bool = True) -> Plan:
        plan = decide(self.dep, self.rss, self.now)
        if plan.create:
            made = copy.deepcopy(plan.create)
            made["metadata"] |= {
                "uid": name_of(made),
                "generation": 1,
                "creationTimestamp": rfc3339(self.now + timedelta(seconds=len(self.rss))),
            }
            self.rss.append(made)
        for change in plan.changes:
            rs = next(r for r in self.rss if name_of(r) == name_of(change.replicaset))
            rs["metadata"].setdefault("annotations", {}).update(
                change.patch.get("metadata", {}).get("annotations", {})
            )
            rs["spec"] |= change.patch.get("spec", {})
            self.notes += [change.note] if change.note else []
        for gone in plan.delete:
            self.rss = [r for r in self.rss if name_of(r) != name_of(gone)]
        self.dep["metadata"]["annotations"] |= plan.annotations
        self.dep["status"] = plan.status
        if pods_follow:
            self.pods_follow()
        return plan

    def pods_follow(self) -> None:
        for rs in self.rss:
            size = rs["spec"]["replicas"]
            good = rs["spec"]["template"]["spec"]["containers"][0]["image"] not in self.bad
            serving = size if good else 0
            rs["status"] = {
                "replicas": size,
                "readyReplicas": serving,
                "availableReplicas": serving,
                "observedGeneration": 1,
            }

    def settle(self, limit: int = 60) -> None:
        for _ in range(limit):
            before = copy.deepcopy((self.dep, self.rss))
            self.step()
            if before == (self.dep, self.rss):
                return
        raise AssertionError("it does not come to rest")

    def use(self, image: str) -> None:
        self.dep["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.dep["metadata"]["generation"] += 1

    def rs(self, image: str) -> Obj:
        return next(r for r in self.rss if r["spec"]["template"]["spec"]["containers"][0]["image"] == image)

    def sizes(self) -> dict[str, int]:
        return {r["spec"]["template"]["spec"]["containers"][0]["image"]: r["spec"]["replicas"] for r in self.rss}

    def progressing(self) -> tuple[str, str]:
        found = condition(self.dep["status"]["conditions"], "Progressing")
        assert found is not None
        return found["status"], found["reason"]


def test_the_first_replicaset_carries_hash_revision_and_sizes() -> None:
    """A new Deployment gets a ReplicaSet whose labels, selector and annotations are those of the real one."""
    world = World(deployment())
    plan = world.step()

    made = world.rs("v1")
    code = labels_of(made)["pod-template-hash"]
    assert name_of(made) == f"web-{code}"
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": code}
    assert made["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == code
    assert annotations_of(made) == {"note": "n", REVISION: "1", DESIRED: "3", MAXIMUM: "4"}
    assert made["metadata"]["ownerReferences"][0]["controller"] is True
    assert plan.annotations == {REVISION: "1"}
    assert world.progressing() == ("True", "NewReplicaSetCreated")


def test_a_complete_rollout_says_so_and_rests() -> None:
    """When every replica is available the conditions are those that `kubectl rollout status` waits for."""
    world = World(deployment())
    world.settle()

    status = world.dep["status"]
    assert {k: status[k] for k in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")} == {
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    assert "unavailableReplicas" not in status
    assert world.progressing() == ("True", "NewReplicaSetAvailable")
    assert condition(status["conditions"], "Available")["reason"] == "MinimumReplicasAvailable"  # type: ignore[index]
    assert world.step().look_again is None


def test_a_rolling_update_keeps_within_surge_and_availability() -> None:
    """At no step are there more pods than replicas plus surge, or fewer available than promised."""
    world = World(deployment(replicas=3))
    world.settle()
    world.use("v2")
    for _ in range(30):
        world.step()
        assert sum(world.sizes().values()) <= 4
        assert sum(r["status"]["availableReplicas"] for r in world.rss) >= 3
    assert world.sizes() == {"v1": 0, "v2": 3}
    assert world.notes[0].startswith("Scaled down replica set web-")
    assert world.dep["metadata"]["annotations"][REVISION] == "2"


def test_a_bad_image_stops_the_rollout_and_times_out() -> None:
    """A rollout whose pods never serve keeps the old pods, and reports the deadline once it has passed."""
    world = World(deployment(progressDeadlineSeconds=30), bad_images=("bad",))
    world.settle()
    world.use("bad")
    world.settle()
    assert world.sizes() == {"v1": 3, "bad": 1}
    wait = world.step().look_again
    assert wait is not None
    assert 0 < wait <= 31

    world.now += timedelta(seconds=32)
    world.step()
    assert world.progressing() == ("False", "ProgressDeadlineExceeded")
    assert world.step().look_again is None


def test_going_back_finds_the_old_replicaset_and_numbers_it_anew() -> None:
    """A rollback reuses the ReplicaSet of the old template, gives it the next revision and keeps its history."""
    world = World(deployment())
    world.settle()
    world.use("v2")
    world.settle()
    world.use("v1")
    world.settle()

    assert world.sizes() == {"v1": 3, "v2": 0}
    assert annotations_of(world.rs("v1"))[REVISION] == "3"
    assert annotations_of(world.rs("v1"))[HISTORY] == "1"
    assert world.dep["metadata"]["annotations"][REVISION] == "3"


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    """Recreate scales the old to zero, waits for its pods to end, and only then creates the new."""
    world = World(deployment(strategy={"type": "Recreate"}))
    world.settle()
    world.use("v2")
    world.step()
    assert world.sizes() == {"v1": 0}
    assert decide(world.dep, world.rss, NOW, old_pods_running=True).create is None

    world.settle()
    assert world.sizes() == {"v1": 0, "v2": 3}


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    """While paused, a new template waits and a new size does not; on resume the rollout goes on."""
    world = World(deployment())
    world.settle()
    world.dep["spec"]["paused"] = True
    world.use("v2")
    world.dep["spec"]["replicas"] = 5
    world.settle()
    assert world.sizes() == {"v1": 5}
    assert world.progressing() == ("Unknown", "DeploymentPaused")

    world.dep["spec"]["paused"] = False
    world.settle()
    assert world.sizes() == {"v1": 0, "v2": 5}
    assert world.progressing() == ("True", "NewReplicaSetAvailable")


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    """A size that changes during a stuck rollout is spread over old and new in proportion."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    world = World(deployment(replicas=10, strategy=strategy), bad_images=("bad",))
    world.settle()
    world.use("bad")
    world.settle()
    assert world.sizes() == {"v1": 8, "bad": 5}

    world.dep["spec"]["replicas"] = 15
    world.step()
    assert world.sizes() == {"v1": 11, "bad": 7}
    world.step()
    assert all(annotations_of(r)[DESIRED] == "15" for r in world.rss)


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_scaling_a_settled_deployment_scales_its_one_replicaset(replicas: int) -> None:
    """With one active ReplicaSet it simply takes the new size, and the event says from and to."""
    world = World(deployment(replicas=3))
    world.settle()
    world.dep["spec"]["replicas"] = replicas
    world.settle()

    assert world.sizes() == {"v1": replicas}
    assert world.notes[-1].endswith(f"from 3 to {replicas}")


def test_old_replicasets_beyond_the_limit_are_removed() -> None:
    """revisionHistoryLimit keeps that many old ReplicaSets, the newest."""
    world = World(deployment(replicas=1, revisionHistoryLimit=2))
    for image in ("v1", "v2", "v3", "v4", "v5"):
        world.use(image)
        world.settle()

    assert world.sizes() == {"v3": 0, "v4": 0, "v5": 1}


def test_a_deployment_that_is_being_deleted_only_reports() -> None:
    """Nothing is created or scaled once deletion was asked for."""
    dep = deployment()
    dep["metadata"]["deletionTimestamp"] = rfc3339(NOW)

    plan = decide(dep, [], NOW)
    assert (plan.create, plan.changes, plan.delete) == (None, [], [])
