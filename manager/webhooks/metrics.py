"""The metrics of webhooks, under controller-runtime's names: what dashboards and alerts know."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PathMetrics:
    """The children of one path, looked up once: they are used in every request."""

    def __init__(self, families: WebhookMetrics, path: str) -> None:
        self._requests = families.requests
        self._path = path
        self._codes = {code: families.requests.labels(path, str(code)) for code in (200, 500)}
        self.in_flight = families.in_flight.labels(path)
        self.latency = families.latency.labels(path)

    def finished(self, code: int, seconds: float) -> None:
        """A request was answered with this HTTP status."""
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._requests.labels(self._path, str(code))
        child.inc()
        self.latency.observe(seconds)


class WebhookMetrics:
    """All families, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.latency = Histogram(
            "controller_runtime_webhook_latency_seconds",
            "Time of answering an admission request.",
            ("webhook",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self.requests = Counter(
            "controller_runtime_webhook_requests",
            "Requests by HTTP status.",
            ("webhook", "code"),
            registry=registry,
        )
        self.in_flight = Gauge(
            "controller_runtime_webhook_requests_in_flight",
            "Requests being answered.",
            ("webhook",),
            registry=registry,
        )
        self.panics = Counter(
            "controller_runtime_webhook_panics", "Admission handlers that failed.", registry=registry
        )
        self.conversion_panics = Counter(
            "controller_runtime_conversion_webhook_panics", "Conversions that failed.", registry=registry
        )
