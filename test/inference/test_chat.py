"""POST /chat against a scripted engine: what goes to the engine, what comes back, and every refusal."""

from __future__ import annotations

import asyncio
import json

import pytest

from inference_server.protocol import EngineInfo, Message

PROMPT_REQUIRED = {"detail": "Text generation parameter prompt required"}


async def chat(client, body):
    reply = await client.post("/chat", json=body)
    return reply.status, await reply.json(), reply.headers


async def test_a_prompt_becomes_one_user_message_and_leads_the_result(client, engine):
    """A prompt goes through the chat template, and Result starts with it as it was sent."""
    status, body, headers = await chat(client, {"prompt": "What is KAITO?"})
    assert (status, body) == (200, {"Result": "What is KAITO?one two three"})
    assert engine.chats == [[Message("user", "What is KAITO?")]]
    assert headers["X-Kaito-Prompt-Tokens"] == "6"
    assert headers["X-Kaito-Completion-Tokens"] == "3"


async def test_the_seed_curl_without_json_content_type_is_understood(client):
    """The body is read as JSON whatever the content type says, since curl -d sends a form's."""
    reply = await client.post("/chat", data=b'{"prompt": "hi"}', headers={"Content-Type": "text/plain"})
    assert await reply.json() == {"Result": "hione two three"}


async def test_return_full_text_false_leaves_the_prompt_out(client):
    """Without the full text Result is the new text alone."""
    assert (await chat(client, {"prompt": "hi", "return_full_text": False}))[1] == {"Result": "one two three"}


async def test_raw_continuation_skips_the_template(client, engine):
    """apply_chat_template false sends the bare text to the tokenizer, as v0.3 did."""
    await chat(client, {"prompt": "once upon", "apply_chat_template": False})
    assert engine.texts == ["once upon"]
    assert engine.chats == []


async def test_a_model_without_template_continues_the_prompt(client, engine):
    """A base model gets the bare prompt, and messages are refused with the reason."""
    engine.info = EngineInfo(max_model_len=300, has_chat_template=False)
    await chat(client, {"prompt": "once upon"})
    assert engine.texts == ["once upon"]
    status, body, _ = await chat(client, {"messages": [{"role": "user", "content": "hi"}]})
    assert status == 400
    assert "no chat template" in body["detail"]


async def test_messages_go_through_the_template_and_are_not_repeated(client, engine):
    """For messages Result is the assistant's text alone."""
    turns = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hi"}]
    status, body, _ = await chat(client, {"messages": turns})
    assert (status, body) == (200, {"Result": "one two three"})
    assert engine.chats == [[Message("system", "Be brief"), Message("user", "hi")]]


async def test_prefix_reaches_the_model_but_not_the_result(client, engine):
    """prefix is put before the prompt for the model only."""
    _, body, _ = await chat(client, {"prompt": "hi", "prefix": "Say: "})
    assert engine.chats == [[Message("user", "Say: hi")]]
    assert body == {"Result": "hione two three"}


async def test_clean_up_removes_blanks_before_punctuation(client, engine):
    """clean_up_tokenization_spaces tidies the generated text."""
    engine.words = ["It is n't", " so , or"]
    body = {"prompt": "hi", "return_full_text": False, "clean_up_tokenization_spaces": True}
    assert (await chat(client, body))[1] == {"Result": "It isn't so, or"}


async def test_hole_keeps_the_end_of_a_prompt_that_is_too_long(client, engine):
    """handle_long_generation cuts the prompt's beginning so that the new tokens fit."""
    body = {"prompt": "word " * 400, "handle_long_generation": "hole", "generate_kwargs": {"max_new_tokens": 100}}
    status, _, _ = await chat(client, body)
    assert status == 200
    tokens, sampling = engine.calls[0]
    assert (len(tokens), tokens[-1], sampling.max_tokens) == (200, 402, 100)


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": ""}, {"generate_kwargs": {}}])
async def test_neither_prompt_nor_messages_is_the_prompts_400(client, engine, body):
    """A request with nothing to answer gets the seed era's literal detail."""
    status, reply, _ = await chat(client, body)
    assert (status, reply) == (400, PROMPT_REQUIRED)
    assert engine.calls == []


async def test_a_conversation_without_messages_is_the_messages_400(client, engine):
    """A request that sends an empty conversation gets the seed era's other literal detail."""
    status, reply, _ = await chat(client, {"messages": []})
    assert (status, reply) == (400, {"detail": "Conversational parameter messages required"})
    assert engine.calls == []


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        ({"prompt": 5}, ["body", "prompt"], "string_type"),
        ({"prompt": "x", "return_full_text": "maybe"}, ["body", "return_full_text"], "bool_parsing"),
        ({"messages": "hi"}, ["body", "messages"], "list_type"),
        ({"messages": [{"role": "user"}]}, ["body", "messages", 0, "content"], "missing"),
        ({"prompt": "x", "generate_kwargs": [1]}, ["body", "generate_kwargs"], "model_type"),
        (
            {"prompt": "x", "generate_kwargs": {"top_p": 2}},
            ["body", "generate_kwargs", "top_p"],
            "less_than_equal",
        ),
        (
            {"prompt": "x", "generate_kwargs": {"max_length": "many"}},
            ["body", "generate_kwargs", "max_length"],
            "int_parsing",
        ),
        ({"prompt": "x", "handle_long_generation": "x"}, ["body", "handle_long_generation"], "literal_error"),
        ([1], ["body"], "model_attributes_type"),
        ("text", ["body"], "model_attributes_type"),
    ],
)
async def test_a_body_of_wrong_types_is_422_and_names_the_field(client, engine, body, loc, kind):
    """A type error answers 422 with the place and the kind of each problem."""
    status, reply, _ = await chat(client, body)
    assert status == 422
    assert (reply["detail"][0]["loc"], reply["detail"][0]["type"]) == (loc, kind)
    assert {"type", "loc", "msg", "input"} <= set(reply["detail"][0])
    assert engine.calls == []


@pytest.mark.parametrize("raw", [b"{", b"{'prompt': 'x'}", b'{"prompt": "\\ud800"}', b"\xff", b'{"a": NaN}'])
async def test_malformed_json_is_422_with_the_position(client, raw):
    """What is not JSON answers 422 json_invalid."""
    reply = await client.post("/chat", data=raw)
    detail = (await reply.json())["detail"]
    assert (reply.status, detail[0]["type"], detail[0]["loc"][0]) == (422, "json_invalid", "body")


async def test_an_empty_body_is_422(client):
    """No body at all is a missing field."""
    reply = await client.post("/chat", data=b"")
    assert (reply.status, (await reply.json())["detail"][0]["type"]) == (422, "missing")


async def test_an_error_repeats_only_little_of_a_large_value(client):
    """A 422 does not send a large wrong value back."""
    status, reply, _ = await chat(client, {"messages": "x" * 3000})
    assert status == 422
    assert len(json.dumps(reply)) < 600


async def test_an_oversized_body_is_413(client):
    """A body over the limit answers 413 and says the limit."""
    status, reply, _ = await chat(client, {"prompt": "x" * 5000})
    assert (status, reply) == (413, {"detail": "The body is larger than 4096 bytes"})


async def test_unsupported_parameters_are_named_in_a_warning(client):
    """What the engine cannot do is named in a header, also when the name is hostile."""
    kwargs = {"num_beams": 4, "typical_p": 1, "foo\r\nX-Evil: 1": 2, "temperature": 0.5}
    status, _, headers = await chat(client, {"prompt": "hi", "generate_kwargs": kwargs})
    assert status == 200
    assert headers["Warning"] == ('299 kaito "ignored: generate_kwargs.foo??X-Evil??1, generate_kwargs.num_beams"')
    assert "X-Evil" not in headers


async def test_a_prompt_longer_than_max_length_is_a_clear_400(client):
    """The default limit of 200 tokens counts the prompt, and the error says what to raise."""
    status, reply, _ = await chat(client, {"prompt": "word " * 250})
    assert status == 400
    assert "raise generate_kwargs.max_length" in reply["detail"]


async def test_the_engines_own_refusal_is_400(client, engine):
    """What the engine rejects is the client's error, with the engine's words."""
    engine.refuse = "bad stop token"
    assert (await chat(client, {"prompt": "hi"}))[:2] == (400, {"detail": "bad stop token"})


async def test_while_loading_chat_is_503_with_retry_after(client, engine):
    """Before the model is there, /chat asks to come again."""
    engine.info = None
    status, reply, headers = await chat(client, {"prompt": "hi"})
    assert (status, reply["detail"], headers["Retry-After"]) == (503, "Model not initialized", "5")
    assert reply["progress"]["stage"] == "Loading"


async def test_a_dead_engine_is_503(client, engine):
    """Once the engine is dead /chat answers 503 and touches it no more."""
    engine.errored = True
    status, reply, _ = await chat(client, {"prompt": "hi"})
    assert status == 503
    assert "died" in reply["detail"]
    assert engine.calls == []


async def test_an_engine_that_dies_while_answering_is_503(client, engine):
    """A request in flight when the engine dies gets 503 as well."""
    engine.fail_after = 0
    assert (await chat(client, {"prompt": "hi"}))[0] == 503


def events(raw: bytes):
    return [part.removeprefix("data: ") for part in raw.decode().strip().split("\n\n")]


async def test_a_stream_carries_the_result_in_parts(client):
    """The parts of a stream joined are Result, and the last event has the usage."""
    reply = await client.post("/chat", json={"prompt": "hi", "stream": True})
    assert reply.headers["Content-Type"] == "text/event-stream"
    *parts, last, done = events(await reply.read())
    assert "".join(json.loads(part)["Result"] for part in parts) == "hione two three"
    assert json.loads(last) == {
        "Result": "",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 4, "completion_tokens": 3},
    }
    assert done == "[DONE]"


async def test_a_refusal_of_a_stream_is_still_a_status_code(client, engine):
    """What is wrong before the first piece is answered by status, not inside the stream."""
    engine.refuse = "no"
    reply = await client.post("/chat", json={"prompt": "hi", "stream": True})
    assert (reply.status, await reply.json()) == (400, {"detail": "no"})


async def test_a_stream_that_breaks_says_so(client, engine):
    """When the engine dies mid-stream an error event comes and no end mark."""
    engine.fail_after = 1
    reply = await client.post("/chat", json={"prompt": "hi", "stream": True, "return_full_text": False})
    raw = await reply.read()
    assert b"event: error\ndata: " in raw
    assert b"[DONE]" not in raw


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_ends_its_generation(client, engine, shim, stream):
    """Closing the connection aborts the request in the engine and frees its slot."""
    engine.hold = asyncio.Event()
    request = asyncio.ensure_future(client.post("/chat", json={"prompt": "hi", "stream": stream}))
    while not engine.running:
        await asyncio.sleep(0.01)
    if stream:
        (await request).close()
    else:
        request.cancel()
    async with asyncio.timeout(60):
        while engine.running:
            await asyncio.sleep(0.01)
        await shim.gate.idle.wait()
    assert engine.aborted == 1
