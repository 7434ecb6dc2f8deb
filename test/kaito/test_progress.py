"""How far a Workspace has come is read from what the API server says, and from nothing else."""

from __future__ import annotations

import pytest

from kaito.local.progress import STEPS, Observation, observe_steps
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


def test_the_detail_is_the_operators_own_word() -> None:
    """While something is waited for, the detail is WorkspaceReady's message; at the end it is empty."""
    waiting = _workspace("quota is 0, 6 are needed", WorkspaceReady="False")

    assert observe_steps(waiting, [MACHINE], []) == Observation(1, "quota is 0, 6 are needed")
    assert observe_steps(_workspace("ready", WorkspaceReady="True"), [], []).detail == ""
