"""The life of a Workspace's pods on real API servers: made, edited, upgraded, rolled back and taken away."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from controllers import WorkspaceSettings
from controllers.resources import WORKSPACES
from kaito.errors import CliError
from kaito.revisions import roll_back, show_history
from manager.errors import NotFound
from manager.resources import (
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    STATEFULSETS,
)

pytestmark = pytest.mark.timeout(90)

Json = dict[str, Any]
_EDITS = 12 if os.environ.get("KAITO_SOAK") else 2  # each takes about half a second
PHI: Json = {"preset": {"name": "phi-3-mini-4k-instruct"}}
LLAMA: Json = {
    "preset": {
        "name": "llama-2-70b-chat",
        "accessMode": "private",
        "presetOptions": {"image": "example.com/llama:1"},
    }
}
TWO_NODES: Json = {"instanceType": "Standard_NC96ads_A100_v4", "count": 2}


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 40.0) -> Any:
    """Ask until the answer is true; the limit is for a broken run only."""
    async with asyncio.timeout(seconds):
        while not (answer := await check()):
            await asyncio.sleep(0.05)
        return answer


async def edit(world: Any, patch: Json, name: str = "w") -> None:
    await world.client.patch(WORKSPACES, name, patch, namespace=world.namespace)


async def adapters(world: Any, *wanted: Json) -> None:
    await edit(world, {"inference": {"adapters": [{"source": item} for item in wanted]}})


def image(name: str, *secrets: str) -> Json:
    return {"name": name, "image": f"example.com/{name}:1", "imagePullSecrets": list(secrets)}


async def deployment(world: Any, name: str = "w") -> Json:
    found: Json = await world.client.get(DEPLOYMENTS, name, world.namespace)
    return found


async def pods(world: Any, name: str = "w") -> dict[str, str]:
    """uid by name of the pods that are not on their way out."""
    listed = (await world.client.list(PODS, world.namespace, label_selector=f"kaito.sh/workspace={name}")).items
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in listed
        if not pod["metadata"].get("deletionTimestamp")
    }


async def revisions(world: Any) -> list[int]:
    found = (await world.client.list(CONTROLLERREVISIONS, world.namespace)).items
    return sorted(item["revision"] for item in found if item["metadata"]["ownerReferences"][0]["name"] == "w")


async def listed_adapters(world: Any) -> list[str]:
    stored = await world.client.get(CONFIGMAPS, "w-adapters", world.namespace)
    return [item["name"] for item in json.loads(stored["data"]["adapters.json"])["adapters"]]


@pytest.mark.acceptance("KS-A01", "KS-A06")
async def test_an_edit_of_adapters_restarts_nothing_until_a_secret_is_new(world: Any) -> None:
    """Adapters come and go in the ConfigMap while one pod serves, ten revisions are kept, and a secret rolls."""
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        before, served = await deployment(world), await pods(world)
        for count in range(1, _EDITS + 1):
            await adapters(world, *(image(f"a{count}-{number}") for number in range(count % 10 + 1)))

            async def listed(wanted: int = count) -> bool:
                names = [f"a{wanted}-{number}" for number in range(wanted % 10 + 1)]
                return await listed_adapters(world) == names and max(await revisions(world)) == wanted + 1

            await until(listed)
        after = await deployment(world)
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert await pods(world) == served
        assert await revisions(world) == list(range(1, _EDITS + 2))[-10:]

        await adapters(world, image("one", "secret"))

        async def rolled() -> bool:
            now = await pods(world)
            return bool(now) and not set(now.values()) & set(served.values())

        await until(rolled)
        await world.becomes("WorkspaceReady", "True")
    assert (await deployment(world))["metadata"]["generation"] == before["metadata"]["generation"] + 1


@pytest.mark.acceptance("KS-A05", "KS-A15")
async def test_a_model_over_two_nodes_lives_and_goes_as_one(world: Any) -> None:
    """Two Machines, a StatefulSet with its two Services; an edit replaces both pods; deletion leaves nothing."""
    world.gpus = "4"
    body = world.workspace(inference=LLAMA)
    body["resource"] |= TWO_NODES
    await world.client.create(WORKSPACES, body)
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        assert len(await world.machines()) == 2
        first = await pods(world)
        assert sorted(first) == ["w-0", "w-1"]
        service = await world.client.get(SERVICES, "w", world.namespace)
        headless = await world.client.get(SERVICES, "w-headless", world.namespace)
        assert service["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == "w-0"
        assert headless["spec"]["clusterIP"] == "None"

        await adapters(world, image("one", "secret"))

        async def replaced() -> bool:
            now = await pods(world)
            return sorted(now) == ["w-0", "w-1"] and not set(now.values()) & set(first.values())

        await until(replaced)
        await world.becomes("WorkspaceReady", "True")
        await world.client.delete(WORKSPACES, "w", world.namespace)
        await world.gone()

        async def cleared() -> bool:
            for resource, name in ((STATEFULSETS, "w"), (SERVICES, "w-headless"), (CONFIGMAPS, "w-adapters")):
                try:
                    await world.client.get(resource, name, world.namespace)
                except NotFound:
                    continue
                return False
            return not await revisions(world)

        await until(cleared)
    assert await world.machines() == []
    assert world.cloud.instances == {}


@pytest.mark.acceptance("KS-A13", "KS-A14")
async def test_a_template_and_a_load_balancer(world: Any) -> None:
    """A template has its affinity merged and no Service; only the exact word makes a load balancer, and back."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    mine = {"key": "mine", "operator": "DoesNotExist"}
    spec = {
        "containers": [{"name": "mine", "image": "example.com/x:1"}],
        "affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [{"matchExpressions": [mine]}]}}},
    }
    await world.create(inference={"template": {"spec": spec}})
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        pod = (await deployment(world))["spec"]["template"]["spec"]
        (term,) = pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
        assert [item["key"] for item in term["matchExpressions"]] == ["mine", "apps"]
        assert [item["name"] for item in pod["containers"]] == ["mine"]
        with pytest.raises(NotFound):
            await world.client.get(SERVICES, "w", world.namespace)

        await world.create(name="v", metadata={"annotations": {"kaito.sh/enablelb": "True"}})

        def typed(kind: str) -> Callable[[], Awaitable[bool]]:
            async def check() -> bool:
                try:
                    stored = await world.client.get(SERVICES, "v", world.namespace)
                except NotFound:
                    return False
                return bool(stored["spec"]["type"] == kind)

            return check

        await until(typed("LoadBalancer"))
        await edit(world, {"metadata": {"annotations": {"kaito.sh/enablelb": "true"}}}, "v")
        await until(typed("ClusterIP"))


async def test_an_edit_of_the_engines_settings_rolls(world: Any) -> None:
    """A ConfigMap that comes late is waited for and told; an edit of it replaces the pod."""
    await world.create(inference={**PHI, "config": "cfg"})
    config = {"metadata": {"name": "cfg"}, "data": {"inference_config.yaml": "vllm:\n  max-num-seqs: 4\n"}}
    async with world.operator():
        await world.becomes("InferenceReady", "False", "ConfigMissing")
        await world.client.create(CONFIGMAPS, config, namespace=world.namespace)
        await world.becomes("WorkspaceReady", "True")
        first = await pods(world)
        changed = {"data": {"inference_config.yaml": "vllm:\n  max-num-seqs: 8\n"}}
        await world.client.patch(CONFIGMAPS, "cfg", changed, namespace=world.namespace)

        async def replaced() -> bool:
            now = await pods(world)
            return bool(now) and now != first

        await until(replaced)
        await world.becomes("WorkspaceReady", "True")


async def test_rolling_back_makes_an_earlier_wish_the_current_one(world: Any, cluster: Any, capsys: Any) -> None:
    """A dry run changes nothing; the way back is a third revision number for the first content."""
    await world.create()
    where = {"kubeconfig": cluster.kubeconfig, "namespace": world.namespace, "output": "json"}
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        await adapters(world, image("one"))

        def at(wanted: list[int]) -> Callable[[], Awaitable[bool]]:
            async def check() -> bool:
                return await revisions(world) == wanted

            return check

        await until(at([1, 2]))
        await roll_back("w", None, dry_run=True, **where)
        assert "adapters" in (await world.get())["inference"]
        await roll_back("w", None, dry_run=False, **where)
        assert "adapters" not in (await world.get())["inference"]
        await until(at([2, 3]))

        async def emptied() -> bool:
            return await listed_adapters(world) == []

        await until(emptied)
        capsys.readouterr()
        await show_history("w", **where)
        shown = json.loads(capsys.readouterr().out)
        assert [(item["revision"], item["wanted"]) for item in shown] == [(2, False), (3, True)]
        with pytest.raises(CliError, match="no revision 9"):
            await roll_back("w", 9, dry_run=False, **where)


async def test_an_operator_upgrade_waits_to_be_asked_and_goes_one_at_a_time(world: Any) -> None:
    """Two Workspaces keep their pods under a newer operator; with its flag the second waits for the first."""
    for name in ("v", "w"):
        await world.create(name=name)
    async with world.operator():
        for name in ("v", "w"):
            await world.becomes("WorkspaceReady", "True", name=name)
    before = {name: await pods(world, name) for name in ("v", "w")}

    world.settings = WorkspaceSettings(registry="example.org/newer", version="2")
    async with world.operator():
        await world.create(name="marker", inference={"preset": {"name": "phi-3-mini-4k-instrct"}})
        await world.becomes("WorkspaceReady", "False", "UnknownPreset", name="marker")
    assert {name: await pods(world, name) for name in ("v", "w")} == before

    async def newer() -> list[str]:
        return [
            name
            for name in ("v", "w")
            if "newer" in (await deployment(world, name))["spec"]["template"]["spec"]["containers"][0]["image"]
        ]

    world.pods_fail = {"waiting": {"reason": "ContainerCreating"}}
    world.settings = replace(world.settings, upgrade_workloads=True)
    async with world.operator():
        (first,) = await until(newer)
        await world.becomes("InferenceReady", "False", name=first)
        assert await newer() == [first]
        world.pods_fail = None
        for pod in await pods(world, first):
            await world.client.delete(PODS, pod, world.namespace)
        await world.becomes("InferenceReady", "True", name=first)

        async def both() -> bool:
            return len(await newer()) == 2

        await until(both)


async def test_orphans_are_adopted_and_foreign_objects_are_not(world: Any) -> None:
    """A recreated Workspace goes on with the pods that it left, by uid; somebody's ConfigMap stops another one."""
    labels = {**world.labels, "node.kubernetes.io/instance-type": "Standard_NC6s_v3"}
    await world.add_node(f"byo-{world.namespace}", labels)  # it stays when the Workspace goes
    mine = {"metadata": {"name": "v-adapters"}, "data": {"mine": "yes"}}
    await world.client.create(CONFIGMAPS, mine, namespace=world.namespace)
    await world.create()
    async with world.operator():
        await world.becomes("WorkspaceReady", "True")
        kept, served = await deployment(world), await pods(world)
        await world.client.delete(WORKSPACES, "w", world.namespace, propagation="Orphan")
        await world.gone()
        await world.create()
        again = (await world.get())["metadata"]["uid"]

        async def adopted() -> bool:
            owners = (await deployment(world))["metadata"].get("ownerReferences") or []
            return [owner["uid"] for owner in owners] == [again]

        await until(adopted)
        assert (await deployment(world))["metadata"]["uid"] == kept["metadata"]["uid"]
        assert await pods(world) == served

        await world.create(name="v")
        told = await world.becomes("InferenceReady", "False", "WorkloadConflict", name="v")
        assert "v-adapters" in told["message"]
    stored = await world.client.get(CONFIGMAPS, "v-adapters", world.namespace)
    assert stored["data"] == {"mine": "yes"}
