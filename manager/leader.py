"""A candidate for leadership, as the rest of the process sees it: won, lost, given back; and never two leaders.

The algorithm (``elector``) runs in a thread and an event loop of its own, so that no stall of the controllers'
loop can cost the lease. Out: :meth:`acquired` and :meth:`lost` in the caller's loop. A second thread is the
fence: if leader's work still runs when the lease, counted from the last renewal that succeeded, has ended, the
process is ended hard, whatever state its loops are in. Two leaders are worse than none. The fence needs nobody's
help, not even that of logging; work that has ended, or that never began, is no reason for it to fall.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from manager.client import Client
from manager.config import RestConfig
from manager.elector import Elector, boottime
from manager.errors import ManagerError
from manager.lease import LeaderElection as LeaderElection
from manager.lease import LeaseLock

log = logging.getLogger("kaito.manager.leader")

_FENCED_EXIT = 70
_FENCE_LOOK = 1.0  # seconds between looks at most: a sleep does not count time of a suspended machine


class LeaderElector:
    """See the module. An async context manager: leaving it means that the leader's work has ended.

    Args:
        config: the API server; the elector has a client of its own.
        election: what to hold.
        user_agent: of that client; a suffix tells its requests from the others.
        working: whether leader's work still runs, asked from the fence's thread; None: until the context is left.
        fence: ends the process; replaced in tests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: RestConfig,
        election: LeaderElection,
        *,
        user_agent: str = "kaito",
        working: Callable[[], bool] | None = None,
        fence: Callable[[], None] | None = None,
        clock: Callable[[], float] = boottime,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config
        self._election = election
        self._user_agent = f"{user_agent}/leader-election"
        self._working = working or (lambda: True)
        self._fence = fence or _exit_hard
        self._clock = clock
        self._rng = rng
        self._acquired = asyncio.Event()
        self._lost = asyncio.Event()
        self._main: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._over = threading.Event()  # no work can run any more: the fence may go
        self._release = False
        self._leads = False
        self._renewed_at = 0.0
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        return f"<LeaderElector {self._election.lease_name} {'leads' if self._leads else 'does not lead'}>"

    @property
    def identity(self) -> str:
        """How this process signs the lease."""
        return self._election.identity

    async def acquired(self) -> None:
        """Wait until this process leads.

        Raises:
            ManagerError: the elector itself failed, and will not acquire anything any more.
        """
        await self._acquired.wait()
        if self._failure is not None:
            raise ManagerError(f"leader election failed: {self._failure!r}") from self._failure

    async def lost(self) -> None:
        """Wait until this process has led and does so no more. The fence stays up until the work has ended."""
        await self._lost.wait()

    def problem(self) -> str | None:
        """For a health check: a leader whose lease ran out, and for the tolerance nobody noticed, hangs."""
        limit = self._election.lease_duration + self._election.health_tolerance
        if self._leads and self._clock() > self._renewed_at + limit:
            return "the lease was not renewed in its time"
        return None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to try, in a thread of its own."""
        self._main = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="leader-election", daemon=True)
        self._thread.start()

    async def stop(self, *, work_ended: bool = True) -> None:
        """Stop, and wait until the lease has been given back (where that is wished). A candidate that is stopped
        does not become leader.

        Args:
            work_ended: False when leader's work could not be stopped: then the lease is neither renewed nor given
                back, and the fence stays up.
        """
        if self._thread is None:
            return
        if work_ended:
            self._over.set()
        self._release = work_ended and self._election.release_on_cancel
        await asyncio.to_thread(self._started.wait)
        if self._loop is not None and self._task is not None:
            try:
                self._loop.call_soon_threadsafe(self._task.cancel)
            except RuntimeError:
                pass  # the thread's loop has ended already
        await asyncio.to_thread(self._thread.join, self._election.renew_deadline + self._election.request_timeout)

    # ------------------------------------------------------------------ in the elector's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._elect())
        except asyncio.CancelledError:
            pass  # stopped
        except Exception as error:
            log.exception("leader election failed")
            self._failure = error
            self._call_main(self._acquired.set)  # whoever waits for leadership must hear that it will not come
        finally:
            self._started.set()
            if self._leads:
                self._leads = False
                self._call_main(self._lost.set)

    async def _elect(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        election = self._election
        async with Client(self._config, user_agent=self._user_agent, field_manager="leader-election") as client:
            elector = Elector(
                LeaseLock(client, election), election, clock=self._clock, rng=self._rng, renewed=self._renewed
            )
            try:
                await elector.acquire()
                self._leads = True
                threading.Thread(target=self._guard, name="leader-fence", daemon=True).start()
                self._call_main(self._acquired.set)
                await elector.renew()
                return  # lost: there is nothing to give back
            except asyncio.CancelledError:
                self._leads = False
                if self._release:
                    await elector.release()
                raise

    def _renewed(self, at: float) -> None:
        self._renewed_at = at

    def _call_main(self, call: Callable[[], None]) -> None:
        try:
            if self._main is not None:
                self._main.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the main loop has ended; nobody needs to know any more

    # ------------------------------------------------------------------ in the fence's thread

    def _guard(self) -> None:
        while True:
            left = self._renewed_at + self._election.lease_duration - self._clock()
            if left <= 0 and self._working():
                if not self._over.is_set():
                    self._fence()
                return
            if left <= 0 and not self._leads:
                return
            # Leading without work, past the lease: look again soon, for work may be added.
            if self._over.wait(min(left, _FENCE_LOOK) if left > 0 else 0.05):
                return


def _exit_hard() -> None:
    """End the process now. The word must not hold up the deed: logging may be what is stuck."""
    words = threading.Thread(
        target=log.critical, args=("the lease has ended and the leader's work has not: exiting now",), daemon=True
    )
    words.start()
    words.join(0.2)
    os._exit(_FENCED_EXIT)
