"""Our own metrics, beside the engine's `vllm:*` in the same registry.

In: what the gate, the routes and the loaders report. Out: Prometheus' text. The names that upstream has
(`kaito_ratelimit_rejected_total`, `kaito_model_download_*`) mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from api.adapters import AdapterState, ObservedAdapters
from api.progress import LoadProgress, LoadStage

# Seconds to the first token: from a warm small model to a long prompt on a CPU.
_FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What this server counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.rejected = Counter(
            "kaito_ratelimit_rejected", "Requests refused with 429 because the queue was full.", registry=registry
        )
        self.first_token = Histogram(
            "kaito_time_to_first_token_seconds",
            "From a request's arrival to the first part of its stream.",
            ["route"],
            buckets=_FIRST_TOKEN,
            registry=registry,
        )
        self.requests = Counter(
            "kaito_inference_requests", "Inference requests by outcome.", ["route", "code"], registry=registry
        )
        self.stalled = Counter(
            "kaito_stalled_readers", "Streams cut off because nobody read them.", registry=registry
        )
        self.expired = Counter("kaito_deadline_exceeded", "Requests ended by their time limit.", registry=registry)
        self._active = Gauge("kaito_requests_active", "Requests being answered or waiting.", registry=registry)
        self._queue = Gauge("kaito_queue_depth", "Requests beyond those in a batch.", registry=registry)
        self._adapters = Gauge("kaito_adapters", "Adapters by state.", ["state"], registry=registry)
        self._stage = Gauge("kaito_load_stage", "1 for where the server is.", ["stage"], registry=registry)
        self._speed = Gauge(
            "kaito_model_download_speed_bytes_per_second", "Of the model's files.", registry=registry
        )
        self._left = Gauge(
            "kaito_model_download_remaining_seconds", "Until the model's files are here.", registry=registry
        )
        self._bytes = Gauge("kaito_model_download_bytes", "Of the model's files, here.", registry=registry)
        self._total = Gauge("kaito_model_download_total_bytes", "Of the model's files, all.", registry=registry)

    def watch(
        self,
        *,
        active: Callable[[], float],
        queue: Callable[[], float],
        progress: Callable[[], LoadProgress],
        adapters: Callable[[], ObservedAdapters],
    ) -> None:
        """Take these values whenever somebody scrapes."""
        self._active.set_function(active)
        self._queue.set_function(queue)
        for stage in LoadStage:
            self._stage.labels(stage).set_function(partial(_is_at, progress, stage))
        self._speed.set_function(lambda: progress().bytes_per_second or 0.0)
        self._left.set_function(lambda: _while_pulling(progress(), progress().seconds_left))
        self._bytes.set_function(lambda: float(progress().bytes_done or 0))
        self._total.set_function(lambda: float(progress().bytes_total or 0))
        for state in AdapterState:
            self._adapters.labels(state).set_function(partial(_count, adapters, state))


def _while_pulling(progress: LoadProgress, seconds: float | None) -> float:
    return seconds or 0.0 if progress.stage == LoadStage.PULLING else 0.0


def _is_at(progress: Callable[[], LoadProgress], stage: LoadStage) -> float:
    return float(progress().stage == stage)


def _count(adapters: Callable[[], ObservedAdapters], state: AdapterState) -> float:
    return float(sum(item.state == state for item in adapters().adapters))
