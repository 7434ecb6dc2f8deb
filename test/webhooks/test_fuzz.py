"""Any body at all: the webhook answers, soon, and never with a bug of its own."""

from __future__ import annotations

import asyncio
import io
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import hypothesis
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.testing import adapter, inference
from api.testing.strategies import any_workspace, json_values
from api.validation import DEFAULT, Wanted, World, judge
from api.webhook import PATH
from controllers.workspace.admission import WorkspaceValidator
from manager.testing.webhooks import LocalWebhooks
from manager.webhooks.admission import validating

Obj = dict[str, Any]
SOAK = bool(os.environ.get("KAITO_SOAK"))
COUNT = 10_000 if SOAK else 100
LIMIT = 7 * 1024 * 1024
MEDIAN_SECONDS = 0.05
SLOWEST_SECONDS = 5.0
SETTINGS = [
    "",
    "vllm: {max-model-len: 99999999}",
    "training_config: {LoraConfig: 1}",
    "a: [",
    "- 1",
    "&a [*a, *a]",
]


async def look(what: Wanted, namespace: str) -> World:
    """A cluster with strange ConfigMaps."""
    maps: dict[str, Obj | None] = {}
    for name in what.config_maps:
        text = SETTINGS[len(name) % len(SETTINGS)]
        data = {"inference_config.yaml": text, "training_config.yaml": text}
        maps[name] = {"data": data} if len(name) % 2 else None
    return World(config_maps=maps)


@pytest.fixture
async def hooks() -> AsyncIterator[LocalWebhooks]:
    """The webhook over TLS, as the operator serves it."""
    async with LocalWebhooks() as running:
        running.server.admission(PATH, validating(WorkspaceValidator(look, DEFAULT)))
        yield running


def without_old(request: Obj, dice: int) -> Obj:
    """Half of the changes are small ones: another preset, another annotation."""
    new = request["object"]
    if request["operation"] == "CREATE" or dice == 0:
        return {key: value for key, value in request.items() if key != "oldObject"}
    if dice < 5:
        request = request | {"oldObject": new}
    if dice < 3:
        request = request | {"object": new | {"inference": request["oldObject"].get("tuning"), "tuning": None}}
    return request


def reviews() -> st.SearchStrategy[Any]:
    """Reviews of every operation, and now and then of none."""
    request = st.fixed_dictionaries(
        {
            "uid": st.uuids().map(str),
            "operation": st.sampled_from(["CREATE"] * 4 + ["UPDATE"] * 4 + ["DELETE", "?"]),
            "object": any_workspace(),
            "oldObject": any_workspace(),
            "namespace": st.just("default"),
        },
        optional={"name": st.just("ws") | json_values(), "subResource": st.sampled_from(["", "status"])},
    )
    request = st.builds(without_old, request, st.integers(0, 9))
    review = st.builds(
        lambda asked, version: {"apiVersion": version, "kind": "AdmissionReview", "request": asked},
        request,
        st.sampled_from(["admission.k8s.io/v1", "admission.k8s.io/v1", "admission.k8s.io/v1beta1", "v9"]),
    )
    return st.integers(0, 19).flatmap(lambda dice: json_values() if dice == 0 else review)


def generated(count: int, seed: int) -> list[bytes]:
    """So many bodies of this seed, some of them cut off."""
    bodies: list[bytes] = []
    rng = random.Random(seed)

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(reviews())
    def collect(review: Any) -> None:
        body = orjson.dumps(review)
        bodies.append(body[: len(body) // 2] if rng.random() < 0.03 else body)

    collect()
    return bodies


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes | AsyncIterator[bytes]
) -> tuple[int, Obj, float]:
    """HTTP status, the answer, and how long it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    headers = {"Content-Type": "application/json"}
    async with session.post(url, data=data, headers=headers, ssl=False) as reply:
        answer: Obj = orjson.loads(await reply.read())
        return reply.status, answer, loop.time() - began


@pytest.mark.timeout(3000)
async def test_any_body_is_answered(hooks: LocalWebhooks, seed: int) -> None:
    """No 500, no hang, a review for every body; the median answer takes less than 50 ms."""
    bodies = generated(COUNT, seed)
    times: list[float] = []
    verdicts: Counter[str] = Counter()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        for body in bodies:
            status, answer, seconds = await post(session, hooks.url(PATH), body)
            response = answer["response"]
            code = response["status"]["code"]
            assert (status, code < 500) == (200, True), (body, answer)
            assert response["allowed"] == (code == 200)
            times.append(seconds)
            verdicts["admitted" if response["allowed"] else str(code)] += 1
            verdicts["warned"] += bool(response.get("warnings"))
    figures = (
        f"seed {seed}: {len(bodies)} bodies, {sum(map(len, bodies)) / len(bodies):.0f} bytes on average, "
        f"{dict(sorted(verdicts.items()))}; median {statistics.median(times) * 1000:.2f} ms, "
        f"99th percentile {sorted(times)[len(times) * 99 // 100] * 1000:.2f} ms, "
        f"slowest {max(times) * 1000:.1f} ms"
    )
    print(figures)
    assert len(bodies) >= COUNT * 0.9, figures
    assert verdicts["admitted"] and verdicts["422"] and (verdicts["warned"] or not SOAK), figures
    assert statistics.median(times) < MEDIAN_SECONDS, figures
    assert max(times) < SLOWEST_SECONDS, figures


def review(obj: Any) -> bytes:
    request = {"uid": "u", "operation": "CREATE", "object": obj, "namespace": "default"}
    return orjson.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})


HEAVY = (
    *("adapters", "urls", "wrong types", "labels", "unknown fields"),
    *("long name", "long image", "slashes", "long strength", "template"),
)


def heavy(what: str) -> Obj:
    """An object of megabytes that would take long if anything looked at all of it at length."""
    tuning: Obj = {"preset": {"name": "phi-2"}, "method": "lora", "output": {"volumeSource": {}}}
    without = {key: value for key, value in inference().items() if key != "inference"}

    def from_urls(urls: list[Any]) -> Obj:
        return without | {"tuning": {**tuning, "input": {"urls": urls}}}

    match what:
        case "adapters":
            return inference(adapters=[adapter(name=f"adapter-{n}") for n in range(50_000)])
        case "urls":
            return from_urls(["http://127.0.0.1/"] * 300_000)
        case "wrong types":
            return from_urls(list(range(900_000)))
        case "labels":
            labels = {f"l{n}": "A_B" for n in range(300_000)}
            return inference() | {"resource": {"labelSelector": {"matchLabels": labels}}}
        case "unknown fields":
            return inference() | {f"instancetyp{n}": 1 for n in range(300_000)}
        case "long name":
            return inference("phi" * 2_000_000)
        case "long image":
            return inference(adapters=[adapter(image="A_" * 3_000_000)])
        case "slashes":
            return inference(adapters=[adapter(image="a/" * 3_000_000 + "b:1")])
        case "long strength":
            return inference(adapters=[adapter(strength="1" * 6_000_000)])
        case _:
            return inference() | {"inference": {"template": {f"k{n}": [n] * 5 for n in range(120_000)}}}


async def test_heavy_bodies_are_answered_too(hooks: LocalWebhooks, seed: int) -> None:
    """Bodies just below the limit take seconds of the processor at most, and the answer is short."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        for what in HEAVY if SOAK else random.Random(seed).sample(HEAVY, 3):
            body = review(heavy(what))
            assert 2 * 1024 * 1024 < len(body) < LIMIT, (what, len(body))
            began = time.process_time()  # not the wall clock: the machine may be busy
            status, answer, _ = await post(session, hooks.url(PATH), body)
            seconds = time.process_time() - began
            assert status == 200, what
            assert answer["response"]["status"]["code"] in (200, 422), (what, answer)
            assert len(orjson.dumps(answer)) < 20_000, what
            assert seconds < SLOWEST_SECONDS, (what, seconds)


async def test_no_body_over_the_limit_is_read(hooks: LocalWebhooks) -> None:
    """A valid Workspace of more than 7 MiB is refused with 413, whether or not it says its length."""
    body = review(inference() | {"inference": {"template": {"a": "x" * LIMIT}}})

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with aiohttp.ClientSession() as session:
        _, said, _ = await post(session, hooks.url(PATH), body)
        _, streamed, _ = await post(session, hooks.url(PATH), chunks())

    for answer in (said, streamed):
        assert (answer["response"]["allowed"], answer["response"]["status"]["code"]) == (False, 413)


@pytest.mark.parametrize("depth", [300, 900, 1500, 100_000])
async def test_depth_is_answered(hooks: LocalWebhooks, depth: int) -> None:
    """An object of any depth is refused or admitted, on creation and on change."""
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    obj = b'{"metadata":{"name":"a"},"resource":{"labelSelector":%s},"inference":{"preset":{"name":"phi-4",' % deep
    obj += b'"presetOptions":%s}}}' % deep
    request = b'{"uid":"u","operation":"UPDATE","object":%s,"oldObject":%s}' % (
        obj,
        obj.replace(b"phi-4", b"phi-2"),
    )
    body = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":%s}' % request

    async with aiohttp.ClientSession() as session:
        status, answer, _ = await post(session, hooks.url(PATH), body)

    assert (status, answer["response"]["allowed"]) == (200, False)
    assert answer["response"]["status"]["code"] in (400, 422)


def test_the_answer_is_the_functions(seed: int) -> None:
    """The same object gets the same verdict again, and is not changed by being judged."""

    @hypothesis.seed(seed)
    @settings(
        max_examples=COUNT // 3,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(any_workspace())
    def check(obj: Obj) -> None:
        before = orjson.dumps(obj)
        first = judge(obj)
        assert orjson.dumps(obj) == before
        assert judge(obj) == first
        assert judge(obj, obj).violations == ()

    check()
