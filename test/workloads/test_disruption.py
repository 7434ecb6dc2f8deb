from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.local.workloads.disruption import status
from kaito.local.workloads.namespaces import Remains, conditions

Obj = dict[str, Any]
NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def pods(ready: int, others: int = 0) -> list[Obj]:
    return [
        {"metadata": {"name": f"p{i}"}, "status": {"conditions": [{"type": "Ready", "status": str(i < ready)}]}}
        for i in range(ready + others)
    ]


@pytest.mark.parametrize(
    ("spec", "ready", "expected", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 1),
        ({"minAvailable": 2}, 2, 2, 0),
        ({"minAvailable": "50%"}, 3, 4, 1),
        ({"maxUnavailable": 1}, 3, 3, 1),
        ({"maxUnavailable": 1}, 2, 3, 0),
        ({"maxUnavailable": "25%"}, 4, 4, 1),
        ({"minAvailable": 0}, 0, 0, 0),
    ],
)
def test_a_budget_allows_what_is_left_over(spec: Obj, ready: int, expected: int, allowed: int) -> None:
    """Disruptions allowed are the healthy pods beyond the wanted number, of what controllers want in all."""
    said = status({"spec": spec}, pods(ready, expected - ready), expected, NOW)

    assert (said["disruptionsAllowed"], said["currentHealthy"]) == (allowed, ready)
    assert said["conditions"][0]["status"] == str(allowed > 0)


def test_a_namespace_says_what_it_waits_for() -> None:
    """The conditions count what is left by kind and by finalizer, in the words of Kubernetes."""
    remains = Remains()
    remains.kinds["configmaps."] = 2
    remains.finalizers["test/hold"] = 1

    said = {c["type"]: (c["status"], c["message"]) for c in conditions({}, remains, NOW)}
    assert said["NamespaceContentRemaining"] == (
        "True",
        "Some resources are remaining: configmaps. has 2 resource instances",
    )
    assert said["NamespaceFinalizersRemaining"][1].endswith("test/hold in 1 resource instances")
    assert said["NamespaceDeletionDiscoveryFailure"][0] == "False"
    assert not remains.is_empty
