"""A check, what it finds, and running many of them at once.

In: checks. Out: one result for each, in their order. A check that takes longer than its time, or breaks, has
failed with that as its message: the doctor never hangs and never shows a traceback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended. SKIP: what it is about is not there, and need not be."""

    PASS = "pass"  # noqa: S105 - not that kind of pass
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says. ``fix`` is what to type or change, empty where nothing need be."""

    verdict: Verdict
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question. ``seconds`` is how long its answer may take; 0 leaves it to the command's limit."""

    name: str
    ask: Callable[[], Awaitable[Finding]]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A check's answer."""

    name: str
    finding: Finding


def good(message: str) -> Finding:
    """All is well."""
    return Finding(Verdict.PASS, message)


def bad(message: str, fix: str) -> Finding:
    """The operator cannot work like this."""
    return Finding(Verdict.FAIL, message, fix)


def doubtful(message: str, fix: str) -> Finding:
    """The operator may work, and a person should look."""
    return Finding(Verdict.WARN, message, fix)


def skipped(message: str) -> Finding:
    """There is nothing to check."""
    return Finding(Verdict.SKIP, message)


async def run_checks(
    checks: Sequence[Check], *, seconds: float, on_done: Callable[[int, Iterable[str]], None] = lambda _n, _w: None
) -> list[Result]:
    """Run all at once; ``on_done`` hears how many are over, and the names of those that are not."""
    waiting = {check.name for check in checks}

    async def one(check: Check) -> Result:
        finding = await _asked(check, check.seconds or seconds)
        waiting.discard(check.name)
        on_done(len(checks) - len(waiting), sorted(waiting))
        return Result(check.name, finding)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(check), name=check.name) for check in checks]
    return [task.result() for task in tasks]


async def _asked(check: Check, seconds: float) -> Finding:
    try:
        async with asyncio.timeout(seconds):
            return await check.ask()
    except TimeoutError:
        return bad(
            f"no answer within {seconds:.0f} s", "look at what stands in between, or give it longer (--timeout)"
        )
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return bad(f"it could not be found out: {text}", getattr(error, "next_step", "") or "see the message")


def exit_code(results: Iterable[Result]) -> int:
    """1 where something fails; warnings are not failures."""
    return int(any(result.finding.verdict is Verdict.FAIL for result in results))
