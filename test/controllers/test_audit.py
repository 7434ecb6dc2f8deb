"""What an audit finds, and what it leaves alone: pure, on plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controllers.audit import Audit, Leak, Rates, World, audit
from controllers.leaks import LeakGauges
from provisioner import SPOT, Instance, InstanceState, Owner
from provisioner.byo import ByoProvider

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
RATES = Rates(
    lambda kind: {"Standard_NC24ads_A100_v4": 1, "Standard_NC6s_v3": 1, "Standard_NC48ads_A100_v4": 2}.get(kind),
    lambda kind, spot: (0.5 if spot else 4.0, "USD") if "A100" in kind else None,
)
LABELS = {"kaito.sh/workspace": "w", "karpenter.sh/provisioner-name": "default"}


class Cloud(ByoProvider):
    """Instances are called as their Machines; a node's providerID names its instance."""

    def instance_of(self, node: Any) -> str:
        return str((node.get("spec") or {}).get("providerID") or "").removeprefix("cloud:///")


def instance(name: str, hours: float | None = 10.0, **fields: Any) -> Instance:
    values: dict[str, Any] = {
        "instance_type": "Standard_NC24ads_A100_v4",
        "state": InstanceState.RUNNING,
        "created_at": None if hours is None else NOW - timedelta(hours=hours),
        "owner": Owner(f"m-{name}", "uid"),
        **fields,
    }
    return Instance(name, **values)


def machine(
    name: str, launched: str = "", minutes: float = 60, kind: str = "MachineLaunched", **meta: Any
) -> dict[str, Any]:
    since = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": kind, "status": launched, "lastTransitionTime": since}] if launched else []
    metadata = {"name": name, "uid": "u", "labels": LABELS, "creationTimestamp": since, **meta}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def node(name: str, labels: dict[str, str], instance_name: str, hours: float = 5) -> dict[str, Any]:
    created = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "labels": labels, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"providerID": f"cloud:///{instance_name}"}}


def found(**world: Any) -> Audit:
    return audit(World(Cloud(), **world), NOW, RATES)


def names(result: Audit) -> list[tuple[str, str]]:
    return [(str(item.leak), item.name) for item in result.findings]


def test_what_belongs_together_is_no_finding() -> None:
    """A Machine with its instance and its node is clean."""
    result = found(instances=[instance("a")], machines=[machine("a", "True")], nodes=[node("n", LABELS, "a")])
    assert names(result) == []
    assert (result.instances, result.machines, result.nodes) == (1, 1, 1)


def test_an_orphan_is_counted_in_hours_and_money() -> None:
    """GPUs times age, and the price of its capacity type; the sums are those of all orphans."""
    spot = instance("b", 2, instance_type="Standard_NC48ads_A100_v4", capacity_type=SPOT)
    unpriced = instance("c", 1, instance_type="Standard_NC6s_v3", owner=None)
    result = found(instances=[spot, instance("a"), unpriced])

    a, b, c = result.findings
    assert (a.name, a.gpu_hours, a.per_hour, a.currency, a.owner) == ("a", 10.0, 4.0, "USD", "Machine/m-a")
    assert (b.name, b.gpu_hours, b.per_hour) == ("b", 4.0, 0.5)
    assert (c.name, c.gpu_hours, c.per_hour, c.owner) == ("c", 1.0, None, "")
    assert result.gpu_hours == 15.0
    assert result.per_hour == {"USD": 4.5}


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"hours": 0.05}, (0, 1, 0)),
        ({"hours": None}, (1, 0, 0)),
        ({"state": InstanceState.DELETING}, (0, 0, 1)),
        ({"state": InstanceState.FAILED}, (1, 0, 0)),
        ({"instance_type": "Standard_Unknown"}, (1, 0, 0)),
    ],
)
def test_which_instances_are_orphans(fields: dict[str, Any], counted: tuple[int, int, int]) -> None:
    """Not those within the grace, nor those on their way out; one whose age nobody knows is."""
    result = found(instances=[instance("a", **fields)])
    assert (len(result.orphans), result.young, result.deleting) == counted


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        (machine("m", "True"), True),
        (machine("m", "True", 1), False),
        (machine("m", "Unknown"), False),
        (machine("m"), False),
        (machine("m", "True", deletionTimestamp="2026-11-26T11:00:00Z"), False),
        (machine("m", "True", kind="Launched"), True),
        (machine("m", "True", labels={}), False),  # another provisioner's
    ],
)
def test_which_machines_have_lost_their_instance(lost: dict[str, Any], expected: bool) -> None:
    """One that was launched a while ago and stays; not one that waits, or goes."""
    result = found(machines=[lost])
    assert names(result) == ([("MachineWithoutInstance", "m")] if expected else [])


@pytest.mark.parametrize(
    ("lone", "expected"),
    [
        (node("n", LABELS, "gone"), True),
        (node("n", {"kaito.sh/workspace": "w"}, "gone"), False),
        (node("n", {"karpenter.sh/provisioner-name": "default"}, "gone"), False),
        (node("n", LABELS, ""), False),
        (node("n", LABELS, "gone", hours=0.01), False),
    ],
)
def test_which_nodes_are_alone(lone: dict[str, Any], expected: bool) -> None:
    """One with our marks and an instance's name; a user's own node that merely bears a label is not ours."""
    result = found(nodes=[lone])
    assert names(result) == ([("NodeWithoutMachine", "n")] if expected else [])


def test_the_node_of_an_orphan_says_so() -> None:
    """Its next step is the instance, with which it goes."""
    result = found(instances=[instance("a")], nodes=[node("n", LABELS, "a")])
    assert [item.leak for item in result.findings] == [Leak.INSTANCE_WITHOUT_MACHINE, Leak.NODE_WITHOUT_MACHINE]
    assert "its instance a is in the cloud" in result.findings[1].detail


def test_the_gauges_show_the_same_figures_and_go_back_to_zero() -> None:
    """What an alert reads is what the audit found; a currency that costs nothing any more says 0."""
    registry = CollectorRegistry()
    gauges = LeakGauges(registry)
    gauges.show(found(instances=[instance("a"), instance("b", 2)]), NOW)
    before = generate_latest(registry).decode()
    gauges.show(found(), NOW)
    after = generate_latest(registry).decode()

    assert "kaito_orphaned_gpu_hours 12.0" in before
    assert 'kaito_orphaned_cost_per_hour{currency="USD"} 8.0' in before
    assert "kaito_orphaned_instances 2.0" in before
    assert "kaito_orphaned_gpu_hours 0.0" in after
    assert 'kaito_orphaned_cost_per_hour{currency="USD"} 0.0' in after
