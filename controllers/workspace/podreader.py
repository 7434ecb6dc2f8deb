"""Asking pods for their own word: how far the model is, and which adapters are loaded.

In: pods. Out: a :class:`PodReport` each. A reconcile never waits for one: :meth:`Reports.look` gives what is known
and has what is old asked again by a few workers; an answer that says something new makes the Workspace be looked
at again. A pod is asked under its own uid and restart count, so that a container that was started anew is not
taken for the one before. All that is kept is the last answer of pods that exist. No error of HTTP leaves here: a
pod that does not answer is a report that says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from pydantic import ValidationError

from api import keys
from api.adapters import ADAPTERS_PATH, ObservedAdapters
from api.progress import PROGRESS_PATH, LoadProgress, TuneProgress
from controllers.workspace.model import PodReport
from controllers.workspace.tuning.runs import of_job
from manager.types import Obj, Request

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("kaito.controllers.workspace.podreader")

LIMIT_SECONDS = 2.0  # for both questions to one pod
FRESH_SECONDS = 4.0  # an answer younger than this is not asked for again
_SAYS_NOTHING = (401, 403, 404)  # not known there, or not told to somebody without its API key
_WORKERS = 16
_WAITING = 1000  # pods that may wait for a worker; beyond it the next reconcile asks
_LONGEST = 1 << 20  # bytes of an answer
_MAX_WORDS = 200  # characters of a failure's text


class PodReader(Protocol):
    """Asks one pod. Never raises for what a pod does; a failure is in the report."""

    async def read(self, pod: Obj) -> PodReport:
        """What the pod says of itself, within ``LIMIT_SECONDS``."""
        ...

    async def close(self) -> None:
        """Let go of what reading needed; it may be read again afterwards."""
        ...


def parse_report(progress: object, adapters: object, *, tuning: bool = False) -> PodReport:
    """A report from two decoded answers; None is a question that the server does not know.

    ``tuning``: the pod tunes, and its progress is a ``TuneProgress``.

    Raises:
        ValueError: an answer has not the shape of the wire models.
    """
    try:
        if tuning:
            return PodReport(tune=TuneProgress.model_validate(progress) if progress is not None else None)
        return PodReport(
            progress=LoadProgress.model_validate(progress) if progress is not None else None,
            adapters=ObservedAdapters.model_validate(adapters) if adapters is not None else None,
        )
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} fields of its answer have another shape") from error


class HttpPodReader:
    """Asks a pod at its own address, as the operator in the cluster can."""

    def __init__(self, port: int = keys.SERVER_PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def read(self, pod: Obj) -> PodReport:
        """See ``PodReader``."""
        import aiohttp

        address = str((pod.get("status") or {}).get("podIP") or "")
        if not address:
            return PodReport(failed="it has no address yet")
        base = f"http://[{address}]:{self._port}" if ":" in address else f"http://{address}:{self._port}"
        if self._session is None:
            # No proxy of the environment, no cookies, no redirects: a pod's word is its own.
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            if of_job(pod):
                return parse_report(await self._get(f"{base}{PROGRESS_PATH}"), None, tuning=True)
            progress, adapters = await asyncio.gather(
                self._get(f"{base}{PROGRESS_PATH}"), self._get(f"{base}{ADAPTERS_PATH}")
            )
            return parse_report(progress, adapters)
        except TimeoutError:
            return PodReport(failed=f"no answer within {LIMIT_SECONDS:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return PodReport(failed=(str(error) or type(error).__name__)[:_MAX_WORDS])

    async def _get(self, url: str) -> object:
        assert self._session is not None  # noqa: S101 - read made it
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status in _SAYS_NOTHING:
                return None
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            answer: object = json.loads(await response.content.read(_LONGEST))
            return answer


class _Key(NamedTuple):
    uid: str
    restarts: int


@dataclass(slots=True)
class _Entry:
    report: PodReport | None = None
    at: float = float("-inf")
    waiting: bool = False


class Reports:
    """See the module. Belongs to one event loop; ``run`` must run for anything to be asked.

    Args:
        reader: asks one pod.
        tell: called for a Workspace when one of its pods said something new.
        clock: seconds, monotonic; by default the event loop's.
    """

    def __init__(
        self,
        reader: PodReader,
        tell: Callable[[Request], Awaitable[None]],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._reader, self._tell, self._clock = reader, tell, clock or _loop_time
        self._known: dict[Request, dict[_Key, _Entry]] = {}
        self._queue: asyncio.Queue[tuple[Request, Obj, _Entry]] = asyncio.Queue(_WAITING)

    def __repr__(self) -> str:
        return f"<Reports pods={sum(map(len, self._known.values()))} waiting={self._queue.qsize()}>"

    def known(self, request: Request, pods: Iterable[Obj]) -> dict[str, PodReport]:
        """The last answers of these pods, by name; what is known of other pods of the Workspace is dropped."""
        before = self._known.get(request, {})
        kept: dict[_Key, _Entry] = {}
        answers: dict[str, PodReport] = {}
        for pod in pods:
            entry = before.get(_key(pod))
            if entry is None:
                continue
            kept[_key(pod)] = entry
            if entry.report is not None:
                answers[pod["metadata"]["name"]] = entry.report
        if kept:
            self._known[request] = kept
        else:
            self._known.pop(request, None)
        return answers

    def ask(self, request: Request, pods: Iterable[Obj]) -> None:
        """Have these pods asked soon, unless their answer is fresh or they are being asked."""
        for pod in pods:
            entry = self._known.setdefault(request, {}).setdefault(_key(pod), _Entry())
            if entry.waiting or self._clock() - entry.at < FRESH_SECONDS or self._queue.full():
                continue
            entry.waiting = True
            self._queue.put_nowait((request, pod, entry))

    def forget(self, request: Request) -> None:
        """The Workspace is gone."""
        self._known.pop(request, None)

    async def run(self) -> None:
        """Ask until cancelled; then the reader is closed."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_WORKERS):
                    group.create_task(self._work(), name=f"pod-reader-{number}")
        finally:
            await self._reader.close()

    async def _work(self) -> None:
        while True:
            request, pod, entry = await self._queue.get()
            report = await self._reader.read(pod)
            news = report != entry.report
            entry.report, entry.at, entry.waiting = report, self._clock(), False
            if news:
                log.debug("pod=%s/%s says %s", request.namespace, pod["metadata"]["name"], report)
                await self._tell(request)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _key(pod: Obj) -> _Key:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return _Key(
        str(pod["metadata"].get("uid") or ""), sum(int(item.get("restartCount") or 0) for item in statuses)
    )
