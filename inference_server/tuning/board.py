"""How far the run is: one value, replaced by whoever makes progress and read by whoever asks.

In: calls from the loop and from the training thread. Out: the current ``TuneProgress``, gauges for Prometheus, and
the termination message. The value is immutable and replaced under a lock, so that a reader never sees half an
update.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge

from api.progress import TuneProgress, TuneStage

logger = logging.getLogger("kaito.inference_server.tuning")

LONGEST_MESSAGE: Final = 4096  # bytes that Kubernetes keeps of a termination message
_GAUGES: Final = {
    "epoch": ("kaito_tuning_epoch", "Passes over the dataset that are done."),
    "step": ("kaito_tuning_step", "Optimiser steps that are done."),
    "steps": ("kaito_tuning_steps", "Optimiser steps of the whole run."),
    "loss": ("kaito_tuning_loss", "Loss of the last steps."),
    "seconds_left": ("kaito_tuning_remaining_seconds", "Until training ends, by what was seen."),
    "bytes_done": ("kaito_tuning_transferred_bytes", "Bytes fetched or pushed in this stage."),
    "bytes_total": ("kaito_tuning_transfer_size_bytes", "Bytes to fetch or push in this stage."),
    "resumed_from": ("kaito_tuning_resumed_from_step", "Step of the checkpoint that the run began at."),
}


class Board:
    """The current progress. ``told`` is called with each new one, in the thread that made it."""

    def __init__(self, told: Callable[[TuneProgress], None] = lambda _: None) -> None:
        self._told = told
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._now = TuneProgress(stage=TuneStage.FETCHING)
        self._gauges: dict[str, Gauge] = {}
        self._stage = Gauge(
            "kaito_tuning_stage", "1 for the stage that the run is in.", ["stage"], registry=self.registry
        )
        self._show(self._now)

    @property
    def now(self) -> TuneProgress:
        """What is known."""
        return self._now

    def set(self, **fields: Any) -> None:
        """Replaces the named fields. A new stage forgets the bytes of the one before, and what was left to do."""
        with self._lock:
            given: dict[str, Any] = dict(fields)
            if "stage" in fields and fields["stage"] is not self._now.stage:
                given = {"bytes_done": None, "bytes_total": None, "seconds_left": None, "message": "", **given}
                logger.info("stage=%s %s", fields["stage"], given["message"])
            self._now = self._now.model_copy(update=given)
            self._show(self._now)
        self._told(self._now)

    def write(self, path: Path) -> None:
        """The termination message, where the pod has a file for one. Never raises: the outcome stands."""
        if not path.exists():
            return
        try:
            path.write_bytes(termination_message(self._now))
        except OSError as error:
            logger.warning("termination message not written path=%s error=%s", path, error.strerror)

    def _show(self, now: TuneProgress) -> None:
        for stage in TuneStage:
            self._stage.labels(stage=stage.value).set(1 if stage is now.stage else 0)
        for name, (metric, text) in _GAUGES.items():
            value = getattr(now, name)
            if value is None and name not in self._gauges:
                continue  # what is unknown has no series, instead of a zero
            if name not in self._gauges:
                self._gauges[name] = Gauge(metric, text, registry=self.registry)
            self._gauges[name].set(float("nan") if value is None else value)


def termination_message(progress: TuneProgress) -> bytes:
    """The progress as JSON in at most 4096 bytes; the longest texts are shortened first."""
    shown = progress
    for limit in (None, 1000, 300, 0):
        if limit is not None:
            cut = {name: _cut(getattr(progress, name) or "", limit) for name in ("message", "next_step")}
            shown = progress.model_copy(update=cut)
        data = shown.model_dump_json(by_alias=True, exclude_none=True).encode()
        if len(data) <= LONGEST_MESSAGE:
            return data
    return data[:LONGEST_MESSAGE]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
