"""Asking pods: never in a reconcile's way, never too often, and every answer counts for one process alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from api.progress import LoadProgress, LoadStage, TuneProgress, TuneStage
from controllers.workspace.model import PodReport
from controllers.workspace.podreader import FRESH_SECONDS, HttpPodReader, Reports
from manager.types import Request

Json = dict[str, Any]
WORKSPACE = Request("ns", "w")


def pod(name: str = "p", uid: str = "u", restarts: int = 0, ip: str = "10.0.0.1") -> Json:
    status = {"podIP": ip, "containerStatuses": [{"restartCount": restarts}]}
    return {"metadata": {"name": name, "uid": uid}, "status": status}


def pulling(done: int) -> PodReport:
    return PodReport(progress=LoadProgress(stage=LoadStage.PULLING, bytes_done=done))


class Scripted:
    """A reader that answers what the test says, after a time."""

    def __init__(self, *answers: PodReport, seconds: float = 0.5) -> None:
        self.answers, self.seconds = list(answers), seconds
        self.asked: list[str] = []
        self.at_once = self.most = 0

    async def read(self, pod: Json) -> PodReport:
        self.asked.append(pod["metadata"]["name"])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(self.seconds)
        self.at_once -= 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def close(self) -> None:
        self.asked.append("closed")


@asynccontextmanager
async def running(reader: Scripted) -> AsyncIterator[tuple[Reports, list[Request]]]:
    told: list[Request] = []

    async def tell(request: Request) -> None:
        told.append(request)

    reports = Reports(reader, tell, clock=asyncio.get_running_loop().time)
    task = asyncio.create_task(reports.run())
    try:
        yield reports, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.looptime
async def test_nobody_waits_for_a_pod() -> None:
    """Asking returns at once; the answer comes later and makes the Workspace be looked at."""
    async with running(Scripted(pulling(1))) as (reports, told):
        reports.ask(WORKSPACE, [pod()])
        assert reports.known(WORKSPACE, [pod()]) == {}
        await asyncio.sleep(1)

        assert told == [WORKSPACE]
        assert reports.known(WORKSPACE, [pod()]) == {"p": pulling(1)}


@pytest.mark.looptime
async def test_an_answer_is_fresh_for_a_while_and_old_news_is_no_news() -> None:
    """A fresh answer is not asked for again; the same answer as before tells nobody."""
    reader = Scripted(pulling(1))
    async with running(reader) as (reports, told):
        for _ in range(5):
            reports.ask(WORKSPACE, [pod()])
            await asyncio.sleep(0.7)
        await asyncio.sleep(FRESH_SECONDS)
        reports.ask(WORKSPACE, [pod()])
        await asyncio.sleep(1)

        assert reader.asked == ["p", "p"]
        assert told == [WORKSPACE]


@pytest.mark.looptime
async def test_a_process_that_was_started_anew_is_another() -> None:
    """What the process before said does not count after a restart, nor for a namesake."""
    async with running(Scripted(pulling(1))) as (reports, _):
        reports.ask(WORKSPACE, [pod()])
        await asyncio.sleep(1)

        assert reports.known(WORKSPACE, [pod(restarts=1)]) == {}
        assert reports.known(WORKSPACE, [pod(uid="other")]) == {}
        assert repr(reports) == "<Reports pods=0 waiting=0>"


@pytest.mark.looptime
async def test_many_pods_are_asked_by_a_few_workers() -> None:
    """Pods are asked beside each other, and never more than sixteen at a time."""
    reader = Scripted(pulling(1))
    async with running(reader) as (reports, _):
        pods = [pod(f"p{number}", f"u{number}") for number in range(100)]
        reports.ask(WORKSPACE, pods)
        await asyncio.sleep(4)

        assert len(reports.known(WORKSPACE, pods)) == 100
        assert reader.most == 16


@pytest.mark.looptime
async def test_the_end_closes_the_reader() -> None:
    """Connections go with the task that asks."""
    reader = Scripted(pulling(1))
    async with running(reader):
        await asyncio.sleep(0)

    assert reader.asked == ["closed"]


@asynccontextmanager
async def server(answers: dict[str, web.Response | Json]) -> AsyncIterator[HttpPodReader]:
    async def answer(request: web.Request) -> web.Response:
        found = answers.get(request.path)
        if isinstance(found, web.Response):
            return found
        return web.json_response(found) if found is not None else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader = HttpPodReader(port=runner.addresses[0][1])
    try:
        yield reader
    finally:
        await reader.close()
        await runner.cleanup()


async def test_a_pod_is_asked_over_http() -> None:
    """Both questions are asked, and a server that does not know one of them answers the other."""
    async with server({"/v1/progress": {"stage": "Loading", "secondsLeft": 3.5}}) as reader:
        report = await reader.read(pod(ip="127.0.0.1"))

    assert report == PodReport(progress=LoadProgress(stage=LoadStage.LOADING, seconds_left=3.5))


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_an_answer_behind_a_key_hides_no_other(status: int) -> None:
    """A server that shows its adapters only to holders of its API key still tells how far it is."""
    answers = {"/v1/progress": {"stage": "Loading"}, "/v1/adapters": web.Response(status=status)}
    async with server(answers) as reader:
        report = await reader.read(pod(ip="127.0.0.1"))

    assert report == PodReport(progress=LoadProgress(stage=LoadStage.LOADING))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"stage": "Dancing"}, "another shape"),
        (web.Response(status=503), "HTTP 503"),
        (web.Response(text="<html>"), "Expecting value"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
    ],
    ids=["shape", "error", "html", "redirect"],
)
async def test_a_strange_answer_is_a_report(answer: web.Response | Json, words: str) -> None:
    """Nothing that a pod answers leaves the reader as an error."""
    async with server({"/v1/progress": answer}) as reader:
        report = await reader.read(pod(ip="127.0.0.1"))

    assert words in report.failed
    assert report.progress is None


async def test_a_pod_that_is_not_there_is_a_report() -> None:
    """Neither a closed port nor a missing address is an error."""
    reader = HttpPodReader(port=1)

    assert "127.0.0.1" in (await reader.read(pod(ip="127.0.0.1"))).failed
    assert (await reader.read(pod(ip=""))).failed == "it has no address yet"
    await reader.close()


@pytest.mark.parametrize("kind", ["Job", "ReplicaSet"])
async def test_who_made_a_pod_says_what_its_word_means(kind: str) -> None:
    """A Job's pod tells how far training is; any other how far its server is, in words that are the same."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"stage": "Loading"})

    app = web.Application()
    app.router.add_get("/v1/progress", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked = pod(ip="127.0.0.1")
    asked["metadata"]["ownerReferences"] = [{"kind": kind, "controller": True}]
    async with HttpPodReader(port=runner.addresses[0][1]) as reader:
        report = await reader.read(asked)
    await runner.cleanup()

    expected = {
        "Job": PodReport(tune=TuneProgress(stage=TuneStage.LOADING)),
        "ReplicaSet": PodReport(progress=LoadProgress(stage=LoadStage.LOADING)),
    }
    assert report == expected[kind]
