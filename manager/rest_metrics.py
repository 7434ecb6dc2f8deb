"""What the client tells about its requests, and the metrics made of it, under client-go's names.

The client tells a :class:`RestObserver`, so that it needs no metrics library. :class:`RestMetrics` counts
requests; everything else is asked for by name, and what is not asked for costs nothing: the client does not even
look at the clock. Series appear when they are first used, because hosts and codes are not known before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

_LATENCY = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_SIZES = (64, 256, 512, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)


class RestObserver(Protocol):
    """Told of requests. Called in the client's event loop; must be quick and must not raise."""

    @property
    def detailed(self) -> bool:
        """Whether :meth:`measured` is wanted."""
        ...

    @property
    def dns(self) -> bool:
        """Whether :meth:`resolved` is wanted."""
        ...

    def finished(self, method: str, status: int, host: str) -> None:
        """A request ended; ``status`` is the HTTP status, or 0 when there was no answer."""

    def measured(self, method: str, host: str, seconds: float, sent: int, received: int) -> None:
        """How long an answered request took, and the sizes of the bodies in bytes."""

    def retried(self, method: str, status: int, host: str) -> None:
        """A request is sent again because of this answer."""

    def throttled(self, method: str, host: str, seconds: float) -> None:
        """A request waited for the client's own rate limit, or did not have to (0)."""

    def resolved(self, host: str, seconds: float) -> None:
        """A host name was looked up."""


class RestMetrics:
    """A ``RestObserver`` that keeps Prometheus metrics.

    ``rest_client_requests_total{code,method,host}`` is always there.

    Args:
        registry: where to register.
        duration: adds ``rest_client_request_duration_seconds{verb,host}``.
        sizes: adds ``rest_client_request_size_bytes`` and ``rest_client_response_size_bytes{verb,host}``.
        retries: adds ``rest_client_request_retries_total{code,verb,host}``.
        rate_limiter: adds ``rest_client_rate_limiter_duration_seconds{verb,host}``.
        dns: adds ``rest_client_dns_resolution_duration_seconds{host}``.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        duration: bool = False,
        sizes: bool = False,
        retries: bool = False,
        rate_limiter: bool = False,
        dns: bool = False,
    ) -> None:
        from prometheus_client import Counter, Histogram

        def histogram(wanted: bool, name: str, words: str, buckets: tuple[float, ...]) -> Histogram | None:
            return Histogram(name, words, ("verb", "host"), buckets=buckets, registry=registry) if wanted else None

        self._total = Counter(
            "rest_client_requests_total", "Requests by outcome.", ("code", "method", "host"), registry=registry
        )
        self._seconds = histogram(
            duration, "rest_client_request_duration_seconds", "Length of requests.", _LATENCY
        )
        self._sent = histogram(sizes, "rest_client_request_size_bytes", "Sizes of request bodies.", _SIZES)
        self._received = histogram(sizes, "rest_client_response_size_bytes", "Sizes of answers.", _SIZES)
        self._throttled = histogram(
            rate_limiter, "rest_client_rate_limiter_duration_seconds", "Waits for the rate limit.", _LATENCY
        )
        self._retries = (
            Counter(
                "rest_client_request_retries_total",
                "Requests sent again, by the answer that asked for it.",
                ("code", "verb", "host"),
                registry=registry,
            )
            if retries
            else None
        )
        self._resolved = (
            Histogram(
                "rest_client_dns_resolution_duration_seconds",
                "Length of host name look-ups.",
                ("host",),
                buckets=_LATENCY,
                registry=registry,
            )
            if dns
            else None
        )
        self.detailed = duration or sizes
        self.dns = dns
        self._children: dict[tuple[str, int, str], Counter] = {}

    def finished(self, method: str, status: int, host: str) -> None:
        """See ``RestObserver``."""
        key = (method, status, host)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._total.labels(str(status or "<error>"), method, host)
        child.inc()

    def measured(self, method: str, host: str, seconds: float, sent: int, received: int) -> None:
        """See ``RestObserver``."""
        for family, value in ((self._seconds, seconds), (self._sent, sent), (self._received, received)):
            if family is not None:
                family.labels(method, host).observe(value)

    def retried(self, method: str, status: int, host: str) -> None:
        """See ``RestObserver``."""
        if self._retries is not None:
            self._retries.labels(str(status), method, host).inc()

    def throttled(self, method: str, host: str, seconds: float) -> None:
        """See ``RestObserver``."""
        if self._throttled is not None:
            self._throttled.labels(method, host).observe(seconds)

    def resolved(self, host: str, seconds: float) -> None:
        """See ``RestObserver``."""
        if self._resolved is not None:
            self._resolved.labels(host).observe(seconds)
