"""What becomes of recorded events: never a problem of the reconciler's, and few writes for many repeats."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from manager.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
)
from manager.events import EventRecorder, Verdict, classify
from manager.types import Obj, Resource

pytestmark = pytest.mark.looptime

POD: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"}}
NODE: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x", "uid": "v"}}
ENDING = Forbidden(
    403, "Forbidden", "it is being terminated", {"causes": [{"reason": "NamespaceTerminating", "field": "m"}]}
)


class Sink:
    """Takes events instead of a server; raises one fault per write while there are any, or waits as told."""

    def __init__(self) -> None:
        self.created: list[Obj] = []
        self.patched: list[tuple[str, Obj]] = []
        self.tries: list[float] = []
        self.faults: list[Exception] = []
        self.core_patches_allowed = True
        self.seconds = 0.0
        self.busy = self.most_busy = 0

    async def create(self, resource: Resource, obj: Obj, *, namespace: str | None = None) -> Obj:
        await self._answer()
        self.created.append(obj)
        return obj

    async def patch(self, resource: Resource, name: str, patch: Obj, *, namespace: str | None = None) -> Obj:
        if not resource.group and not self.core_patches_allowed:
            raise Forbidden(403, "Forbidden", "events is forbidden")
        await self._answer()
        self.patched.append((name, patch))
        return {}

    async def _answer(self) -> None:
        self.tries.append(asyncio.get_running_loop().time())
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        if self.faults:
            raise self.faults.pop(0)

    @property
    def counts(self) -> list[int]:
        return [patch["series"]["count"] for _, patch in self.patched]

    @property
    def notes(self) -> list[str]:
        return [event["note"] for event in self.created]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@asynccontextmanager
async def recording(sink: Sink, component: str = "tester", *, seed: int = 1) -> AsyncIterator[EventRecorder]:
    """A recorder that runs during the block."""
    recorder = EventRecorder(sink, component, rng=random.Random(seed))
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    yield recorder
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ------------------------------------------------------------------ series


@pytest.mark.acceptance("FW-G14")
async def test_the_first_creates_the_second_patches_later_ones_are_refreshed(sink: Sink) -> None:
    """The count is 2 at once; then it is written after 30 s, 60 s, 120 s; the last one when six minutes have
    passed without a repeat. The newest note is shown."""
    async with recording(sink) as recorder:
        for number in range(240):
            recorder.event(POD, "Warning", "Failed", f"try {number}")
            await asyncio.sleep(1)
        await asyncio.sleep(400)

    assert len(sink.created) == 1
    assert sink.counts[0] == 2
    assert sink.counts[-1] == 240
    assert len(sink.counts) == 5
    assert sink.patched[-1][1]["message"] == "try 239"


@pytest.mark.acceptance("FW-G14")
async def test_a_series_that_was_quiet_for_six_minutes_is_finished(sink: Sink) -> None:
    """The next occurrence is a new Event under a new name."""
    async with recording(sink) as recorder:
        recorder.event(POD, "Normal", "Done", "x")
        await asyncio.sleep(1)
        recorder.event(POD, "Normal", "Done", "x")
        await asyncio.sleep(375)
        recorder.event(POD, "Normal", "Done", "x")
        await asyncio.sleep(1)

    assert len({event["metadata"]["name"] for event in sink.created}) == 2
    assert sink.counts == [2]


@pytest.mark.acceptance("FW-G14")
async def test_an_event_says_who_reports_what_about_which_object(sink: Sink) -> None:
    """The reporting instance is the component and the host, cut to what the API takes."""
    async with recording(sink, "c" * 60 + "." + "d" * 60) as recorder:
        recorder.event(POD, "Warning", "R" * 200, "n" * 2000, action="A" * 200, related=NODE)
        recorder.event(POD, "Normal", "R", "\N{SNOWMAN}" * 1000, action="")
        await asyncio.sleep(1)
    first, second = sink.created

    assert first["regarding"] == {"apiVersion": "v1", "kind": "Pod", "namespace": "n", "name": "p", "uid": "u"}
    assert first["related"] == {"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "v"}
    assert first["reportingController"] == recorder.component
    assert first["reportingInstance"] == f"{recorder.component}-{socket.gethostname()}"[:128]
    assert (len(first["reason"]), len(first["action"]), len(first["note"])) == (128, 128, 1024)
    assert (second["action"], second["note"]) == ("Reconcile", "\N{SNOWMAN}" * 341)
    assert first["metadata"]["namespace"] == "n"
    assert first["metadata"]["name"].startswith("p.")
    assert first["metadata"]["name"] < second["metadata"]["name"]


async def test_any_object_gives_a_name_that_servers_take(sink: Sink) -> None:
    """RBAC's names have colons, and a name may be as long as the server allows any name to be."""
    async with recording(sink) as recorder:
        recorder.event({**NODE, "metadata": {"name": "system:Node"}}, "Normal", "R", "x")
        recorder.event({**NODE, "metadata": {"name": "n" * 253}}, "Normal", "R", "x")
        recorder.event({**NODE, "metadata": {}}, "Normal", "R", "x")
        await asyncio.sleep(1)
    names = [event["metadata"]["name"] for event in sink.created]

    assert names[0].startswith("system-node.")
    assert len(names[1]) <= 253
    assert names[2].startswith("event.")


async def test_an_event_of_a_cluster_scoped_object_lives_in_default_or_where_the_server_wants_it(
    sink: Sink,
) -> None:
    """A refusal sends it, and all that follow, to kube-system."""
    async with recording(sink) as recorder:
        recorder.event(NODE, "Normal", "A", "x")
        await asyncio.sleep(1)
        sink.faults = [Invalid(422)]
        recorder.event(NODE, "Normal", "B", "x")
        await asyncio.sleep(1)
        recorder.event(NODE, "Normal", "C", "x")
        recorder.event(NODE, "Normal", "B", "x")
        await asyncio.sleep(1)

    assert [event["metadata"]["namespace"] for event in sink.created] == ["default", "kube-system", "kube-system"]
    assert len(sink.tries) == 5
    assert "namespace" not in sink.created[0]["regarding"]
    assert sink.counts == [2]


async def test_where_core_events_may_not_be_patched_the_first_note_stays(sink: Sink) -> None:
    """The count is told all the same, and the account is asked once only."""
    sink.core_patches_allowed = False
    async with recording(sink) as recorder:
        for number in range(2):
            recorder.event(POD, "Normal", "A", f"try {number}")
            recorder.event(POD, "Normal", "B", f"try {number}")
            await asyncio.sleep(1)

    assert [patch for _, patch in sink.patched] == [
        {"series": {"count": 2, "lastObservedTime": patch["series"]["lastObservedTime"]}}
        for _, patch in sink.patched
    ]
    assert len(sink.patched) == 2


# ------------------------------------------------------------------ errors


@pytest.mark.acceptance("FW-G16")
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionFailed("reset"), Verdict.RETRY),
        (ServerError(500), Verdict.RETRY),
        (ServerError(503), Verdict.RETRY),
        (TooManyRequests(429), Verdict.RETRY),
        (BadRequest(400), Verdict.REFUSED),
        (Forbidden(403), Verdict.REFUSED),
        (Conflict(409), Verdict.REFUSED),
        (Invalid(422), Verdict.REFUSED),
        (ENDING, Verdict.NOWHERE),
        (NotFound(404), Verdict.NOWHERE),
        (TypeError("not serializable"), Verdict.BUG),
    ],
    ids=lambda value: value.name if isinstance(value, Verdict) else repr(value)[:30],
)
def test_what_an_error_of_a_write_means(error: Exception, verdict: Verdict) -> None:
    """Only what may pass is worth another try."""
    assert classify(error) is verdict


@pytest.mark.acceptance("FW-G16")
async def test_an_event_that_has_expired_is_created_anew_with_its_count(sink: Sink) -> None:
    """A series outlives the server's time to live, and somebody's deletion."""
    async with recording(sink) as recorder:
        recorder.event(POD, "Normal", "A", "first")
        await asyncio.sleep(1)
        sink.faults = [NotFound(404)]
        recorder.event(POD, "Normal", "A", "again")
        await asyncio.sleep(1)

    assert sink.notes == ["first", "again"]
    assert sink.created[0]["metadata"] == sink.created[1]["metadata"]
    assert sink.created[0]["eventTime"] == sink.created[1]["eventTime"]
    assert sink.created[1]["series"]["count"] == 2


@pytest.mark.acceptance("FW-G16")
@pytest.mark.parametrize("fault", [ConnectionFailed("gone"), ServerError(503)])
async def test_a_write_is_tried_twelve_times_over_about_two_minutes(sink: Sink, fault: Exception) -> None:
    """Ten to twelve and a half seconds apart; then the event is lost, and the next occurrence is a new one."""
    async with recording(sink) as recorder:
        sink.faults = [fault] * 12
        recorder.event(POD, "Normal", "A", "lost")
        await asyncio.sleep(200)
        recorder.event(POD, "Normal", "A", "new")
        await asyncio.sleep(1)
    waits = [later - earlier for earlier, later in zip(sink.tries[:12], sink.tries[1:12], strict=False)]

    assert len(waits) == 11
    assert all(10 <= wait <= 12.5 for wait in waits)
    assert len(set(waits)) > 1
    assert sink.notes == ["new"]
    assert "series" not in sink.created[0]


@pytest.mark.acceptance("FW-G16")
async def test_a_write_that_succeeds_later_is_told_with_all_that_occurred_meanwhile(sink: Sink) -> None:
    """One write, not one for each."""
    async with recording(sink) as recorder:
        sink.faults = [ConnectionFailed("gone")] * 3
        for _ in range(20):
            recorder.event(POD, "Normal", "A", "x")
            await asyncio.sleep(1)
        await asyncio.sleep(30)

    assert [event["series"]["count"] for event in sink.created] == [20]
    assert sink.counts == []


@pytest.mark.acceptance("FW-G16")
async def test_an_answer_that_was_lost_is_not_written_twice(sink: Sink) -> None:
    """The server has the Event already: what it does not know yet is patched."""
    async with recording(sink) as recorder:
        sink.faults = [ConnectionFailed("reset"), AlreadyExists(409)]
        recorder.event(POD, "Normal", "A", "x")
        await asyncio.sleep(1)
        recorder.event(POD, "Normal", "A", "x")
        await asyncio.sleep(20)

    assert sink.created == []
    assert sink.counts == [2]


@pytest.mark.acceptance("FW-G16")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Forbidden(403, message="no"), "event refused reason=A object=p error=no"),
        (Invalid(422, message="bad"), "event refused reason=A object=p error=bad"),
        (TypeError("not serializable"), "event dropped reason=A object=p error=not serializable"),
        (ENDING, None),
        (NotFound(404), None),
    ],
    ids=["forbidden", "invalid", "bug", "namespace terminating", "namespace gone"],
)
async def test_a_refusal_costs_one_event_and_one_line(
    sink: Sink, fault: Exception, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Not tried again, and not a word where the namespace is going; the recorder goes on."""
    caplog.set_level(logging.INFO, "kaito.manager.events")
    async with recording(sink) as recorder:
        sink.faults = [fault]
        recorder.event(POD, "Normal", "A", "refused")
        await asyncio.sleep(100)
        recorder.event(POD, "Normal", "B", "taken")
        await asyncio.sleep(1)

    assert sink.notes == ["taken"]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.startswith(words) for line in lines] == [True] if words else lines == []


# ------------------------------------------------------------------ limits


@pytest.mark.acceptance("FW-G15")
async def test_differing_notes_are_one_event(sink: Sink) -> None:
    """A loop of ever new messages is not a loop of writes."""
    async with recording(sink) as recorder:
        for number in range(100):
            recorder.event(POD, "Warning", "Failed", f"request {number} failed")
            await asyncio.sleep(0.1)

    assert len(sink.created) == 1
    assert sink.counts[-1] == 100
    assert len(sink.counts) <= 2


@pytest.mark.acceptance("FW-G15")
async def test_similar_events_are_combined_from_the_tenth_on(sink: Sink) -> None:
    """They say so, and count."""
    async with recording(sink) as recorder:
        for number in range(40):
            recorder.event(POD, "Normal", "Created", f"pod {number}", action=f"Create-{number}")
            await asyncio.sleep(0.1)

    assert sink.notes == [*(f"pod {number}" for number in range(9)), "(combined from similar events): pod 9"]
    assert sink.patched[-1][1]["message"] == "(combined from similar events): pod 39"
    assert sink.counts[-1] == 31


@pytest.mark.acceptance("FW-G15")
async def test_an_object_has_twenty_five_new_events_and_then_one_each_five_minutes(
    sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """What there is goes on counting, other objects have their own, and the log says how many were dropped."""
    async with recording(sink) as recorder:
        for number in range(40):
            recorder.event(POD, "Normal", f"Reason{number}", "x")
        recorder.event(NODE, "Normal", "Reason", "x")
        recorder.event(POD, "Normal", "Reason3", "x")
        await asyncio.sleep(20)
        assert len(sink.created) == 26
        await asyncio.sleep(285)
        recorder.event(POD, "Normal", "Reason30", "x")
        recorder.event(POD, "Normal", "Reason31", "x")
        await asyncio.sleep(1)

    assert [event["reason"] for event in sink.created[26:]] == ["Reason30"]
    assert [event["reason"] for event in sink.created if "series" in event] == ["Reason3"]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings[0] == "event dropped, too many about its object reason=Reason25 object=p"
    assert warnings[1] == "events dropped component=tester count=15"


# ------------------------------------------------------------------ never in the way


def pods(count: int) -> list[Obj]:
    return [{**POD, "metadata": {"name": f"p{number}", "namespace": "n"}} for number in range(count)]


async def test_recording_never_raises(sink: Sink) -> None:
    """Nonsense is logged, and what is no nonsense is written."""
    nonsense: Any = object()
    async with recording(sink) as recorder:
        recorder.event({"metadata": [1]}, "Normal", "Nonsense", "x")  # type: ignore[dict-item]
        recorder.event(nonsense, "Normal", "Nonsense", "x")
        recorder.event(POD, nonsense, "Nonsense", nonsense)
        recorder.event(POD, "Normal", nonsense, "x")
        recorder.event(POD, "Normal", "Sense", "x")
        await asyncio.sleep(1)

    assert [event["reason"] for event in sink.created] == ["Sense"]


async def test_a_full_queue_drops(sink: Sink) -> None:
    """A thousand wait; nobody waits for room, and what was dropped is told anew when it occurs again."""
    async with recording(sink) as recorder:
        for pod in pods(1200):
            recorder.event(pod, "Normal", "R", "x")
        await asyncio.sleep(1)
        assert len(sink.created) == 1000
        recorder.event(pods(1200)[-1], "Normal", "R", "x")
        await asyncio.sleep(1)

    assert len(sink.created) == 1001


async def test_eight_write_at_once(sink: Sink) -> None:
    """And never two of them one series."""
    sink.seconds = 1
    async with recording(sink) as recorder:
        for pod in pods(20):
            recorder.event(pod, "Normal", "R", "x")
        await asyncio.sleep(2.5)
        assert sink.most_busy == 8
        await asyncio.sleep(2)
        sink.most_busy = 0
        for _ in range(10):
            recorder.event(NODE, "Normal", "R", "x")
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)

    assert sink.most_busy == 1
    assert len(sink.created) == 21


async def test_threads_may_record(sink: Sink) -> None:
    """What a reconciler does in a thread can tell of it there."""
    async with recording(sink) as recorder:
        await asyncio.to_thread(recorder.event, POD, "Normal", "Threaded", "x")
        await asyncio.sleep(1)

    assert [event["reason"] for event in sink.created] == ["Threaded"]


async def test_what_was_recorded_before_the_start_is_written(sink: Sink) -> None:
    """A reconciler need not know whether the recorder runs."""
    recorder = EventRecorder(sink, "tester")
    recorder.event(POD, "Normal", "Early", "x")
    assert sink.created == []
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert [event["reason"] for event in sink.created] == ["Early"]


async def test_what_is_unsaid_at_the_stop_is_still_written(sink: Sink) -> None:
    """The last words of a reconciler, a count that waits for its refresh, and a write that was under way."""
    sink.seconds = 0.5
    async with recording(sink) as recorder:
        for _ in range(2):
            recorder.event(POD, "Normal", "Counted", "x")
            await asyncio.sleep(1)
        recorder.event(POD, "Normal", "Counted", "x")
        recorder.event(POD, "Normal", "UnderWay", "x")
        await asyncio.sleep(0.2)
        recorder.event(POD, "Normal", "Bye", "x")

    assert sorted(event["reason"] for event in sink.created) == ["Bye", "Counted", "UnderWay"]
    assert sink.counts == [2, 3]


async def test_a_server_that_does_not_answer_cannot_hold_up_the_stop(sink: Sink) -> None:
    """Two seconds are all that it gets."""
    sink.seconds = 1000
    loop = asyncio.get_running_loop()
    async with recording(sink) as recorder:
        recorder.event(POD, "Normal", "Lost", "x")
        await asyncio.sleep(5)
        stopped = loop.time()

    assert loop.time() - stopped <= 2.1


async def test_errors_of_an_api_that_answers_nonsense_do_not_end_the_recorder(sink: Sink) -> None:
    """Details that are no details are looked at with care."""
    async with recording(sink) as recorder:
        sink.faults = [ApiError(409, details={"causes": None})]
        recorder.event(POD, "Normal", "A", "x")
        await asyncio.sleep(1)
        recorder.event(POD, "Normal", "B", "x")
        await asyncio.sleep(1)

    assert [event["reason"] for event in sink.created] == ["B"]
