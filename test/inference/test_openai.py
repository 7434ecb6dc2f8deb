"""OpenAI's own client, LangChain and curl against `kaito serve` with the real engine and the stand-in weights."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from importlib.util import find_spec

import openai
import pytest
from langchain_openai import ChatOpenAI

from inference_server.testing.served import Served

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]

MODEL = "phi-3-mini-4k-instruct"
CHAT = {"role": "user", "content": "What is KAITO?"}
QUESTION = [CHAT]
WORDS = "operator that turns a short Workspace manifest"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "strict": True,  # hold the arguments to the schema
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
# A model of this size does not stop writing blanks where a schema leaves room for them; penalties make it.
CALLING = {"max_tokens": 400, "temperature": 0, "frequency_penalty": 2, "presence_penalty": 2}


@pytest.fixture
def client(served: Served):
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def test_chat_answers_and_counts(client):
    """chat.completions gives the answer of the model with usage that adds up."""
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert WORDS in reply.choices[0].message.content
    assert (reply.model, reply.choices[0].finish_reason) == (MODEL, "stop")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_is_the_answer_in_parts(client):
    """A streamed chat joined is the whole answer, and the usage comes last when it is asked for."""
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
        )
    )
    parts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(parts) == whole.choices[0].message.content
    assert len(parts) > 10
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "asked", [{}, {"max_tokens": 1}, {"stop": "turns"}, {"stream_options": {"include_usage": True}}]
)
async def test_plain_streams_are_what_vllm_would_send(served, session, path, asked):
    """Field for field what vLLM's own generator sends, which a request for counts in between makes send it all."""
    body = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": 30} | asked
    body |= {"messages": QUESTION} if "chat" in path else {"prompt": 'KAITO \\ "is" \u00e9'}

    async def events(**more) -> list[dict]:
        async with session.post(f"{served.url}{path}", json=body | more) as reply:
            assert reply.status == 200
            lines = [line[6:] for line in (await reply.text()).splitlines() if line]
        assert lines[-1] == "[DONE]"
        found = [json.loads(line) for line in lines[:-1]]
        assert len({(event["id"], event["created"]) for event in found}) == 1
        return found

    def normal(found: list[dict]) -> tuple[str, list[dict]]:
        text, shapes = "", []
        for event in found:
            event |= {"id": "", "created": 0}
            if event["choices"]:
                event.pop("usage", None)
                event.pop("system_fingerprint", None)  # at the last event, with or without a usage
            for choice in event["choices"]:
                part = choice.get("delta", choice)
                name = "content" if "delta" in choice else "text"
                text += part[name]
                part[name] = ""
            if event not in shapes:
                shapes.append(event)
        return text, shapes

    theirs = asked.get("stream_options", {}) | {"continuous_usage_stats": True, "include_usage": True}
    text, shapes = normal(await events())
    their_text, their_shapes = normal(await events(stream_options=theirs))
    if "stream_options" not in asked:
        their_shapes.pop()  # the usage
    assert text == their_text
    assert shapes == their_shapes


def test_several_answers_and_log_probabilities(client):
    """n and logprobs reach the engine."""
    reply = client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=3, logprobs=True, top_logprobs=2, max_tokens=5, seed=7
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert sum(len(choice.logprobs.content) for choice in reply.choices) == reply.usage.completion_tokens
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 2


async def test_seeds_survive_prompts_that_are_read_in_steps(served, session):
    """Seeded requests with prompts too long for one step together leave the engine well."""
    body = {"prompt": [7] * 1900, "max_tokens": 5, "seed": 3, "temperature": 1.0}

    async def ask() -> str:
        async with session.post(f"{served.url}/v1/completions", json=body) as reply:
            assert reply.status == 200, await reply.text()
            return (await reply.json())["choices"][0]["text"]

    answers = await asyncio.gather(*(ask() for _ in range(4)))
    assert len(answers) == 4
    async with session.get(f"{served.url}/livez") as reply:
        assert reply.status == 200


def test_completions_continue_a_text(client):
    """completions take several prompts and continue each."""
    reply = client.completions.create(model=MODEL, prompt=["KAITO is", "A pod"], max_tokens=4, temperature=0)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.usage.prompt_tokens > 0


def test_a_tool_is_called_in_the_form_that_its_schema_asks_for(client):
    """With the engine's parser on, a tool that must be called is called with arguments that fit its schema."""
    reply = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        **CALLING,
    )
    [call] = reply.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_a_tool_call_can_be_streamed(client):
    """The parts of a streamed call joined are its arguments."""
    stream = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        **CALLING,
        stream=True,
    )
    calls = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert json.loads("".join(call.function.arguments or "" for call in calls))["city"] in ("Paris", "Rome")


def test_a_tool_may_be_offered_without_being_called(client):
    """Automatic choice is accepted; a model that calls none just answers."""
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[WEATHER], temperature=0)
    assert reply.choices[0].message.content
    assert not reply.choices[0].message.tool_calls


def test_an_answer_can_be_held_to_a_schema(client):
    """response_format with a JSON schema gives JSON that fits it."""
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    reply = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
        max_tokens=40,
    )
    assert isinstance(json.loads(reply.choices[0].message.content)["yes"], bool)


def test_embeddings_are_refused_with_the_reason(client):
    """A model that generates text says that it has no embeddings, as a request error and not as a fault."""
    with pytest.raises(openai.BadRequestError, match=f"the model '{MODEL}' has no embeddings"):
        client.embeddings.create(model=MODEL, input="text")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": "nope", "messages": QUESTION}, openai.NotFoundError, f"served are {MODEL}"),
        ({"model": MODEL, "messages": []}, openai.BadRequestError, None),
        ({"model": MODEL, "messages": QUESTION, "temperature": -1}, openai.BadRequestError, "temperature"),
        ({"model": MODEL, "messages": QUESTION, "max_tokens": 10**6}, openai.BadRequestError, "max_tokens"),
        ({"model": MODEL, "messages": [CHAT | {"content": "hi " * 4000}]}, openai.BadRequestError, "2048"),
        ({"model": MODEL, "messages": QUESTION, "n": 500}, openai.BadRequestError, "128"),
    ],
)  # fmt: skip
def test_errors_are_the_clients_own(client, arguments, error, words):
    """What is wrong with a request arrives as the client's exception for it, streamed or not."""
    for stream in (False, True):
        with pytest.raises(error, match=words) as caught:
            client.chat.completions.create(**arguments, stream=stream)
        assert set(caught.value.body) == {"message", "type", "param", "code"}


def test_models_are_listed_and_found(client):
    """models.list and models.retrieve know the served model; another is not found."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "kaito"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/none")


async def test_tokens_go_there_and_back(served, session):
    """/tokenize and /detokenize are each other's inverse, and a chat is counted through its template."""
    async with session.post(f"{served.url}/tokenize", json={"model": MODEL, "prompt": "What is KAITO?"}) as reply:
        found = await reply.json()
    assert found["count"] == len(found["tokens"]) > 0
    async with session.post(f"{served.url}/detokenize", json={"tokens": found["tokens"]}) as reply:
        assert (await reply.json())["prompt"].strip() == "What is KAITO?"
    async with session.post(f"{served.url}/tokenize", json={"messages": QUESTION}) as reply:
        assert (await reply.json())["count"] > found["count"]


async def test_the_request_id_is_the_clients(served, session):
    """An id that a client sends is in the answer's id; one that is no plain word is not."""
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 1}
    for sent, kept in (("trace-7", True), ("x" * 500, False)):
        async with session.post(
            f"{served.url}/v1/chat/completions", json=body, headers={"X-Request-Id": sent}
        ) as reply:
            assert ((await reply.json())["id"] == f"chatcmpl-{sent}") is kept


def test_langchain_chats_streams_and_binds_tools(served):
    """LangChain's ChatOpenAI invokes, streams and binds a tool."""
    model = ChatOpenAI(base_url=f"{served.url}/v1", api_key="unused", model=MODEL, temperature=0, max_retries=0)
    answer = model.invoke("What is KAITO?")
    assert WORDS in answer.content
    assert "".join(str(part.content) for part in model.stream("What is KAITO?")) == answer.content
    called = model.bind_tools([WEATHER], tool_choice="weather").invoke("What is KAITO?", **CALLING)
    assert called.tool_calls[0]["args"]["city"] in ("Paris", "Rome")


def test_the_seeds_curl_command(served):
    """The command of the project's first description, word for word but for the address."""
    command = (
        f'curl -s -X POST {served.url}/chat -H "accept: application/json" -H "Content-Type: application/json" '
        '-d "{\\"prompt\\":\\"What is KAITO?\\"}"'
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    result = json.loads(done.stdout)
    assert set(result) == {"Result"}
    assert result["Result"].startswith("What is KAITO?")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot(served, session, path, stream):
    """Dropping the connection of a long answer brings the engine's count of running requests back to zero."""
    body = {"model": MODEL, "stream": stream, "max_tokens": 1900, "min_tokens": 1900}
    body |= {"messages": QUESTION} if "chat" in path else {"prompt": "a"}

    async def leave() -> None:
        async with session.post(f"{served.url}{path}", json=body) as reply:
            await reply.content.readany()
            await asyncio.sleep(60)

    task = asyncio.create_task(leave())
    await until(lambda: running(session, served), 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: running(session, served), 0)


async def running(session, served) -> float:
    async with session.get(f"{served.url}/metrics") as reply:
        found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", await reply.text(), re.M)
    assert found
    return float(found[1])


async def until(value, wanted: float) -> None:
    async with asyncio.timeout(60):
        while await value() != wanted:
            await asyncio.sleep(0.05)
