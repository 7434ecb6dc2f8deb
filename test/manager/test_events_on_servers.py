"""Recorded events on real API servers."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from manager.client import Client
from manager.events import EventRecorder
from manager.resources import EVENTS
from manager.types import Obj

if TYPE_CHECKING:
    from conftest import Server


async def test_an_event_about_a_cluster_scoped_object_is_kept_by_every_server(api_server: Server) -> None:
    """The Event is there, without a namespace of its subject, wherever the server wants it to live."""
    uid = uuid.uuid4().hex
    machine = {
        "apiVersion": "karpenter.sh/v1alpha5",
        "kind": "Machine",
        "metadata": {"name": f"m-{uid}", "uid": uid},
    }
    async with Client(api_server.config) as client:
        recorder = EventRecorder(client, "test")
        writing = asyncio.create_task(recorder.run())
        recorder.event(machine, "Normal", "First", "one")
        recorder.event(machine, "Normal", "Second", "two")
        async with asyncio.timeout(10):
            while len(found := await _about(client, uid)) < 2:
                await asyncio.sleep(0.02)  # the server is asked until the recorder has written
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    assert [event["reason"] for event in found] == ["First", "Second"]


async def _about(client: Client, uid: str) -> list[Obj]:
    events = (await client.list(EVENTS)).items
    return sorted(
        (e for e in events if e["involvedObject"].get("uid") == uid), key=lambda e: str(e["metadata"]["name"])
    )
