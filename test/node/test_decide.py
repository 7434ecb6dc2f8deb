"""What the agent does next for a pod, and what its status says: tables in virtual time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kaito.local.node.backoff import BackOff
from kaito.local.node.decide import Plan, decide
from kaito.local.node.probes import ProbeState, Verdict
from kaito.local.node.runtime import Exit
from kaito.local.node.status import pod_status
from kaito.local.node.views import ContainerView, Ending, PodView, Role, Run, Trouble

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
STARTED = "2027-01-15T07:59:00.5Z"
ENDED = "2027-01-15T08:00:00Z"


def exit_(code: int) -> Exit:
    return Exit(code, 0, "Completed" if code == 0 else "Error", "", STARTED, ENDED)


def box(name: str = "c", role: Role = Role.MAIN, **fields: Any) -> ContainerView:
    spec = {"name": name, "image": "busybox", **fields.pop("spec", {})}
    return ContainerView(spec=spec, role=role, **fields)


RUNNING = Run(0, STARTED, None)


def ended(code: int, number: int = 0) -> Run:
    return Run(number, STARTED, exit_(code))


def view(*containers: ContainerView, policy: str = "Always", **fields: Any) -> PodView:
    pod = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", **fields.pop("meta", {})},
        "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 7, **fields.pop("spec", {})},
        "status": fields.pop("status", {}),
    }
    return PodView(pod=pod, containers=containers, started_at=NOW - 60, **fields)


LOOP = BackOff(delay=20, raised=NOW - 30)
UNHEALTHY = ProbeState(liveness=Verdict(passed=False))


@pytest.mark.parametrize(
    ("case", "start", "stop", "wake"),
    [
        (view(box()), ["c"], [], None),
        (view(box(run=RUNNING)), [], [], None),
        (view(box(run=ended(1))), ["c"], [], None),
        (view(box(run=ended(1), backoff=LOOP)), [], [], NOW + 20),
        (view(box(run=ended(0)), policy="OnFailure"), [], [], None),
        (view(box(run=ended(1)), policy="OnFailure"), ["c"], [], None),
        (view(box(run=ended(1)), policy="Never"), [], [], None),
        (view(box(trouble=Trouble("ErrImagePull", "", NOW + 10))), [], [], NOW + 10),
        # init containers go one by one, before the others
        (view(box("i", Role.INIT), box("j", Role.INIT), box()), ["i"], [], None),
        (view(box("i", Role.INIT, run=ended(0)), box("j", Role.INIT, run=RUNNING), box()), [], [], None),
        (view(box("i", Role.INIT, run=ended(0)), box()), ["c"], [], None),
        (view(box("i", Role.INIT, run=ended(1)), box()), ["i"], [], None),
        (view(box("i", Role.INIT, run=ended(1)), box(), policy="Never"), [], [], None),
        (view(box("i", Role.INIT), box(run=ended(1))), ["c"], [], None),
        # sidecars: the next one waits until they have started; they end last
        (view(box("s", Role.SIDECAR), box()), ["s"], [], None),
        (view(box("s", Role.SIDECAR, run=RUNNING, spec={"startupProbe": {}}), box()), ["c"], [], None),
        (view(box("s", Role.SIDECAR, run=RUNNING, spec={"startupProbe": {"exec": {}}}), box()), [], [], None),
        (view(box("s", Role.SIDECAR, run=ended(0)), box(run=RUNNING)), ["s"], [], None),
        (view(box("s", Role.SIDECAR, run=RUNNING), box(run=ended(0)), policy="Never"), [], ["s"], None),
        (view(box("s", Role.SIDECAR, run=ended(0)), box(run=ended(0)), policy="Never"), [], [], None),
        # probes
        (view(box(run=RUNNING, probes=UNHEALTHY)), [], ["c"], None),
        (view(box(run=RUNNING, probes=ProbeState(startup=Verdict(passed=False)))), [], ["c"], None),
        (view(box(run=RUNNING, probes=ProbeState(readiness=Verdict(passed=False)))), [], [], None),
        # the end
        (view(box(run=RUNNING), deleting=True), [], ["c"], None),
        (view(box("s", Role.SIDECAR, run=RUNNING), box(run=RUNNING), deleting=True), [], ["c"], None),
        (view(box("s", Role.SIDECAR, run=RUNNING), box(run=ended(0)), deleting=True), [], ["s"], None),
        (view(box(), deleting=True), [], [], None),
        (view(box(run=RUNNING), ending=Ending("Failed")), [], ["c"], None),
        (view(box(run=RUNNING), spec={"activeDeadlineSeconds": 90}), [], [], NOW + 30),
        (view(box(run=RUNNING), spec={"activeDeadlineSeconds": 60}), [], ["c"], None),
    ],
)
def test_the_next_step(case: PodView, start: list[str], stop: list[str], wake: float | None) -> None:
    """Each situation of a pod leads to the kubelet's next step."""
    plan = decide(case, NOW)

    assert (list(plan.start), [s.name for s in plan.stop], plan.wake_at) == (start, stop, wake)


def test_grace_periods_are_those_of_the_api() -> None:
    """Deletion has its own grace period, a probe may have one, the pod's is the default."""
    probe = {"livenessProbe": {"terminationGracePeriodSeconds": 1}}
    deleting = view(box(run=RUNNING), deleting=True, meta={"deletionGracePeriodSeconds": 3})
    unhealthy = view(box(run=RUNNING, probes=UNHEALTHY, spec=probe))

    def graces(case: PodView) -> list[float]:
        return [s.grace for s in decide(case, NOW).stop]

    assert graces(deleting) == [3]
    assert graces(unhealthy) == [1]
    assert graces(view(box(run=RUNNING), ending=Ending("Failed"))) == [7]


def test_a_deadline_ends_the_pod_for_good() -> None:
    """Past activeDeadlineSeconds the pod is Failed with the reason that Jobs look for."""
    case = view(box(run=RUNNING), spec={"activeDeadlineSeconds": 1})

    plan = decide(case, NOW)
    after = replace(case, ending=plan.ending, containers=(box(run=ended(137)),))

    assert decide(after, NOW) == Plan()
    status = pod_status(after, NOW)
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(
    ("case", "phase"),
    [
        (view(box()), "Pending"),
        (view(box("i", Role.INIT, run=RUNNING), box()), "Pending"),
        (view(box(run=RUNNING)), "Running"),
        (view(box(run=RUNNING), box("d", trouble=Trouble("ErrImagePull", "", 0))), "Pending"),
        (view(box(run=ended(1))), "Running"),
        (view(box(run=ended(1)), policy="OnFailure"), "Running"),
        (view(box(run=ended(0)), policy="OnFailure"), "Succeeded"),
        (view(box(run=ended(1)), policy="Never"), "Failed"),
        (view(box(run=ended(1)), box("d", run=RUNNING), policy="Never"), "Running"),
        (view(box(run=ended(1)), box("d", run=ended(0)), policy="Never"), "Failed"),
        (view(box("i", Role.INIT, run=ended(1)), box(), policy="Never"), "Failed"),
        (view(box("s", Role.SIDECAR, run=RUNNING), box(run=ended(0)), policy="Never"), "Succeeded"),
        (view(box(run=RUNNING), deleting=True), "Running"),
        (view(box(run=ended(143)), deleting=True), "Failed"),
        (view(box(run=ended(0)), deleting=True), "Succeeded"),
        (view(box(run=RUNNING), status={"phase": "Failed"}), "Failed"),
    ],
)
def test_phases(case: PodView, phase: str) -> None:
    """The phase follows from the containers, and a terminal one stays."""
    assert pod_status(case, NOW)["phase"] == phase


def state_of(case: PodView) -> tuple[str, str]:
    state = pod_status(case, NOW)["containerStatuses"][0]["state"]
    (kind, detail), *_ = state.items()
    return kind, detail.get("reason", "")


@pytest.mark.parametrize(
    ("case", "state"),
    [
        (view(box()), ("waiting", "ContainerCreating")),
        (view(box("i", Role.INIT, run=RUNNING), box()), ("waiting", "PodInitializing")),
        (view(box(trouble=Trouble("ErrImagePull", "m", 0))), ("waiting", "ErrImagePull")),
        (view(box(run=RUNNING)), ("running", "")),
        (view(box(run=ended(1), backoff=LOOP)), ("waiting", "CrashLoopBackOff")),
        (view(box(run=ended(1), backoff=LOOP), policy="Never"), ("terminated", "Error")),
        (view(box(run=ended(0)), policy="Never"), ("terminated", "Completed")),
        (view(box(run=ended(1), backoff=LOOP), deleting=True), ("terminated", "Error")),
    ],
)
def test_container_states(case: PodView, state: tuple[str, str]) -> None:
    """Waiting, running and terminated carry the reasons that kubectl shows."""
    assert state_of(case) == state


def test_a_crash_loop_shows_the_last_run_and_the_delay() -> None:
    """The waiting message names the delay, lastState the exit, restartCount the runs so far."""
    case = view(box(run=ended(3, number=4), backoff=LOOP))

    status = pod_status(case, NOW)["containerStatuses"][0]

    assert status["state"]["waiting"]["message"] == "back-off 20s restarting failed container=c pod=p_ns(u)"
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["startedAt"] == "2027-01-15T07:59:00Z"
    assert status["restartCount"] == 4


def conditions(case: PodView) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in pod_status(case, NOW)["conditions"]}


READY = ("True", "")


@pytest.mark.parametrize(
    ("case", "initialized", "ready"),
    [
        (view(box(run=RUNNING)), READY, READY),
        (view(box(run=RUNNING, spec={"readinessProbe": {"exec": {}}})), READY, ("False", "ContainersNotReady")),
        (view(box(run=RUNNING, spec={"startupProbe": {"exec": {}}})), READY, ("False", "ContainersNotReady")),
        (
            view(box("i", Role.INIT), box()),
            ("False", "ContainersNotInitialized"),
            ("False", "ContainersNotReady"),
        ),
        (view(box(run=ended(0)), policy="Never"), ("True", "PodCompleted"), ("False", "PodCompleted")),
        (view(box(run=ended(1)), policy="Never"), READY, ("False", "PodFailed")),
        (
            view(box(run=RUNNING), spec={"readinessGates": [{"conditionType": "g"}]}),
            READY,
            ("False", "ReadinessGatesNotReady"),
        ),
        (
            view(
                box(run=RUNNING),
                spec={"readinessGates": [{"conditionType": "g"}]},
                status={"conditions": [{"type": "g", "status": "True"}]},
            ),
            READY,
            READY,
        ),
    ],
)
def test_conditions(case: PodView, initialized: tuple[str, str], ready: tuple[str, str]) -> None:
    """Initialized and Ready follow from containers, probes and readiness gates."""
    found = conditions(case)

    assert (found["Initialized"], found["Ready"]) == (initialized, ready)


def test_transition_times_change_with_the_status_only() -> None:
    """A condition that stays as it is keeps its time; one that turns gets the present."""
    old = {"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z"}

    same = pod_status(view(box(run=RUNNING), status={"conditions": [old]}), NOW)
    turned = pod_status(view(box(run=ended(1)), status={"conditions": [old]}), NOW)

    times = [
        next(c for c in s["conditions"] if c["type"] == "Ready")["lastTransitionTime"] for s in (same, turned)
    ]
    assert times == ["2027-01-01T00:00:00Z", "2027-01-15T08:00:00Z"]
