"""Who may be upgraded next: the gate through which Workspaces pass one at a time."""

from __future__ import annotations

from typing import Any

import pytest

from api import keys
from controllers.workspace.model import Observation
from controllers.workspace.upgrade import UpgradeGate

Json = dict[str, Any]


def workload(name: str, *, ready: bool = True, upgraded: str = "") -> Json:
    owner = {"apiVersion": "kaito.sh/v1alpha1", "kind": "Workspace", "name": name, "uid": name, "controller": True}
    notes = {keys.UPGRADED_TO: upgraded} if upgraded else {}
    meta = {"name": name, "namespace": "ns", "uid": f"d-{name}", "generation": 1}
    figures = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": int(ready), "observedGeneration": 1}
    return {
        "kind": "Deployment",
        "metadata": {**meta, "annotations": notes, "ownerReferences": [owner]},
        "spec": {"replicas": 1},
        "status": figures,
    }


def seen(name: str, **state: Any) -> Observation:
    return Observation(
        {"metadata": {"name": name, "namespace": "ns", "uid": name}}, deployment=workload(name, **state)
    )


def test_a_shut_gate_lets_nobody_through() -> None:
    """Without the flag nothing is upgraded and nobody is woken."""
    gate = UpgradeGate(False, "2", lambda: ())

    assert not gate.enter("ns/a")
    gate.settle("ns/a", seen("a"), outdated=False)
    assert gate.due() == ""


def test_the_next_goes_when_the_first_is_ready() -> None:
    """Others wait in the order in which they came; the one whose turn it is is named once."""
    gate = UpgradeGate(True, "2", lambda: ())
    assert gate.enter("ns/a")
    assert not gate.enter("ns/b")
    assert not gate.enter("ns/c")
    assert gate.enter("ns/a")

    gate.settle("ns/a", seen("a"), outdated=True)  # a cache that lags
    gate.settle("ns/a", seen("a", ready=False), outdated=False)
    assert gate.due() == ""
    gate.settle("ns/a", seen("a"), outdated=False)

    assert (gate.due(), gate.due()) == ("ns/b", "")
    assert gate.enter("ns/b")
    assert not gate.enter("ns/c")


def test_a_workspace_that_goes_holds_nobody_up() -> None:
    """A deletion in the middle of an upgrade opens the gate."""
    gate = UpgradeGate(True, "2", lambda: ())
    gate.enter("ns/a")
    gate.enter("ns/b")

    gate.forget("ns/a")

    assert gate.due() == "ns/b"
    assert gate.enter("ns/b")


@pytest.mark.parametrize(
    ("upgraded", "ready", "free"), [("2", False, False), ("2", True, True), ("1", False, True)]
)
def test_a_restart_remembers_an_upgrade_by_the_workload(upgraded: str, ready: bool, free: bool) -> None:
    """What this version has upgraded and is not ready keeps the gate shut for others, and not for itself."""
    gate = UpgradeGate(True, "2", lambda: [workload("a", ready=ready, upgraded=upgraded)])

    assert gate.enter("ns/b") is free
    assert UpgradeGate(True, "2", lambda: [workload("a", ready=False, upgraded="2")]).enter("ns/a")
