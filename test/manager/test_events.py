"""What becomes of recorded events: never a problem of the reconciler's, and few writes for many repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from manager.client import Client
from manager.config import RestConfig
from manager.errors import ConnectionFailed, Forbidden, NotFound
from manager.events import EventRecorder
from manager.types import Obj

pytestmark = pytest.mark.looptime

POD: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u"}}
NODE: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x", "uid": "v"}}


class Sink(Client):
    """Takes events instead of a server; a fault is raised once per entry."""

    def __init__(self) -> None:
        super().__init__(RestConfig(server="http://127.0.0.1:1"))
        self.created: list[Obj] = []
        self.patched: list[tuple[str, Obj]] = []
        self.faults: list[Exception] = []

    async def create(self, resource: Any, obj: Obj, **_: Any) -> Obj:
        self._fail()
        self.created.append(obj)
        return obj

    async def patch(self, resource: Any, name: str, patch: Any, **_: Any) -> Obj:
        self._fail()
        self.patched.append((name, patch))
        return {}

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

    @property
    def counts(self) -> list[int]:
        return [patch["series"]["count"] for _, patch in self.patched]


async def recorded(sink: Sink, script: Callable[[EventRecorder], Any], *, settle: float = 60) -> None:
    recorder = EventRecorder(sink, "tester")
    task = asyncio.create_task(recorder.run())
    outcome = script(recorder)
    if asyncio.iscoroutine(outcome):
        await outcome
    await asyncio.sleep(settle)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_fw_g14_repeats_become_a_series_with_few_writes() -> None:
    """The second occurrence is written, later ones are counted and written at most each half minute; the last
    count is written when the series ends."""
    sink = Sink()

    async def script(recorder: EventRecorder) -> None:
        for number in range(50):
            recorder.event(POD, "Warning", "Failed", f"try {number}")
            await asyncio.sleep(1)

    await recorded(sink, script)

    assert len(sink.created) == 1
    assert sink.counts == [2, 32, 50]
    assert sink.patched[-1][1]["note"] == "try 49"


async def test_fw_g14_a_series_that_was_quiet_for_six_minutes_is_finished() -> None:
    """The next occurrence is a new Event; the old one has its true count."""
    sink = Sink()

    async def script(recorder: EventRecorder) -> None:
        for _ in range(3):
            recorder.event(POD, "Normal", "Done", "x")
        await asyncio.sleep(361)
        recorder.event(POD, "Normal", "Done", "x")

    await recorded(sink, script)

    assert len(sink.created) == 2
    assert sink.counts == [2, 3]


async def test_fw_g16_an_expired_event_is_created_anew_and_refusals_are_dropped() -> None:
    """A vanished Event begins a new series, a lost connection is tried again, a refusal is not."""
    sink = Sink()

    async def script(recorder: EventRecorder) -> None:
        recorder.event(POD, "Normal", "A", "first")
        await asyncio.sleep(1)
        sink.faults = [NotFound(404)]
        recorder.event(POD, "Normal", "A", "again")
        await asyncio.sleep(1)
        sink.faults = [ConnectionFailed("gone"), ConnectionFailed("gone")]
        recorder.event(POD, "Normal", "B", "patience")
        await asyncio.sleep(10)
        sink.faults = [Forbidden(403, message="namespace is being terminated")]
        recorder.event(POD, "Normal", "C", "refused")

    await recorded(sink, script)

    assert [(event["reason"], event["note"]) for event in sink.created] == [
        ("A", "first"),
        ("A", "again"),
        ("B", "patience"),
    ]


async def test_an_event_of_a_cluster_scoped_object_lives_in_default() -> None:
    """Its regarding has no namespace."""
    sink = Sink()
    await recorded(sink, lambda recorder: recorder.event(NODE, "Normal", "R", "x" * 2000))
    event = sink.created[0]

    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]
    assert len(event["note"]) == 1024


async def test_recording_never_raises_and_never_blocks() -> None:
    """Nonsense and a full queue are logged; what fits is written."""
    sink = Sink()

    def script(recorder: EventRecorder) -> None:
        recorder.event({"metadata": []}, "Normal", "Nonsense", "x")  # type: ignore[dict-item]
        for number in range(1200):
            recorder.event({**POD, "metadata": {"name": f"p{number}", "namespace": "n"}}, "Normal", "R", "x")

    await recorded(sink, script)

    assert len(sink.created) == 1000


async def test_one_event_that_cannot_be_written_does_not_end_the_recorder() -> None:
    """A bug on the way of one event costs that event only."""
    sink = Sink()
    sink.faults = [TypeError("not serializable")]

    def script(recorder: EventRecorder) -> None:
        recorder.event(POD, "Normal", "Lost", "x")
        recorder.event(POD, "Normal", "Kept", "x")

    await recorded(sink, script)

    assert [event["reason"] for event in sink.created] == ["Kept"]


async def test_what_is_queued_at_the_stop_is_still_written() -> None:
    """The last words of a reconciler are not lost."""
    sink = Sink()
    await recorded(sink, lambda recorder: recorder.event(POD, "Normal", "Bye", "x"), settle=0)

    assert [event["reason"] for event in sink.created] == ["Bye"]
