"""Probes in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kaito.local.node.probes import Kind, ProbeSpec, Verdict, run_probe


async def verdicts(
    spec: ProbeSpec, results: Sequence[bool | float], age: float = 0
) -> list[tuple[float, bool | None]]:
    """(loop time, verdict) after each check; a number is a check that takes so many seconds."""
    loop = asyncio.get_running_loop()
    begin, seen, left = loop.time(), list[tuple[float, bool | None]](), list(results)

    async def check(_spec: ProbeSpec) -> tuple[bool, str]:
        result = left.pop(0)
        if isinstance(result, bool):
            return result, "message"
        await asyncio.sleep(result)
        return True, ""

    done = asyncio.Event()

    def report(verdict: Verdict) -> None:
        seen.append((loop.time() - begin, verdict.passed))
        if not left:
            done.set()

    task = asyncio.create_task(run_probe(spec, age, check, report))
    await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return seen


@pytest.mark.looptime
async def test_a_probe_fails_after_its_threshold_of_consecutive_failures() -> None:
    """failureThreshold failures in a row turn the verdict; one success turns it back."""
    spec = ProbeSpec(Kind.LIVENESS, {}, initial_delay=5, period=2, failure_threshold=2)

    seen = await verdicts(spec, [True, False, True, False, False, True])

    assert seen == [(5, True), (7, True), (9, True), (11, True), (13, False), (15, True)]


@pytest.mark.looptime
async def test_a_slow_check_is_a_failure_after_the_timeout() -> None:
    """timeoutSeconds bounds a check, and the period counts from its beginning."""
    spec = ProbeSpec(Kind.READINESS, {}, period=10, timeout=3, failure_threshold=1)

    seen = await verdicts(spec, [30.0, 2.0])

    assert seen == [(3, False), (12, True)]


@pytest.mark.looptime
async def test_success_needs_its_threshold_too() -> None:
    """A readiness probe may ask for several successes in a row."""
    spec = ProbeSpec(Kind.READINESS, {}, period=1, success_threshold=3)

    seen = await verdicts(spec, [True, True, True])

    assert [passed for _time, passed in seen] == [None, None, True]


@pytest.mark.looptime
async def test_the_initial_delay_is_not_begun_anew_for_an_adopted_container() -> None:
    """A container that has run for a while is checked when its delay has passed since its start."""
    spec = ProbeSpec(Kind.LIVENESS, {}, initial_delay=30)

    assert await verdicts(spec, [True], age=20) == [(10, True)]


@pytest.mark.looptime
async def test_a_startup_probe_ends_when_it_has_passed() -> None:
    """After its success nothing checks it again."""
    spec = ProbeSpec(Kind.STARTUP, {}, period=1)

    async def check(_spec: ProbeSpec) -> tuple[bool, str]:
        return True, ""

    async with asyncio.timeout(5):
        await run_probe(spec, 0, check, lambda _verdict: None)


def test_defaults_are_those_of_the_api() -> None:
    """Absent timing fields mean 0, 10, 1, 1, 3."""
    spec = ProbeSpec.of(Kind.LIVENESS, {"livenessProbe": {"tcpSocket": {"port": 1}}})

    assert spec == ProbeSpec(Kind.LIVENESS, {"tcpSocket": {"port": 1}}, 0, 10, 1, 1, 3, None)
    assert ProbeSpec.of(Kind.STARTUP, {}) is None
