"""Which changes of a Workspace's conditions are events, and of which kind."""

from __future__ import annotations

import pytest

from api.conditions import Condition
from controllers.workspace.events import transitions


def one(type_: str, status: str, reason: str, message: str = "m") -> Condition:
    return Condition(type_, status, reason, message)


READY = one("WorkspaceReady", "True", "workspaceReady")


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ([], [one("WorkspaceReady", "False", "MachineCreating")], [("Normal", "MachineCreating")]),
        ([], [one("WorkspaceReady", "False", "QuotaExceeded")], [("Warning", "QuotaExceeded")]),
        ([], [one("WorkspaceReady", "False", "NobodyKnowsThis")], [("Warning", "NobodyKnowsThis")]),
        ([READY], [one("WorkspaceReady", "False", "WorkloadPending")], [("Warning", "WorkloadPending")]),
        ([one("WorkspaceReady", "False", "MachineCreating")], [READY], [("Normal", "workspaceReady")]),
        ([READY], [READY], []),
        (
            [one("WorkspaceReady", "False", "ModelPulling", "about 10%")],
            [one("WorkspaceReady", "False", "ModelPulling", "about 20%")],
            [],
        ),
        ([], [one("ResourceReady", "False", "QuotaExceeded")], []),
        ([], [one("ResourceReady", "True", "ok")], [("Normal", "ok")]),
        ([], [one("MachineReady", "True", "ok")], []),
        ([], [one("AdaptersReady", "False", "AdapterFailed")], [("Warning", "AdapterFailed")]),
        ([], [one("AdaptersReady", "False", "AdaptersLoading")], [("Normal", "AdaptersLoading")]),
        ([], [one("AdaptersReady", "Unknown", "AdaptersUnknown")], []),
        ([], [one("AdaptersReady", "True", "AdaptersLoaded")], [("Normal", "AdaptersLoaded")]),
        ([], [one("WorkspaceDeleting", "True", "workspaceDeleted")], [("Normal", "workspaceDeleted")]),
    ],
)
def test_a_transition_is_one_event(
    before: list[Condition], after: list[Condition], events: list[tuple[str, str]]
) -> None:
    """A change of what blocks, a milestone, and a failed adapter are told once; what counts on is not."""
    assert [(item.type, item.reason) for item in transitions(before, after)] == events
