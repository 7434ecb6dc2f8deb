"""A model that makes embeddings instead of text, behind the same routes; and the end of its server by force."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import openai
import pytest

from inference_server.testing.served import Served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]

MODEL = "phi-3-mini-4k-instruct"


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    """The stand-in weights as a model of embeddings."""
    log = tmp_path_factory.mktemp("pooling") / "log"
    server = Served(log, tiny_model, "--", "--runner=pooling", "--convert=embed")
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_texts_become_vectors(pooling):
    """embeddings.create gives one vector of length 1 for each text, the same for the same text."""
    with openai.OpenAI(base_url=f"{pooling.url}/v1", api_key="unused", max_retries=0) as client:
        texts = ["What is KAITO?", "What is a pod?", "What is KAITO?"]
        reply = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
        packed = client.embeddings.create(model=MODEL, input=texts[0])
    vectors = [item.embedding for item in reply.data]
    assert [item.index for item in reply.data] == [0, 1, 2]
    assert {len(vector) for vector in vectors} == {240}
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=0.01)
    assert vectors[0] == pytest.approx(vectors[2], abs=0.01)
    assert vectors[0] != pytest.approx(vectors[1], abs=0.01)
    assert packed.data[0].embedding == pytest.approx(vectors[0], abs=0.01)  # as the client asks by default: base64
    assert reply.usage.prompt_tokens > 0


async def test_texts_are_scored_against_each_other(pooling, session):
    """A text is nearest to itself."""
    body = {"queries": "What is a pod?", "documents": ["What is a pod?", "pizza"]}
    for path in ("/score", "/v1/score"):
        async with session.post(pooling.url + path, json=body) as reply:
            first, second = (item["score"] for item in (await reply.json())["data"])
        assert first > second


async def test_what_needs_text_is_refused_with_the_reason(pooling, session):
    """Chat and completions are request errors that say what this model lacks, streamed or not."""
    messages = [{"role": "user", "content": "hello"}]
    for stream in (False, True):
        for path, body, words in (
            ("/v1/chat/completions", {"messages": messages}, "has no chat"),
            ("/v1/completions", {"prompt": "hello"}, "has no completions"),
            ("/chat", {"prompt": "hello"}, "does not support generation"),
        ):
            async with session.post(pooling.url + path, json=body | {"stream": stream}) as reply:
                assert (reply.status, words in await reply.text()) == (400, True), path
    async with session.get(f"{pooling.url}/livez") as reply:
        assert reply.status == 200


def test_a_killed_server_leaves_no_process(pooling):
    """SIGKILL of a server that runs ends its engine too."""
    processes = pooling.descendants()
    assert processes
    pooling.process.kill()
    pooling.process.wait()
    assert pooling.gone(processes)
