"""How far a Workspace has come is read from what the API server says, and from nothing else."""

from __future__ import annotations

import pytest

from kaito.local.progress import STEPS, TUNING_STEPS, Observation, observe_steps, observe_tuning
from manager.types import Obj


def _workspace(message: str = "", **conditions: str) -> Obj:
    listed = [{"type": kind, "status": status, "message": message} for kind, status in conditions.items()]
    return {"metadata": {"name": "w"}, "status": {"conditions": listed}}


MACHINE: Obj = {"metadata": {"name": "m"}}
PENDING: Obj = {"status": {"containerStatuses": [{"state": {"waiting": {}}}]}}
RUNNING: Obj = {"status": {"containerStatuses": [{"state": {"running": {}}}]}}


@pytest.mark.parametrize(
    ("workspace", "machines", "pods", "done"),
    [
        ({"metadata": {"name": "w"}}, [], [], 0),
        (_workspace(WorkspaceReady="False"), [], [], 0),
        (_workspace(WorkspaceReady="False"), [MACHINE], [], 1),
        (_workspace(WorkspaceReady="False", ResourceReady="True"), [MACHINE], [], 2),
        (_workspace(WorkspaceReady="False", ResourceReady="True"), [MACHINE], [PENDING], 2),
        (_workspace(WorkspaceReady="False", ResourceReady="True"), [MACHINE], [PENDING, RUNNING], 3),
        (_workspace(WorkspaceReady="True", ResourceReady="True"), [MACHINE], [RUNNING], len(STEPS)),
        # Nodes that were there before: no Machine, and the step counts as done.
        (_workspace(WorkspaceReady="False", ResourceReady="True"), [], [], 2),
    ],
)
def test_the_steps_that_are_done(workspace: Obj, machines: list[Obj], pods: list[Obj], done: int) -> None:
    """Machine made, node joined, pod started, ready: each step is done when the world shows it."""
    assert observe_steps(workspace, machines, pods).done == done


@pytest.mark.parametrize(
    ("stage", "state", "done", "failed"),
    [
        (None, "Pending", 3, False),
        ("Fetching", "Running", 3, False),
        ("Training", "Running", 4, False),
        ("Pushing", "Running", 5, False),
        ("Failed", "Failed", 3, True),
    ],
)
def test_the_steps_of_a_tuning_run(stage: str | None, state: str, done: int, failed: bool) -> None:
    """The run's own stage says which steps are done; one that failed for good is not waited for."""
    workspace = _workspace(WorkspaceReady="False", ResourceReady="True")
    workspace["status"] |= {"state": state, "tuning": {"stage": stage} if stage else None}

    found = observe_tuning(workspace, [MACHINE], [RUNNING])

    assert (found.done, found.failed) == (done, failed)
    assert observe_tuning(_workspace(WorkspaceReady="True"), [], []).done == len(TUNING_STEPS)


def test_the_detail_is_the_operators_own_word() -> None:
    """While something is waited for, the detail is WorkspaceReady's message; at the end it is empty."""
    waiting = _workspace("quota is 0, 6 are needed", WorkspaceReady="False")

    assert observe_steps(waiting, [MACHINE], []) == Observation(1, "quota is 0, 6 are needed")
    assert observe_steps(_workspace("ready", WorkspaceReady="True"), [], []).detail == ""
