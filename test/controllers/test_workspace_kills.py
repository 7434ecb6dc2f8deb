"""The operator dies after each of its writes in turn, and the next one takes over.

A write is one to the API server or a call of the cloud; the process dies when it has been carried out and its
answer not yet heard, which is the worst moment, and nothing of it is waited for. By default a seeded few of the
points are tried, in virtual time; with KAITO_SOAK=1 all of them, and on the servers of other processes too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controllers.resources import WORKSPACES
from kaito.local.testing import Paper
from kaito.local.testing.snapshot import snapshot

pytestmark = pytest.mark.timeout(3600 if os.environ.get("KAITO_SOAK") else 120)
Json = dict[str, Any]
_SAMPLE = 4
_SAME = 3  # looks in a row at an unchanged world: it has come to rest
_SAME_BY_THE_WALL = 10  # which takes half a second and more

IMAGE_ADAPTER = {"source": {"name": "first", "image": "example.com/first:1"}}
SECRET_ADAPTER = {"source": {"name": "second", "image": "example.com/second:1", "imagePullSecrets": ["pull"]}}
PHI: Json = {"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [IMAGE_ADAPTER]}
LLAMA: Json = {
    "preset": {
        "name": "llama-2-70b-chat",
        "accessMode": "private",
        "presetOptions": {"image": "example.com/llama:1"},
    },
    "adapters": [IMAGE_ADAPTER],
}
ADAPTED: Json = {"inference": {"adapters": [IMAGE_ADAPTER, SECRET_ADAPTER]}}


def template(image: str) -> Json:
    return {"template": {"spec": {"containers": [{"name": "mine", "image": image}]}}}


@dataclass(frozen=True)
class Shape:
    """A sort of Workspace, and an edit of it that replaces its pods."""

    inference: Json
    edit: Json
    resource: Json = field(default_factory=lambda: {"instanceType": "Standard_NC6s_v3"})
    node_api: str = "machine"


SHAPES = {
    "deployment": Shape(PHI, ADAPTED),
    "statefulset": Shape(LLAMA, ADAPTED, {"instanceType": "Standard_NC96ads_A100_v4", "count": 2}),
    "nodeclaims": Shape(PHI, ADAPTED, node_api="nodeclaim"),
    "template": Shape(template("example.com/mine:1"), {"inference": template("example.com/mine:2")}),
}


async def create(paper: Paper, shape: Shape) -> None:
    labels = {"matchLabels": {"apps": f"apps-of-{paper.namespace}"}}
    body = {
        "metadata": {"name": "w"},
        "resource": {**shape.resource, "labelSelector": labels},
        "inference": shape.inference,
    }
    await paper.client.create(WORKSPACES, body, namespace=paper.namespace)


async def edit(paper: Paper, shape: Shape) -> None:
    await paper.client.patch(WORKSPACES, "w", shape.edit, namespace=paper.namespace)


async def delete(paper: Paper, _: Shape) -> None:
    await paper.client.delete(WORKSPACES, "w", paper.namespace)


PATHS: dict[str, Callable[[Paper, Shape], Awaitable[None]]] = {"create": create, "edit": edit, "delete": delete}


async def whole(paper: Paper, path: str) -> Json:
    """Wait until an undisturbed life has done what it should; the world then."""
    if path == "delete":
        await paper.gone("w")
        return await at_rest(paper)
    while True:
        await paper.ready("w")
        end = await at_rest(paper)
        # A real scheduler lets a pod that found no room wait for seconds: that is rest, but not the end.
        if {status for _, status, _ in end["workspace"]["conditions"]} == {"True"}:
            return end


async def at_rest(paper: Paper) -> Json:
    """Wait until nothing changes any more; the world then."""
    before: Json = {"nothing": "yet"}
    same = 0

    async def check() -> bool:
        nonlocal before, same
        now = await snapshot(paper, "w")
        same = same + 1 if now == before else 0
        before = now
        return same >= (_SAME if paper.virtual else _SAME_BY_THE_WALL)

    await paper.until(check)
    return before


def becomes(paper: Paper, wanted: Json) -> Callable[[], Awaitable[None]]:
    """Waits until the world is as wanted, and stays so."""

    async def reach() -> None:
        async def check() -> bool:
            return await snapshot(paper, "w") == wanted

        async def explain() -> str:
            return different(await snapshot(paper, "w"), wanted)

        await paper.until(check, explain)
        assert await at_rest(paper) == wanted

    return reach


def different(now: Any, wanted: Any, path: str = "") -> str:
    if isinstance(now, dict) and isinstance(wanted, dict):
        parts = (different(now.get(key), wanted.get(key), f"{path}.{key}") for key in sorted({*now, *wanted}))
        return "\n".join(filter(None, parts))
    if isinstance(now, list) and isinstance(wanted, list) and len(now) == len(wanted):
        parts = (different(one, two, f"{path}[{i}]") for i, (one, two) in enumerate(zip(now, wanted, strict=True)))
        return "\n".join(filter(None, parts))
    return "" if now == wanted else f"{path}: {now!r} instead of {wanted!r}"


def points(steps: list[str], rng: random.Random) -> list[int]:
    """After which steps to die."""
    every = list(range(1, len(steps) + 1))
    return every if os.environ.get("KAITO_SOAK") else sorted(rng.sample(every, min(_SAMPLE, len(every))))


def rounds(found: dict[str, list[int]]) -> Iterator[dict[str, int | None]]:
    """Each point of each path once; a path that has no more points is lived through unharmed."""
    for number in range(max(map(len, found.values()))):
        yield {path: (of_it[number] if number < len(of_it) else None) for path, of_it in found.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_after_any_write_it_ends_alike(stage: Any, shape: str, seed: int) -> None:
    """Creation, edit and deletion end as in an undisturbed life: nothing twice, nothing left behind."""
    wanted = SHAPES[shape]

    async def play(paper: Paper) -> None:
        paper.operators.settings = replace(paper.operators.settings, node_api=wanted.node_api)
        ends: dict[str, Json] = {}
        steps: dict[str, list[str]] = {}
        for path, begin in PATHS.items():
            await begin(paper, wanted)

            async def end(path: str = path) -> None:
                ends[path] = await whole(paper, path)

            life = await paper.operators.live(None, end)
            steps[path] = life.taken
        check(ends, wanted)

        rng = random.Random(seed)
        found = {path: points(taken, rng) for path, taken in steps.items()}
        print(f"seed {seed}: " + ", ".join(f"{path} {found[path]} of {len(steps[path])}" for path in PATHS))
        for plan in rounds(found):
            paper.cloud.creates.clear()
            for path, begin in PATHS.items():
                goal = becomes(paper, ends[path])
                await begin(paper, wanted)
                if plan[path] is not None:
                    life = await paper.operators.live(plan[path], goal)
                    print(f"{path} {plan[path]}: " + (life.taken[-1] if life.taken else "nothing"))
                await paper.operators.live(None, goal)
            assert len(paper.cloud.creates) == len(set(paper.cloud.creates)) == len(ends["create"]["made"])

    stage(play, nodeclaims=wanted.node_api == "nodeclaim")


def check(ends: dict[str, Json], shape: Shape) -> None:
    """What an undisturbed life ends in is what it should be: the rest is compared with it."""
    born = ends["create"]
    nodes = shape.resource.get("count", 1)
    assert {status for _, status, _ in born["workspace"]["conditions"]} == {"True"}
    assert len(born["made"]) == len(born["nodes"]) == len(born["instances"]) == len(born["pods"]) == nodes
    workload = born["statefulsets" if nodes > 1 else "deployments"]
    assert [item["metadata"]["generation"] for item in workload] == [1]
    assert [
        item["metadata"]["generation"] for item in ends["edit"]["statefulsets" if nodes > 1 else "deployments"]
    ] == [2]
    ours = [item for item in born["controllerrevisions"] if item["metadata"]["owners"] == [["Workspace", "w"]]]
    assert [item["revision"] for item in ours] == [1]
    if "template" not in shape.inference:
        assert [item["metadata"]["name"] for item in born["configmaps"]] == ["w-adapters"]
    assert ends["delete"] == {}
