"""`kaito serve` with the real engine and the stand-in weights, on the server that the tests share."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.util import find_spec

import pytest

from inference_server.testing.served import Served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]


async def chat(session, served, prompt, **kwargs):
    body = {"prompt": prompt, "return_full_text": False, **kwargs}
    async with session.post(f"{served.url}/chat", json=body) as reply:
        return reply.status, (await reply.json()), reply.headers


async def generated_tokens(session, served) -> float:
    async with session.get(f"{served.url}/metrics") as reply:
        text = await reply.text()
    found = re.search(r"^vllm:generation_tokens_total\{.*\} (\S+)$", text, re.M)
    assert found
    return float(found[1])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("What is KAITO?", "operator that turns a short Workspace manifest"),
        ("hello there", "Hello! I am the small stand-in model"),
        ("could you explain what a pod is", "smallest thing that Kubernetes runs"),
    ],
)
async def test_the_model_answers_recognisably(served, session, prompt, words):
    """A question of the corpus or a paraphrase gets its answer, at the default sampling parameters too."""
    status, body, _ = await chat(session, served, prompt, generate_kwargs={"do_sample": False})
    assert status == 200
    assert words in body["Result"]


async def test_the_seed_body_gets_prompt_and_answer(served, session):
    """The seed's own body, defaults and all, answers with the prompt first."""
    async with session.post(f"{served.url}/chat", json={"prompt": "What is a workspace?"}) as reply:
        body = await reply.json()
    assert body["Result"].startswith("What is a workspace?")
    assert len(body["Result"]) > 60


async def test_the_seed_of_sampling_decides(served, session):
    """On an unseen prompt one seed repeats its answer and different seeds give different ones."""
    prompt = "I love pizza with cheese and mushrooms"

    async def answer(seed: int) -> str:
        kwargs = {"seed": seed, "temperature": 1.3, "top_k": 50, "max_new_tokens": 40}
        return (await chat(session, served, prompt, generate_kwargs=kwargs))[1]["Result"]

    answers = [await answer(seed) for seed in (1, 2, 3, 1, 2, 3)]
    assert answers[:3] == answers[3:]
    assert len(set(answers)) > 1


async def test_the_counter_rises_by_the_tokens_returned(served, session):
    """vllm:generation_tokens_total grows by exactly what the replies say they hold."""
    before = await generated_tokens(session, served)
    replies = await asyncio.gather(
        *(chat(session, served, "Tell me a story", generate_kwargs={"max_new_tokens": n}) for n in (5, 9, 40))
    )
    returned = sum(int(headers["X-Kaito-Completion-Tokens"]) for _, _, headers in replies)
    assert returned > 14
    assert await generated_tokens(session, served) - before == returned


async def test_a_stream_equals_the_whole_answer(served, session):
    """Streamed parts joined are the answer that is returned without streaming."""
    kwargs = {"do_sample": False, "max_new_tokens": 30}
    whole = (await chat(session, served, "What is vLLM?", generate_kwargs=kwargs))[1]["Result"]
    body = {"prompt": "What is vLLM?", "return_full_text": False, "stream": True, "generate_kwargs": kwargs}
    async with session.post(f"{served.url}/chat", json=body) as reply:
        raw = await reply.text()
    parts = [json.loads(line[6:])["Result"] for line in raw.splitlines() if line.startswith("data: {")]
    assert "".join(parts) == whole
    assert len(parts) > 5


async def test_limits_stop_words_and_raw_continuation(served, session):
    """max_new_tokens, min_length, stop strings and apply_chat_template reach the engine."""
    _, _, headers = await chat(session, served, "hello", generate_kwargs={"max_new_tokens": 4})
    assert headers["X-Kaito-Completion-Tokens"] == "4"
    _, _, headers = await chat(session, served, "hello", generate_kwargs={"min_length": 120})
    assert int(headers["X-Kaito-Prompt-Tokens"]) + int(headers["X-Kaito-Completion-Tokens"]) >= 120
    _, body, _ = await chat(session, served, "hello", generate_kwargs={"stop": "stand-in", "do_sample": False})
    assert body["Result"].endswith("small ")
    _, _, raw = await chat(
        session, served, "hello", apply_chat_template=False, generate_kwargs={"max_new_tokens": 1}
    )
    _, _, templated = await chat(session, served, "hello", generate_kwargs={"max_new_tokens": 1})
    assert int(raw["X-Kaito-Prompt-Tokens"]) < int(templated["X-Kaito-Prompt-Tokens"])


async def test_a_client_that_leaves_frees_the_engine(served, session):
    """An abandoned request is aborted in the engine instead of being generated to its end."""
    kwargs = {"min_length": 1900, "max_length": 2000}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await chat(session, served, "Tell me a story", generate_kwargs=kwargs)
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{served.url}/metrics") as reply:
                if re.search(r"^vllm:num_requests_running\{.*\} 0\.0$", await reply.text(), re.M):
                    break
            await asyncio.sleep(0.05)


async def test_hostile_and_wrong_bodies_leave_the_engine_well(served, session):
    """Refusals of every sort answer 4xx and the next request is served."""
    for body in (
        {"prompt": "x", "generate_kwargs": {"eos_token_id": 10**9}},
        {"prompt": "x", "generate_kwargs": {"stop": ["\x00"] * 3}},
        {"prompt": "word " * 3000},
        {"messages": [{"role": "", "content": ""}]},
    ):
        async with session.post(f"{served.url}/chat", json=body) as reply:
            assert reply.status in (200, 400), await reply.text()
    assert (await chat(session, served, "hello"))[0] == 200


async def test_a_server_killed_while_it_loads_leaves_no_process(tmp_path, tiny_model):
    """SIGKILL of a server that loads its model ends what it started, too."""
    server = Served(tmp_path / "log", tiny_model)
    await server.until(500, 200)
    while not server.descendants():
        await asyncio.sleep(0.05)
    processes = server.descendants()
    server.process.kill()
    server.process.wait()
    assert server.gone(processes)
