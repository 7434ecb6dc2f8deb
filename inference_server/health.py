"""Whether this server can answer, whether it should be restarted, and how far it has come with loading.

In: the engine's state, the count of its steps, the drain. Out: a reason, or None. Readiness and liveness are two
questions: a server that loads or drains is alive and not ready; one whose engine has died or stands still while
requests run is neither, and only a new process helps. The watchdog reads counters and touches no engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from api.progress import LoadProgress, LoadStage
from inference_server.protocol import Engine

NOT_INITIALIZED = "Model not initialized"
DEAD = "The inference engine has died; restart this server"
STOPPING = "The server is shutting down"


class Watchdog:
    """Tells an engine that is busy from one that hangs. ``limit`` in seconds; 0 switches it off."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._steps = -1
        self._since = clock()

    def hung(self, engine: Engine) -> str | None:
        """Why the engine is taken to hang, or None. Call it often: time counts from the last look at a step."""
        load, now = engine.load, self._clock()
        if load.unfinished == 0 or load.steps != self._steps:
            self._steps, self._since = load.steps, now
        still = now - self._since
        if not self._limit or still < self._limit:
            return None
        return (
            f"The inference engine has made no step for {still:.0f} s with {load.unfinished} requests running; "
            "restart this server"
        )


class Health:
    """The answers to the probes."""

    def __init__(self, engine: Engine, watchdog: Watchdog) -> None:
        self.draining = False
        self.starting = False  # the engine may be there before its adapters are
        self.progress = LoadProgress(stage=LoadStage.LOADING, message="starting")
        self._engine = engine
        self._watchdog = watchdog

    def broken(self) -> str | None:
        """Why only a new process helps, or None."""
        if self._engine.info is None:
            return None
        return DEAD if self._engine.errored else self._watchdog.hung(self._engine)

    def unready(self) -> str | None:
        """Why no request can be answered now, or None."""
        if self.draining:
            return STOPPING
        if self.starting or self._engine.info is None:
            return NOT_INITIALIZED
        return self.broken()

    def retry_after(self) -> int:
        """Seconds after which asking again makes sense."""
        left = self.progress.seconds_left
        return max(1, min(600, round(left))) if left is not None else 5
