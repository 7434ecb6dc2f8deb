"""What is counted about Machines, NodeClaims and their nodes, under Karpenter's names.

In: what the reconcilers and the sweep did. Out: families in the manager's registry. The Machine's counters are
exposed as Karpenter 0.29 named them, without the suffix ``_total`` that the format gives to a counter, and are
therefore gauges by type. What Karpenter has no name for is called ``kaito_machine_*``.
"""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from api import keys
from api.conditions import parse_time
from controllers.machine.kinds import Kind
from manager.types import Obj

_MINUTES = (30, 60, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
_ON_DEMAND = "on-demand"


class MachineMetrics:
    """All families; made once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"karpenter_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"karpenter_{name}", text, labels, registry=registry)

        def summary(name: str, text: str, *labels: str) -> Summary:
            return Summary(f"karpenter_{name}", text, labels, registry=registry)

        pool = ("nodepool", "capacity_type")
        self._machines = {
            what: gauge(f"machines_{what}", f"Machines {what}.", "provisioner")
            for what in ("launched", "registered", "initialized")
        }
        self._machines_why = {
            what: gauge(f"machines_{what}", f"Machines {what}.", "reason", "provisioner")
            for what in ("created", "terminated")
        }
        self._machine_nodes = {
            what: gauge(f"nodes_{what}", f"Nodes {what}.", "provisioner") for what in ("created", "terminated")
        }
        self._machine_node_seconds = summary(
            "nodes_termination_time_seconds", "From the deletion of a node to its end.", "provisioner"
        )
        self._claims = {
            what: counter(f"nodeclaims_{what}", f"NodeClaims {what}.", *pool)
            for what in ("created", "terminated", "launched", "registered", "initialized")
        }
        self._claims_disrupted = counter("nodeclaims_disrupted", "NodeClaims given up.", "reason", *pool)
        self._claim_seconds = Histogram(
            "karpenter_nodeclaims_termination_duration_seconds",
            "From the deletion of a NodeClaim to its end.",
            ("nodepool",),
            registry=registry,
            buckets=_MINUTES,
        )
        self._inconsistent = gauge("consistency_errors", "Machines that are not as they were made.", "check")
        self._phase = Histogram(
            "kaito_machine_phase_seconds",
            "How long a phase of a Machine took.",
            ("kind", "phase", "instance_type"),
            registry=registry,
            buckets=_MINUTES,
        )
        self._usual = Gauge(
            "kaito_machine_usual_creation_seconds",
            "Median of the last creations of an instance type, as the conditions quote it.",
            ("instance_type",),
            registry=registry,
        )
        self._swept = Counter(
            "kaito_machine_garbage",
            "What the sweep found to be left over, and whether it was removed.",
            ("what", "outcome"),
            registry=registry,
        )

    # ------------------------------------------------------------------ one object

    def created(self, kind: Kind, obj: Obj) -> None:
        """It was seen for the first time."""
        if kind.knative:
            self._machines_why["created"].labels("provisioned", _pool(kind, obj)).inc()
        else:
            self._claims["created"].labels(*_labels(kind, obj)).inc()

    def reached(self, kind: Kind, obj: Obj, phase: str) -> None:
        """A condition of it became True: launched, registered or initialized."""
        if not kind.knative:
            self._claims[phase].labels(*_labels(kind, obj)).inc()
            return
        self._machines[phase].labels(_pool(kind, obj)).inc()
        if phase == "registered":
            self._machine_nodes["created"].labels(_pool(kind, obj)).inc()

    def disrupted(self, kind: Kind, obj: Obj, reason: str) -> None:
        """It is given up, for this reason."""
        if kind.knative:
            self._machines_why["terminated"].labels(reason, _pool(kind, obj)).inc()
        else:
            self._claims_disrupted.labels(reason, *_labels(kind, obj)).inc()

    def terminated(self, kind: Kind, obj: Obj, now: datetime) -> None:
        """Nothing of it is left."""
        deleted = parse_time(obj["metadata"].get("deletionTimestamp"))
        seconds = max(0.0, (now - deleted).total_seconds()) if deleted else 0.0
        if kind.knative:
            self._machine_node_seconds.labels(_pool(kind, obj)).observe(seconds)
        else:
            self._claims["terminated"].labels(*_labels(kind, obj)).inc()
            self._claim_seconds.labels(_pool(kind, obj)).observe(seconds)

    def node_terminated(self, kind: Kind, obj: Obj) -> None:
        """Its node object was removed."""
        if kind.knative:
            self._machine_nodes["terminated"].labels(_pool(kind, obj)).inc()

    # ------------------------------------------------------------------ all of them

    def phase(self, kind: Kind, phase: str, instance_type: str, seconds: float) -> None:
        """A phase has ended well."""
        self._phase.labels(kind.name, phase, instance_type).observe(seconds)

    def usual(self, instance_type: str, seconds: float) -> None:
        """What a creation of this type usually takes now."""
        self._usual.labels(instance_type).set(seconds)

    def inconsistent(self, check: str) -> None:
        """A check of a Machine against its node failed."""
        self._inconsistent.labels(check).inc()

    def swept(self, what: str, outcome: str) -> None:
        """The sweep found something left over."""
        self._swept.labels(what, outcome).inc()


def _pool(kind: Kind, obj: Obj) -> str:
    return str((obj["metadata"].get("labels") or {}).get(kind.pool_label) or "")


def _labels(kind: Kind, obj: Obj) -> tuple[str, str]:
    capacity = (obj["metadata"].get("labels") or {}).get(keys.CAPACITY_TYPE_LABEL) or _ON_DEMAND
    return _pool(kind, obj), str(capacity)
