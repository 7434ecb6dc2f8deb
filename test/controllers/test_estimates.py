"""When a Workspace will be ready: only what was seen or counted, and written only when it has moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.conditions import render_time
from api.progress import LoadProgress, LoadStage
from api.v1alpha1 import Workspace
from controllers.workspace.eta import eta, seconds_left
from controllers.workspace.history import History, Kind, Took
from controllers.workspace.model import Observation, PodReport, Stage, Usual
from controllers.workspace.nodeapi import NODECLAIM_API
from controllers.workspace.stages import completed, kind_of, present

Json = dict[str, Any]
NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
PAST = {
    Stage.MACHINE: Usual(100.0, 3),
    Stage.NODE: Usual(60.0, 3),
    Stage.IMAGE: Usual(20.0, 3),
    Stage.MODEL: Usual(40.0, 3),
}


def at(seconds: float) -> str:
    """So many seconds before now."""
    return render_time(NOW - timedelta(seconds=seconds))


def machine(created: float, **conditions: float) -> Json:
    return {
        "metadata": {"name": "m", "uid": "m", "creationTimestamp": at(created)},
        "spec": {"requirements": [{"key": "node.kubernetes.io/instance-type", "values": ["Standard_NC6s_v3"]}]},
        "status": {
            "conditions": [
                {"type": f"Machine{kind}", "status": "True", "lastTransitionTime": at(when)}
                for kind, when in conditions.items()
            ]
        },
    }


DONE = machine(300, Launched=200, Registered=150, Initialized=140)


def pod(scheduled: float, started: float | None = None, ready: float | None = None, restarts: int = 0) -> Json:
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(scheduled)}]
    if ready is not None:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": at(ready)})
    state = {"running": {"startedAt": at(started)}} if started is not None else {"waiting": {}}
    return {
        "metadata": {"name": "p", "uid": "p", "namespace": "ns"},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": conditions,
            "containerStatuses": [{"state": state, "restartCount": restarts}],
        },
    }


def seen(
    *, stored: Json | None = None, past: Any = PAST, progress: LoadProgress | None = None, **more: Any
) -> Any:
    obj = {
        "metadata": {"name": "w", "namespace": "ns", "uid": "u"},
        "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "x"}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        "status": {"eta": stored} if stored else {},
    }
    reports = {"p": PodReport(progress=progress)} if progress else {}
    return Observation(obj, Workspace.parse(obj), past=past, reports=reports, **more)


@pytest.mark.parametrize(
    ("more", "at", "seconds", "until"),
    [
        ({"machines": (machine(30),)}, "CreatingMachine", 190, "Ready"),
        ({"machines": (machine(130, Launched=20),)}, "JoiningNode", 100, "Ready"),
        ({"machines": (DONE,), "pods": (pod(5),)}, "PullingImage", 55, "Ready"),
        ({"machines": (DONE,), "pods": (pod(30, 10),)}, "LoadingModel", 30, "Ready"),
    ],
)
def test_what_is_left_is_the_rest_of_this_stage_and_the_stages_after_it(
    more: Json, at: str, seconds: int, until: str
) -> None:
    """The usual durations are added up from the stage that it is in."""
    found = eta(seen(**more), NOW)

    assert found is not None
    assert (found["stage"], found["seconds"], found["until"]) == (at, seconds, until)
    assert "seen 3 times" in found["basis"]


def test_without_history_there_is_no_number() -> None:
    """Nothing is made up: no estimate where no other of its kind was seen, and none once all is done."""
    assert eta(seen(machines=(machine(30),), past={}), NOW) is None
    assert eta(seen(machines=(DONE,), pods=(pod(60, 40, 5),)), NOW) is None
    assert eta(seen(), NOW) is None


def test_half_a_history_is_about_the_stage_alone() -> None:
    """Where a later stage was never seen, only the end of this one is promised."""
    found = eta(seen(machines=(machine(30),), past={Stage.MACHINE: Usual(100.0, 1)}), NOW)

    assert found is not None
    assert (found["seconds"], found["until"]) == (70, "StageEnd")


def test_overdue_is_told_without_a_number() -> None:
    """What takes longer than it usually does has no honest figure."""
    found = eta(seen(machines=(machine(500),)), NOW)

    assert found is not None
    assert "seconds" not in found
    assert "longer than" in found["basis"]


def test_bytes_that_are_counted_beat_history() -> None:
    """The server's own figure is taken, with its bytes; it is about the fetching alone."""
    progress = LoadProgress(stage=LoadStage.PULLING, bytes_done=2 * 2**30, bytes_total=8 * 2**30, seconds_left=90)
    found = eta(seen(machines=(DONE,), pods=(pod(30, 10),), progress=progress, past={}), NOW)

    assert found is not None
    assert (found["seconds"], found["until"], found["bytesDone"]) == (90, "StageEnd", 2 * 2**30)


@pytest.mark.parametrize(
    ("later", "kept"),
    [(LoadProgress(stage=LoadStage.PULLING, bytes_done=d * 2**28, bytes_total=2**33, seconds_left=s), k)
     for d, s, k in [(9, 80, True), (9, 75, True), (9, 60, False), (16, 80, False)]],
)  # fmt: skip
def test_an_estimate_stands_until_it_is_wrong(later: LoadProgress, kept: bool) -> None:
    """Ten seconds later the stored estimate is kept when it still fits, and replaced when it is off by a fifth."""
    first = LoadProgress(stage=LoadStage.PULLING, bytes_done=2**31, bytes_total=2**33, seconds_left=90)
    stored = eta(seen(machines=(DONE,), pods=(pod(30, 10),), progress=first), NOW)
    assert stored is not None

    then = NOW + timedelta(seconds=10)
    found = eta(seen(machines=(DONE,), pods=(pod(30, 10),), progress=later, stored=stored), then)

    assert (found == stored) is kept
    assert seconds_left(stored, then) == 80


def test_durations_are_read_off_live_objects() -> None:
    """A Machine and a pod that are done show how long each stage took; a restarted pod shows nothing."""
    found = {item.stage: item.seconds for item in completed(seen(machines=(DONE,), pods=(pod(120, 100, 40),)))}

    assert found == {Stage.MACHINE: 100, Stage.NODE: 60, Stage.IMAGE: 20, Stage.MODEL: 60}
    assert list(completed(seen(pods=(pod(120, 100, 40, restarts=1),)))) == []


def test_a_node_claim_has_the_same_stages() -> None:
    """Karpenter's own kind names its conditions otherwise, and takes as long."""
    claim = machine(300, Launched=200, Registered=150, Initialized=140)
    for condition in claim["status"]["conditions"]:
        condition["type"] = condition["type"].removeprefix("Machine")
    obs = seen(machines=(claim,), node_api=NODECLAIM_API)

    assert {item.stage: item.seconds for item in completed(obs)} == {Stage.MACHINE: 100, Stage.NODE: 60}
    assert present(obs) is None


def test_the_slowest_decides_the_stage() -> None:
    """With two Machines the Workspace is where the later one is."""
    place = present(seen(machines=(DONE, machine(30))))

    assert place is not None
    assert place.stage is Stage.MACHINE


def test_history_keeps_the_median_of_each_kind() -> None:
    """One object counts once, an outlier does not decide, and a machine's time is the same for every model."""
    history = History()
    small, large = Kind("sku", "small", 10), Kind("sku", "large", 99)
    for number, seconds in enumerate((10.0, 12.0, 500.0)):
        history.record(
            small, [Took(Stage.MACHINE, f"u{number}", seconds), Took(Stage.MODEL, f"u{number}", seconds)]
        )
        history.record(small, [Took(Stage.MACHINE, f"u{number}", 9999.0)])

    assert history.past(small) == {Stage.MACHINE: Usual(12.0, 3), Stage.MODEL: Usual(12.0, 3)}
    assert history.past(large) == {Stage.MACHINE: Usual(12.0, 3)}
    assert history.past(Kind("other", "small", 10)) == {}


def test_history_is_bounded() -> None:
    """The oldest samples and the kinds that were not seen for longest make room."""
    history = History()
    for number in range(3000):
        history.record(Kind(f"sku{number % 1500}", "m", 1), [Took(Stage.MODEL, f"u{number}", 1.0)])
    for number in range(50):
        history.record(Kind("one", "m", 1), [Took(Stage.MODEL, f"u{number}", float(number))])

    assert history.past(Kind("one", "m", 1))[Stage.MODEL] == Usual(39.5, 20)
    assert "keys=1000" in repr(history)


def test_a_workspace_is_alike_to_those_of_its_type_and_weights() -> None:
    """The kind is the instance type, the preset and the size of its weights."""
    kind = kind_of(seen())

    assert (kind.instance_type, kind.model) == ("Standard_NC6s_v3", "phi-3-mini-4k-instruct")
    assert kind.weights_bytes
