"""The complaints that users of such operators have most, each provoked on real API servers.

What is asserted is what a user sees: the condition, the event, and the first lines of ``kaito explain``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from controllers.resources import WORKSPACES
from controllers.workspace import pace, podreader
from kaito.explain.chain import Chain
from kaito.explain.render import render
from kaito.explain.run import explain
from manager.errors import NotFound
from manager.resources import CONFIGMAPS, DEPLOYMENTS, EVENTS_V1, NODES, PODS
from provisioner.testing import Fault

pytestmark = pytest.mark.timeout(90)
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods are asked again after moments instead of seconds; the order of things stays as it is."""
    monkeypatch.setattr(pace, "_SOONEST", 0.2)
    monkeypatch.setattr(podreader, "FRESH_SECONDS", 0.1)


async def explained(world: Any, subject: str = "w") -> tuple[Chain, list[str]]:
    chain = await explain(world.client, subject, world.namespace)
    return chain, render(chain).splitlines()


async def event(world: Any, reason: str, words: str = "") -> Json:
    """Wait for an event about the Workspace."""
    for _ in range(300):
        for item in (await world.client.list(EVENTS_V1, world.namespace)).items:
            about = item["regarding"]
            if (item["reason"], about["kind"]) == (reason, "Workspace") and words in item["note"]:
                return dict(item)
        await asyncio.sleep(0.05)
    raise AssertionError(f"no event {reason} about the workspace")


async def the_pod(world: Any) -> Json:
    async def check() -> Json | None:
        pods = (await world.client.list(PODS, world.namespace)).items
        return next((pod for pod in pods if (pod.get("status") or {}).get("containerStatuses")), None)

    return await until(check)


async def until(check: Any) -> Any:
    for _ in range(600):
        if found := await check():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen")


# ------------------------------------------------------------------ 1: never ready, and nothing says why


@pytest.mark.parametrize(
    ("code", "reason", "turn"),
    [
        ("QuotaExceeded", "QuotaExceeded", "yours"),
        ("SkuNotAvailable", "SkuNotAvailable", "yours"),
        ("CapacityUnavailable", "CapacityUnavailable", "the cloud's"),
    ],
    ids=["quota", "sku", "capacity"],
)
async def test_theme1_the_refusal_of_a_cloud(world: Any, code: str, reason: str, turn: str) -> None:
    """Quota, type and capacity are in condition, event and explanation, in the cloud's words."""
    world.cloud.faults.append(Fault("create", code, "0 of 6 vCPUs are left", times=1000))
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", reason)
        warned = await event(world, reason)
        chain, lines = await explained(world)

    assert "0 of 6 vCPUs are left" in told["message"]
    assert warned["type"] == "Warning"
    assert lines[0] == f"Workspace {world.namespace}/w: Pending, {reason} (turn: {turn})"
    assert chain.exit_code == 1
    assert any(item.who == "cloud" and "0 of 6 vCPUs" in item.text and item.bad for item in chain.moments)
    assert chain.to_obj()["blocking"]["next"][0].startswith("kubectl describe machine ws") or turn != "yours"


async def test_theme1_an_image_that_is_not_there(world: Any) -> None:
    """A typo in the image is told with the image's name, not as a workload that is pending."""
    world.pods_fail = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "ImagePullFailed")
        await event(world, "ImagePullFailed")
        _, lines = await explained(world)

    assert "example.com/kaito" in told["message"]
    assert "manifest unknown" in told["message"]
    assert lines[0].endswith("ImagePullFailed (turn: yours)")


# ------------------------------------------------------------------ 2: sized wrong, so it crashes again and again


@pytest.mark.parametrize(
    ("ended", "reason", "words"),
    [
        (
            {"exitCode": 1, "reason": "Error", "message": "INFO loading\nValueError: KV cache needs 9.1 GiB\n"},
            "CrashLoop",
            "ValueError: KV cache needs 9.1 GiB",
        ),
        ({"exitCode": 137, "reason": "OOMKilled"}, "OutOfMemory", "more memory"),
    ],
    ids=["engine", "killed"],
)
async def test_theme2_a_model_that_does_not_fit(world: Any, ended: Json, reason: str, words: str) -> None:
    """The exit code and the last line that the engine said are in the condition; the next step is its log."""
    world.pods_fail = {"terminated": ended}
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", reason)
        await event(world, reason)
        chain, lines = await explained(world)

    assert words in told["message"]
    assert "INFO loading" not in told["message"]
    assert lines[0].endswith(f"{reason} (turn: yours)")
    assert chain.to_obj()["blocking"]["next"] == [f"kaito logs w -n {world.namespace} --previous"]


# ------------------------------------------------------------------ 3: deletion sticks


async def test_theme3_a_deletion_that_does_not_end(world: Any) -> None:
    """While the cloud does not let go, the Workspace says for what it waits, and so does the explanation."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        world.cloud.auto = False
        await world.client.delete(WORKSPACES, "w", world.namespace)
        told = await world.becomes("WorkspaceReady", "False", "Deleting")
        _, lines = await explained(world)
        (machine,) = await world.machines()
        name = machine["metadata"]["name"]
        of_machine, _ = await explained(world, f"machine/{name}")
        await event(world, "workspaceDeleted")

        async def asked() -> bool:
            return bool(world.cloud.instances[name]["state"] == "Deleting")

        await until(asked)
        await world.cloud.finish(name)
        await world.gone()

    assert name in told["message"]
    assert lines[0] == f"Workspace {world.namespace}/w: Deleting (turn: the operator's)"
    assert of_machine.state == "Deleting"


# ------------------------------------------------------------------ 4: the GPUs that I have


async def test_theme4_a_node_of_mine_that_cannot_be_used(world: Any) -> None:
    """A node that matches and shows no GPU is named; nothing is bought in its place."""
    world.gpus = "0"
    name = f"byo-{world.namespace}"
    await world.add_node(name, {**world.labels, "node.kubernetes.io/instance-type": "Standard_NC6s_v3"})
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "GpuNotVisible")
        warned = await event(world, "GpuNotVisible")
        chain, lines = await explained(world)

    assert name in told["message"]
    assert warned["type"] == "Warning"
    assert world.cloud.creates == []
    assert lines[0].endswith("GpuNotVisible (turn: yours)")
    assert chain.to_obj()["blocking"]["next"] == [f"kubectl describe node {name}"]


# ------------------------------------------------------------------ 5 and 6: adapters that come, go and lie


ADAPTED = {
    "preset": {"name": "phi-3-mini-4k-instruct"},
    "adapters": [{"source": {"name": "a", "image": "example.com/a:1"}}],
}


def adapters_answer(
    revision: str, state: str = "Loaded", image: str = "example.com/a:1", message: str = ""
) -> Json:
    return {
        "revision": revision,
        "adapters": [{"name": "a", "state": state, "image": image, "message": message}],
    }


async def wanted_revision(world: Any, image: str) -> str:
    """Wait until the list that the pods read names the image; its revision."""

    async def check() -> str | None:
        try:
            stored = await world.client.get(CONFIGMAPS, "w-adapters", world.namespace)
        except NotFound:
            return None
        wanted = json.loads(stored["data"]["adapters.json"])
        return wanted["revision"] if [item["image"] for item in wanted["adapters"]] == [image] else None

    return str(await until(check))


async def test_theme5_an_adapter_is_swapped_under_a_serving_pod(world: Any) -> None:
    """While a pod works on the new adapter the Workspace stays Ready; the swap has a condition of its own."""
    answers: Json = {}
    async with pod_server(world, answers):
        await world.create(inference=ADAPTED)
        async with world.operator():
            first = await wanted_revision(world, "example.com/a:1")
            answers["/v1/adapters"] = adapters_answer(first)
            await world.becomes("AdaptersReady", "True", "AdaptersLoaded")
            await world.becomes("WorkspaceReady", "True")
            before = await the_pod(world)
            edit = {"adapters": [{"source": {"name": "a", "image": "example.com/a:2"}}]}
            await world.client.patch(WORKSPACES, "w", {"inference": edit}, namespace=world.namespace)
            second = await wanted_revision(world, "example.com/a:2")
            await world.becomes("AdaptersReady", "False", "AdaptersOutdated")
            chain, lines = await explained(world)
            ready = await world.conditions()
            answers["/v1/adapters"] = adapters_answer(second, "Pulling", "example.com/a:2")
            await world.becomes("AdaptersReady", "False", "AdaptersLoading")
            await event(world, "AdaptersLoading")
            answers["/v1/adapters"] = adapters_answer(second, image="example.com/a:2")
            await world.becomes("AdaptersReady", "True")
            after, status = await the_pod(world), (await world.get())["status"]

    assert first != second
    assert ready["WorkspaceReady"][0] == ready["InferenceReady"][0] == "True"
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert lines[0] == f"Workspace {world.namespace}/w: Ready"
    assert [item.reason for item in chain.beside] == ["AdaptersOutdated"]
    assert status["adapters"] == [
        {
            "pod": after["metadata"]["name"],
            "state": "Loaded",
            "revision": second,
            "adapters": [{"name": "a", "state": "Loaded"}],
        }
    ]


async def test_theme6_an_adapter_that_failed_or_was_lost_is_not_called_loaded(world: Any) -> None:
    """A failure, a server that forgot, and one that is silent are each told, with the pod and its own words."""
    answers: Json = {}
    async with pod_server(world, answers):
        await world.create(inference=ADAPTED)
        async with world.operator():
            revision = await wanted_revision(world, "example.com/a:1")
            answers["/v1/adapters"] = adapters_answer(revision, "Failed", message="rank 64 is more than 16")
            told = await world.becomes("AdaptersReady", "False", "AdapterFailed")
            warned = await event(world, "AdapterFailed")
            chain, lines = await explained(world)
            answers["/v1/adapters"] = {"revision": "", "adapters": []}
            await world.becomes("AdaptersReady", "False", "AdaptersOutdated")
            del answers["/v1/adapters"]
            await world.becomes("AdaptersReady", "Unknown", "AdaptersUnknown")
            await world.becomes("WorkspaceReady", "True")
            pod = await the_pod(world)

    assert pod["metadata"]["name"] in told["message"]
    assert "rank 64 is more than 16" in told["message"]
    assert warned["type"] == "Warning"
    assert lines[0] == f"Workspace {world.namespace}/w: Ready"
    assert chain.exit_code == 0
    assert chain.beside[0].reason == "AdapterFailed"
    assert any("beside AdapterFailed" in line for line in lines)


# ------------------------------------------------------------------ 9: weights that are fetched for a long time


@asynccontextmanager
async def pod_server(world: Any, answers: Json) -> AsyncIterator[None]:
    """The server in the pod: answers what the test puts there, at the pod's own address and port."""

    async def answer(request: web.Request) -> web.Response:
        found = answers.get(request.path)
        return web.json_response(found) if found is not None else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    # An address of its own: tests that run beside this one have pods, too.
    world.pod_ip = f"127.{98 + hash(world.namespace) % 90}.{hash(world.namespace) % 250}.{id(app) % 250 + 1}"
    await web.TCPSite(runner, world.pod_ip, 5000).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_theme9_weights_on_their_way(world: Any) -> None:
    """How much of the model is here is in the condition, and an estimate made of bytes beside it."""
    pulling = {"stage": "Pulling", "bytesDone": 4 * 2**30, "bytesTotal": 10 * 2**30, "secondsLeft": 60.0}
    answers: Json = {"/v1/progress": pulling}
    async with pod_server(world, answers):
        world.pods_fail = {"running": {"startedAt": "2026-11-20T12:00:00Z"}}
        await world.create()
        async with world.operator():
            told = await world.becomes("InferenceReady", "False", "ModelPulling")
            await event(world, "ModelPulling")
            before = await world.get()
            chain, lines = await explained(world)
            answers["/v1/progress"] = {"stage": "Failed", "message": "no space left on device"}
            failed = await world.becomes("WorkspaceReady", "False", "EngineFailed")

    assert "about 40% of 10Gi" in told["message"]
    eta = before["status"]["eta"]
    assert (eta["stage"], eta["seconds"], eta["until"]) == ("LoadingModel", 60, "StageEnd")
    assert (eta["bytesDone"], eta["bytesTotal"]) == (4 * 2**30, 10 * 2**30)
    assert "ModelPulling (turn: the engine's)" in lines[0]
    assert any(item.who == "engine" and "40%" in item.text for item in chain.moments)
    assert "through with LoadingModel in about" in chain.wait
    assert "no space left on device" in failed["message"]


# ------------------------------------------------------------------ 13: Ready is wrong


async def test_theme13_ready_follows_the_pods(world: Any) -> None:
    """A pod that breaks takes Ready away though the Deployment was fine."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        pod = await the_pod(world)
        crashed = {"terminated": {"exitCode": 3, "reason": "Error", "message": "CUDA error"}}
        status = pod["status"]
        (container,) = status["containerStatuses"]
        broken = {
            "conditions": [{**item, "status": "False"} for item in status["conditions"]],
            "containerStatuses": [{**container, "ready": False, "state": crashed, "restartCount": 1}],
        }
        await world.client.patch(
            PODS, pod["metadata"]["name"], {"status": broken}, namespace=world.namespace, subresource="status"
        )
        told = await world.becomes("WorkspaceReady", "False", "CrashLoop")
        await event(world, "CrashLoop", "CUDA error")
        state = (await world.get())["status"]["state"]
        _, lines = await explained(world)

    assert "exit code 3" in told["message"]
    assert state == "NotReady"
    assert lines[0] == f"Workspace {world.namespace}/w: NotReady, CrashLoop (turn: yours)"


async def test_theme13_ready_waits_for_the_newest_revision(world: Any) -> None:
    """While the pods of an older revision still serve, the Workspace is not Ready, and says so."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        world.pods_fail = {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}}
        other = {"preset": {"name": "phi-3-mini-128k-instruct"}}
        await world.client.patch(WORKSPACES, "w", {"inference": other}, namespace=world.namespace)
        told = await world.becomes("WorkspaceReady", "False", "ImagePullFailed")
        deployment = await world.client.get(DEPLOYMENTS, "w", world.namespace)
        chain, _ = await explained(world)

    assert "phi-3-mini-128k-instruct" in told["message"]
    assert deployment["metadata"]["generation"] > 1
    assert chain.exit_code == 1


# ------------------------------------------------------------------ 16: which URL do I call?


async def test_theme16_the_url_to_call(world: Any) -> None:
    """A ready Workspace's explanation ends in commands for both doors, with its own address and model."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        await event(world, "workspaceReady")
        chain, lines = await explained(world)

    assert lines[0] == f"Workspace {world.namespace}/w: Ready"
    assert chain.exit_code == 0
    chat, openai = chain.endpoint
    assert chat.startswith("curl -X POST http://")
    assert "/chat -H 'Content-Type: application/json'" in chat
    assert "/v1/chat/completions" in openai
    assert '"model": "phi-3-mini-4k-instruct"' in openai
    assert [item.who for item in chain.moments if item.text == "created"][:1] == ["workspace"]
    who = [item.who for item in chain.moments]
    assert who.index("machine") < who.index("pod")


# ------------------------------------------------------------------ 17: the node joins, its GPU does not


async def test_theme17_a_gpu_that_never_appears(world: Any) -> None:
    """A made node without a GPU is told as that, with the node to look at; it is no workload that is pending."""
    world.gpus = "0"
    await world.create()
    async with world.operator():
        told = await world.becomes("WorkspaceReady", "False", "GpuNotVisible")
        await event(world, "GpuNotVisible")
        name = await world.instance()
        _, lines = await explained(world)
        nodes = (await world.client.list(NODES)).items

    assert name in told["message"]
    assert any(node["metadata"]["name"] == name for node in nodes)
    assert "GpuNotVisible" in lines[0]


async def test_theme9_the_next_one_knows_how_long_it_takes(world: Any) -> None:
    """What the first Workspace took is the estimate of the second; the first had none, because nobody knew."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        world.cloud.auto = False
        first = (await world.get())["status"]
        await world.create(name="second", resource=world.resource({"apps": f"{world.labels['apps']}-2"}))

        async def estimated() -> Json | None:
            return ((await world.get("second")).get("status") or {}).get("eta")

        async def creating() -> str | None:
            found = (name for name, item in world.cloud.instances.items() if item["state"] == "Creating")
            return next(found, None)

        eta = await until(estimated)
        await world.cloud.finish(await until(creating))
        await world.becomes("WorkspaceReady", "True", name="second")
        last = (await world.get("second"))["status"]

    assert "eta" not in first
    assert eta["stage"] == "CreatingMachine"
    assert "seen 1 times" in eta["basis"]
    assert "eta" not in last


# ------------------------------------------------------------------ and then: silence


async def test_a_workspace_that_is_blocked_is_not_written_again(world: Any) -> None:
    """Looking again and again at the same trouble writes nothing: the stored version stays."""
    world.pods_fail = {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "False", "ImagePullFailed")
        await event(world, "ImagePullFailed")
        before = (await world.get())["metadata"]["resourceVersion"]
        for number in range(5):
            pod = await the_pod(world)
            note = {"metadata": {"annotations": {"example.com/touched": str(number)}}}
            await world.client.patch(PODS, pod["metadata"]["name"], note, namespace=world.namespace)
        await world.create(name="marker", inference={"preset": {"name": "no-such"}})
        await world.becomes("WorkspaceReady", "False", "UnknownPreset", name="marker")
        after = (await world.get())["metadata"]["resourceVersion"]

    assert after == before
