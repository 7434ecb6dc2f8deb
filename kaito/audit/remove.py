"""Removing orphaned instances, one after the other, each looked at again at the last moment.

In: the findings of an audit that a person has agreed to. Out: which are gone, and why the others are not. Only an
instance that the provider calls ours is ever deleted: its ``list`` and ``get`` refuse everything else, and
``list`` is where the findings come from. A Machine that has appeared since, keeps its instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from controllers.audit import Finding, Rates, audit
from controllers.settings import utc_now
from kaito.audit.gather import gather
from kaito.console import step
from manager.client import Client
from provisioner import CloudProvider
from provisioner.errors import CloudError, CloudUnavailable, NotFound, OperationInProgress, Throttled

_LATER = (OperationInProgress, Throttled, CloudUnavailable)
_LONGEST_PAUSE = 15.0


async def remove(
    provider: CloudProvider, client: Client, orphans: Sequence[Finding], *, grace: float, timeout: float
) -> dict[str, str]:
    """Delete the orphans and wait until they are gone; what could not be done, by name and with its reason."""
    again = audit(await gather(provider, client), utc_now(), Rates(), grace=grace)
    still = {item.name for item in again.orphans}
    failed: dict[str, str] = {}
    deadline = time.monotonic() + timeout
    for orphan in orphans:
        if orphan.name not in still:
            continue  # somebody else deleted it, or a Machine has it now
        with step(f"instance {orphan.name} deleted") as line:
            try:
                await _remove_one(provider, orphan.name, deadline, partial(setattr, line, "detail"))
            except CloudError as error:
                failed[orphan.name] = f"{error.reason}: {error.message}. {error.next_step}"
            except TimeoutError:
                failed[orphan.name] = f"it was still there after {timeout:.0f} s; look again with kaito audit"
    return failed


async def _remove_one(provider: CloudProvider, name: str, deadline: float, say: Callable[[str], None]) -> None:
    token = ""

    async def start() -> float | None:
        nonlocal token
        token = await provider.delete(name)
        return None

    async def gone() -> float | None:
        return (await provider.resume(name, token)).look_again or provider.poll_interval

    await _patiently(start, deadline, say)
    while (pause := await _patiently(gone, deadline, say)) is not None:
        await _sleep(pause, deadline)


async def _patiently(
    call: Callable[[], Awaitable[float | None]], deadline: float, say: Callable[[str], None]
) -> float | None:
    """The call's answer, asked for again as long as the cloud says "later"; None when nothing is there."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except NotFound:
            return None
        except CloudError as error:
            if not isinstance(error, _LATER):
                raise
            say(error.message)
            await _sleep(error.retry_delay(attempt), deadline)


async def _sleep(seconds: float, deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeoutError
    await asyncio.sleep(min(seconds, _LONGEST_PAUSE))
