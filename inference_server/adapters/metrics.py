"""What Prometheus is told about adapters.

In: events of the manager. Out: series named ``kaito_adapter*``. Names of adapters are labels: a list has few.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from inference_server.adapters.decide import LoadedSet


class AdapterMetrics:
    """The series of one manager."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.in_force = Gauge(
            "kaito_adapter_list_in_force",
            "1 while requests are answered with the adapters that are wanted, else 0.",
            registry=registry,
        )
        self.strength = Gauge(
            "kaito_adapter_strength",
            "Strength of each adapter that requests are answered with.",
            ["adapter", "digest"],
            registry=registry,
        )
        self.slots = Gauge("kaito_adapter_slots", "Slots that the engine holds.", registry=registry)
        self.switches = Counter("kaito_adapter_switches", "Sets brought into force.", registry=registry)
        self.failures = Counter(
            "kaito_adapter_failures", "Attempts that failed, by reason.", ["reason"], registry=registry
        )
        self.pulled = Counter("kaito_adapter_pulled_bytes", "Bytes of adapters downloaded.", registry=registry)
        self.load_seconds = Histogram(
            "kaito_adapter_load_seconds",
            "From a sound set to its being in force.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )

    def switched(self, loaded: LoadedSet, seconds: float) -> None:
        """A set came into force."""
        self.switches.inc()
        self.load_seconds.observe(seconds)
        self.strength.clear()
        for wanted, artifact in loaded.planned.adapters:
            self.strength.labels(wanted.name, artifact.digest).set(wanted.strength)
