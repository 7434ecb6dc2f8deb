"""Probes: the state machine (pure) and the loop that drives it.

In: a container's `startupProbe`, `livenessProbe` or `readinessProbe`, and a `check` that performs it once.
Out: a `Verdict` whenever it changes. Timing is the kubelet's: the initial delay counts from the container's
start, a check that exceeds `timeoutSeconds` failed, `failureThreshold` and `successThreshold` count
consecutive results. Performing a check is next door (`prober.py`); what a verdict leads to is the pod's
decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from manager.types import Obj


class Kind(StrEnum):
    """Which probe of the container."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"

    @property
    def field(self) -> str:
        """The container's field that holds it."""
        return f"{self.value.lower()}Probe"


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One probe with its defaults filled in. Times in seconds."""

    kind: Kind
    action: Obj
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: float | None = None

    @classmethod
    def of(cls, kind: Kind, container: Obj) -> ProbeSpec | None:
        """The container's probe of this kind, if it has one."""
        raw = container.get(kind.field)
        if not raw:
            return None
        grace = raw.get("terminationGracePeriodSeconds")
        return cls(
            kind=kind,
            action={k: raw[k] for k in ("httpGet", "tcpSocket", "exec", "grpc") if k in raw},
            initial_delay=float(raw.get("initialDelaySeconds") or 0),
            period=float(raw.get("periodSeconds") or 10),
            timeout=float(raw.get("timeoutSeconds") or 1),
            success_threshold=int(raw.get("successThreshold") or 1),
            failure_threshold=int(raw.get("failureThreshold") or 3),
            grace=None if grace is None else float(grace),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe says at the moment: None until it has said anything."""

    passed: bool | None = None
    message: str = ""
    streak: int = 0
    last: bool | None = None

    def after(self, spec: ProbeSpec, ok: bool, message: str) -> Verdict:
        """The verdict after one more check."""
        streak = self.streak + 1 if ok == self.last else 1
        enough = streak >= (spec.success_threshold if ok else spec.failure_threshold)
        return Verdict(ok if enough else self.passed, message, streak, ok)


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The verdicts of one run of a container."""

    startup: Verdict = Verdict()
    liveness: Verdict = Verdict()
    readiness: Verdict = Verdict()

    def with_(self, kind: Kind, verdict: Verdict) -> ProbeState:
        """The same with one verdict replaced."""
        if kind is Kind.STARTUP:
            return replace(self, startup=verdict)
        if kind is Kind.LIVENESS:
            return replace(self, liveness=verdict)
        return replace(self, readiness=verdict)


# One check: (ok, message). It may take as long as it likes; the loop bounds it.
Check = Callable[[ProbeSpec], Awaitable[tuple[bool, str]]]


async def run_probe(spec: ProbeSpec, age: float, check: Check, report: Callable[[Verdict], None]) -> None:
    """Check again and again; `report` every check's verdict. Ends only for a startup probe that has passed.

    `age` is how long the container has run already, so that an agent restart does not start the delay anew.
    """
    await asyncio.sleep(max(0.0, spec.initial_delay - age))
    verdict = Verdict()
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            async with asyncio.timeout(spec.timeout):
                ok, message = await check(spec)
        except TimeoutError:
            ok, message = False, f"no answer within {spec.timeout:g}s"
        verdict = verdict.after(spec, ok, message)
        report(verdict)
        if spec.kind is Kind.STARTUP and verdict.passed:
            return
        await asyncio.sleep(max(0.0, spec.period - (loop.time() - started)))
