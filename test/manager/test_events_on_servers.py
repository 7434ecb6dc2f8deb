"""Recorded events on real API servers, and what kubectl shows of them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from manager.client import Client
from manager.events import EventRecorder
from manager.resources import CONFIGMAPS, EVENTS, EVENTS_V1, NAMESPACES
from manager.testing import eventually
from manager.types import Obj

if TYPE_CHECKING:
    from conftest import Server


@asynccontextmanager
async def recording(client: Client) -> AsyncIterator[EventRecorder]:
    """A recorder that runs during the block; at its end all is written."""
    recorder = EventRecorder(client, "test")
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def about(client: Client, uid: str) -> list[Obj]:
    events = (await client.list(EVENTS)).items
    return sorted(
        (e for e in events if e["involvedObject"].get("uid") == uid), key=lambda e: str(e["metadata"]["name"])
    )


async def test_an_event_about_a_cluster_scoped_object_is_kept_by_every_server(api_server: Server) -> None:
    """The Event is there, without a namespace of its subject, wherever the server wants it to live."""
    uid = uuid.uuid4().hex
    machine = {
        "apiVersion": "karpenter.sh/v1alpha5",
        "kind": "Machine",
        "metadata": {"name": f"system:m-{uid}", "uid": uid},
    }
    async with Client(api_server.config) as client:
        async with recording(client) as recorder:
            recorder.event(machine, "Normal", "First", "one")
            recorder.event(machine, "Normal", "Second", "two")
        found = await about(client, uid)

    assert [event["reason"] for event in found] == ["First", "Second"]


@pytest.mark.acceptance("FW-G14", "FW-G15")
async def test_repeats_are_one_event_whose_count_and_newest_note_kubectl_shows(
    api_server: Server, namespace: str
) -> None:
    """Ten failures with ten messages are one line of ``kubectl describe``."""
    async with Client(api_server.config) as client:
        metadata = {"name": "told", "namespace": namespace}
        subject = await client.create(CONFIGMAPS, {"metadata": metadata})
        async with recording(client) as recorder:
            recorder.event(subject, "Warning", "Failed", "try 0", related=subject)
            await eventually(lambda: about(client, subject["metadata"]["uid"]))
            for number in range(1, 10):
                recorder.event(subject, "Warning", "Failed", f"try {number}", related=subject)
        (event,) = await about(client, subject["metadata"]["uid"])

    assert (event["series"]["count"], event["message"]) == (10, "try 9")
    if api_server.kubectl:
        argv = [api_server.kubectl, f"--kubeconfig={api_server.kubeconfig}", f"-n={namespace}"]
        shown = await asyncio.to_thread(
            subprocess.run, [*argv, "describe", "configmap/told"], capture_output=True, text=True, check=True
        )
        (line,) = (line for line in shown.stdout.splitlines() if "Failed" in line)
        assert "(x10 over" in line
        assert line.endswith("try 9")


@pytest.mark.acceptance("FW-G16")
async def test_an_event_that_somebody_deleted_is_created_anew(api_server: Server, namespace: str) -> None:
    """With the count that it has reached."""
    async with Client(api_server.config) as client:
        subject = await client.create(CONFIGMAPS, {"metadata": {"name": "told", "namespace": namespace}})
        uid = subject["metadata"]["uid"]
        async with recording(client) as recorder:
            recorder.event(subject, "Warning", "Failed", "one")
            (event,) = await eventually(lambda: about(client, uid))
            await client.delete(EVENTS_V1, event["metadata"]["name"], namespace)
            recorder.event(subject, "Warning", "Failed", "two")
        (event,) = await about(client, uid)

    assert (event["series"]["count"], event["message"]) == (2, "two")


@pytest.mark.acceptance("FW-G16")
async def test_a_namespace_that_is_going_takes_no_events_and_nobody_complains(
    api_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The recorder goes on with other namespaces' events."""
    caplog.set_level(logging.INFO, "kaito.manager.events")
    name = f"t-{uuid.uuid4().hex[:10]}"
    going = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": name, "uid": name}}
    staying: Obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}
    staying["metadata"]["uid"] = uuid.uuid4().hex
    async with Client(api_server.config) as client:
        # A finalizer keeps it, as a namespace controller would while it empties it.
        await client.create(NAMESPACES, {"metadata": {"name": name, "finalizers": ["example.com/hold"]}})
        await client.delete(NAMESPACES, name)
        async with recording(client) as recorder:
            recorder.event(going, "Normal", "Lost", "x")
            recorder.event(staying, "Normal", "Kept", "x")
            await eventually(lambda: about(client, staying["metadata"]["uid"]))
        assert await about(client, name) == []
        await client.patch(NAMESPACES, name, {"metadata": {"finalizers": None}})

    assert caplog.records == []
