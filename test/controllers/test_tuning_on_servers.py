"""Tuning on API servers with Kubernetes' own Job controller: hardware and the program in the pod are played."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from api.progress import TuneFailure, TuneProgress, TuneStage
from api.training_templates import training_template
from api.v1alpha1.tuning import TuningMethod
from controllers.resources import WORKSPACES
from controllers.workspace.podreader import HttpPodReader
from manager.errors import NotFound
from manager.resources import CONFIGMAPS, JOBS, PODS

Json = dict[str, Any]
SAMPLES = Path(__file__).parent.parent.parent / "config" / "samples"
TEMPLATE = "qlora-params-template"
DONE = TuneProgress(
    stage=TuneStage.SUCCEEDED, step=9, steps=9, loss=0.5, image="example.com/t:1", digest="sha256:1"
)
BROKEN = TuneProgress(
    stage=TuneStage.FAILED, reason=TuneFailure.COLUMN_MISSING, message="no column text", next_step="name one"
)


def tuning(**changes: Any) -> Json:
    return {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "example.com/tuned:1", "imagePushSecret": "push"},
        **changes,
    }


async def pod_of(world: Any) -> Json:
    """The Job's pod, once it runs."""

    async def check() -> Json | None:
        for pod in (await world.client.list(PODS, world.namespace)).items:
            going = pod["metadata"].get("deletionTimestamp")
            if not going and (pod.get("status") or {}).get("containerStatuses"):
                return dict(pod)
        return None

    return dict(await world.until(check))


async def ends(world: Any, pod: Json, code: int, progress: TuneProgress, *, restarts: int = 0) -> None:
    """The pod's process ends: for good with 0, else it waits for its restart."""
    (status,) = pod["status"]["containerStatuses"]
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = progress.model_dump_json(by_alias=True, exclude_none=True)
    ended = {"terminated": {"exitCode": code, "reason": "Completed", "message": message, "finishedAt": at}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    own = {**status, "ready": False, "restartCount": restarts}
    own |= {"state": waiting, "lastState": ended} if code else {"state": ended}
    body = {"phase": "Running" if code else "Succeeded", "containerStatuses": [own]}
    name = pod["metadata"]["name"]
    await world.client.patch(PODS, name, {"status": body}, namespace=world.namespace, subresource="status")


async def job(world: Any, name: str = "w") -> Json:
    """The Workspace's Job, once it exists."""

    async def check() -> Json | None:
        try:
            return dict(await world.client.get(JOBS, name, world.namespace))
        except NotFound:
            return None

    return dict(await world.until(check))


async def successor(world: Any, old: Json) -> Json:
    """Another Job of the same name."""

    async def check() -> Json | None:
        found = await job(world)
        return found if found["metadata"]["uid"] != old["metadata"]["uid"] else None

    return dict(await world.until(check))


@asynccontextmanager
async def speaking(world: Any, progress: list[TuneProgress]) -> AsyncIterator[HttpPodReader]:
    """What a tuning pod answers at its address: the last of these."""

    async def answer(_: web.Request) -> web.Response:
        text = progress[-1].model_dump_json(by_alias=True, exclude_none=True)
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/progress", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, world.pod_ip, 0).start()
        yield HttpPodReader(port=runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.acceptance("KS-A07")
async def test_a_seed_manifest_runs_to_its_end(world: Any, number: int) -> None:
    """Machine, node, settings, Job, figures, Complete: the status tells each; then nothing is written."""
    (path,) = SAMPLES.glob(f"{number}-*.yaml")
    text = path.read_text().replace("ACR_REPO_HERE", "acr").replace("IMAGE_NAME_HERE", "phi-3")
    obj = yaml.safe_load(text.replace("ACR_REGISTRY_SECRET_HERE", "push"))
    obj["metadata"]["namespace"] = world.namespace
    obj["resource"]["labelSelector"]["matchLabels"] |= world.labels
    name = obj["metadata"]["name"]
    await world.client.create(WORKSPACES, obj)
    training = TuneProgress(stage=TuneStage.TRAINING, epoch=0.5, step=3, steps=9, loss=1.5, seconds_left=60)
    async with speaking(world, [training]) as reader, world.operator(pod_reader=reader):
        pod = await pod_of(world)
        told = await world.becomes("WorkspaceReady", "False", "Training", name=name)
        running = await world.get(name)
        await ends(world, pod, 0, DONE)
        await world.becomes("WorkspaceSucceeded", "True", "workspaceSucceeded", name=name)

        async def noted() -> bool:
            found = (await world.get(name))["status"]
            return bool((found.get("tuning") or {}).get("digest"))

        await world.until(noted)
    copy = await world.client.get(CONFIGMAPS, TEMPLATE, world.namespace)
    finished = await world.get(name)
    found = await job(world, name)
    async with world.operator():
        await world.create(name="marker", tuning=tuning(output={"image": "X_HERE.example.com/t:1"}))
        await world.becomes("WorkspaceReady", "False", name="marker")

    assert "step 3 of 9, epoch 0.50, loss 1.5" in told["message"]
    assert (running["status"]["state"], finished["status"]["state"]) == ("Running", "Succeeded")
    assert running["status"]["tuning"]["step"] == 3
    assert finished["status"]["tuning"]["digest"] == "sha256:1"
    assert copy["data"]["training_config.yaml"] == training_template(TuningMethod.QLORA)
    for before in (finished, found):
        resource = JOBS if before is found else WORKSPACES
        after = await world.client.get(resource, name, world.namespace)
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.acceptance("KS-A08")
async def test_what_is_refused_costs_nothing(world: Any) -> None:
    """Without a webhook the operator refuses by the same rules: no Machine, no Job, the rule in the condition."""
    refused = {
        "two": {"resource": {**world.resource(world.labels), "count": 2}, "tuning": tuning()},
        "dora": {"tuning": tuning(method="dora")},
        "no-input": {"tuning": {key: value for key, value in tuning().items() if key != "input"}},
        "no-output": {"tuning": {key: value for key, value in tuning().items() if key != "output"}},
        "no-preset": {"tuning": {key: value for key, value in tuning().items() if key != "preset"}},
        "no-tag": {"tuning": tuning(output={"image": "example.com/t", "imagePushSecret": "push"})},
        "upper": {"tuning": tuning(output={"image": "example.com/T:1", "imagePushSecret": "push"})},
    }
    for name, changes in refused.items():
        await world.create(name=name, **changes)
    async with world.operator():
        for name in refused:
            await world.becomes("WorkspaceReady", "False", "InvalidSpec", name=name)

    assert await world.machines() == []
    assert (await world.client.list(JOBS, world.namespace)).items == []


async def test_a_final_failure_is_not_run_again_until_the_wish_changes(world: Any) -> None:
    """The Job fails, the reason stays when pod and operator are gone, and another dataset is another Job."""
    await world.create(tuning=tuning())
    async with world.operator():
        pod = await pod_of(world)
        failed = await job(world)
        await ends(world, pod, 1, BROKEN, restarts=1)
        told = await world.becomes("WorkspaceReady", "False", "DatasetColumnMissing")

        async def over() -> bool:
            conditions = ((await job(world)).get("status") or {}).get("conditions") or []
            return any(item["type"] == "Failed" and item["status"] == "True" for item in conditions)

        await world.until(over)
    async with world.operator():

        async def no_pod() -> bool:
            return not (await world.client.list(PODS, world.namespace)).items

        await world.until(no_pod)
        assert (
            await world.conditions() | {"JobStarted": ("False", "DatasetColumnMissing")}
            == await world.conditions()
        )
        assert (await job(world))["metadata"]["uid"] == failed["metadata"]["uid"]
        other = {"tuning": {"input": {"urls": ["https://example.com/better.parquet"]}}}
        await world.client.patch(WORKSPACES, "w", other, namespace=world.namespace)
        new = await successor(world, failed)
        await pod_of(world)

    assert "Name one" in told["message"]
    args = new["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--data-url=https://example.com/better.parquet" in args
    assert len(await world.machines()) == 1


async def test_a_pod_that_is_deleted_is_followed_by_another(world: Any) -> None:
    """Somebody deletes the pod while it trains: the same Job makes another, whose end counts."""
    await world.create(tuning=tuning())
    async with world.operator():
        first = await pod_of(world)
        before = await job(world)
        await world.client.delete(PODS, first["metadata"]["name"], world.namespace)

        async def another() -> Json | None:
            pod = await pod_of(world)
            return pod if pod["metadata"]["uid"] != first["metadata"]["uid"] else None

        await ends(world, await world.until(another), 0, DONE)
        await world.becomes("WorkspaceReady", "True")

    assert (await job(world))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_edited_settings_run_again_and_an_edited_template_is_kept(world: Any) -> None:
    """The copy of the template is the user's: its edit is a new run, and the operator never writes over it."""
    await world.create(tuning=tuning())
    text = training_template(TuningMethod.QLORA).replace("r: 8", "r: 16")
    async with world.operator():
        old = await job(world)
        edit = {"data": {"training_config.yaml": text}}
        await world.client.patch(CONFIGMAPS, TEMPLATE, edit, namespace=world.namespace)
        new = await successor(world, old)

    assert new["metadata"]["annotations"] != old["metadata"]["annotations"]
    copy = await world.client.get(CONFIGMAPS, TEMPLATE, world.namespace)
    assert copy["data"]["training_config.yaml"] == text


async def test_a_pod_that_may_recover_is_left_to_kubernetes(world: Any) -> None:
    """Exit code 75: the reason says that it is tried again, the Job goes on, and its success counts."""
    await world.create(tuning=tuning())
    away = TuneProgress(stage=TuneStage.FAILED, reason=TuneFailure.PUSH_FAILED, message="no answer")
    async with world.operator():
        pod = await pod_of(world)
        await ends(world, pod, 75, away, restarts=1)
        told = await world.becomes("WorkspaceReady", "False", "TuningRetrying")
        await ends(world, pod, 0, DONE, restarts=1)
        await world.becomes("WorkspaceReady", "True")

    assert "no answer" in told["message"]
    assert "activeDeadlineSeconds" not in (await job(world))["spec"]


async def test_deletion_leaves_nothing_of_a_run(world: Any) -> None:
    """With the Workspace its Job, pods and Machine go; the settings stay for the others of the namespace."""
    await world.create(tuning=tuning())
    async with world.operator():
        await pod_of(world)
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

        async def gone() -> bool:
            kept = [*(await world.client.list(JOBS, world.namespace)).items]
            return not kept and not (await world.client.list(PODS, world.namespace)).items

        await world.until(gone)

    assert await world.machines() == []
    assert await world.client.get(CONFIGMAPS, TEMPLATE, world.namespace)
