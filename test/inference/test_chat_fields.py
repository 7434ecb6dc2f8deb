"""Every field of POST /chat on the real engine: what each one changes, seen in the answer."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
    pytest.mark.acceptance("KS-A17"),
]

PROMPT = "What is KAITO?"
GREEDY = {"do_sample": False, "max_new_tokens": 12}


@pytest.fixture
def chat(served, session):
    async def post(body: dict, status: int = 200):
        async with session.post(f"{served.url}/chat", json=body) as reply:
            answer = await reply.json()
            assert reply.status == status, answer
            return answer, reply.headers

    return post


async def result(chat, **fields) -> str:
    body = {"prompt": PROMPT, "return_full_text": False, "generate_kwargs": GREEDY} | fields
    return (await chat(body))[0]["Result"]


async def tokens(chat, **kwargs) -> tuple[int, int]:
    """Tokens of the prompt and of the answer."""
    _, headers = await chat({"prompt": "Tell me a story", "generate_kwargs": kwargs})
    return int(headers["X-Kaito-Prompt-Tokens"]), int(headers["X-Kaito-Completion-Tokens"])


async def test_the_server_says_that_it_runs_and_is_well(served, session):
    """GET / and GET /healthz have the seed era's bodies."""
    for path, body in (("/", {"message": "Server is running"}), ("/healthz", {"status": "Healthy"})):
        async with session.get(served.url + path) as reply:
            assert (reply.status, await reply.json()) == (200, body)


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": None}, {"return_full_text": False}])
async def test_a_missing_prompt_is_the_literal_400(chat, body):
    """Without a prompt the detail is the seed era's, word for word."""
    assert (await chat(body, 400))[0] == {"detail": "Text generation parameter prompt required"}


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [], "prompt": ""}])
async def test_missing_messages_is_the_literal_400(chat, body):
    """A request that means to converse and has no messages gets the seed era's other detail."""
    assert (await chat(body, 400))[0] == {"detail": "Conversational parameter messages required"}


async def test_the_metrics_have_both_shapes(served, session):
    """GET /metrics is Prometheus' text, with the engine's counters, or the seed era's JSON when asked."""
    async with session.get(f"{served.url}/metrics") as reply:
        assert "vllm:generation_tokens_total" in await reply.text()
    async with session.get(f"{served.url}/metrics", params={"format": "json"}) as reply:
        assert set(await reply.json()) == {"gpu_info", "cpu_info"}


async def test_prompt_and_messages_reach_the_same_model(chat):
    """A prompt is one user message: both ways give the same answer."""
    prompt = await result(chat)
    messages = await chat({"messages": [{"role": "user", "content": PROMPT}], "generate_kwargs": GREEDY})
    assert prompt == messages[0]["Result"]


async def test_return_full_text_repeats_the_prompt(chat):
    """By default Result is prompt and answer, otherwise the answer."""
    answer = await result(chat)
    assert await result(chat, return_full_text=True) == PROMPT + answer
    assert await result(chat, return_full_text=None) == PROMPT + answer


async def test_clean_up_tokenization_spaces_tidies_the_text(chat):
    """The field is taken, and leaves a text that needs no tidying as it is."""
    assert await result(chat, clean_up_tokenization_spaces=True) == await result(chat)


async def test_prefix_stands_before_the_prompt_for_the_model(chat):
    """A prefix lengthens what the model reads and is not repeated in Result."""
    body = {"prompt": PROMPT, "generate_kwargs": GREEDY}
    _, plain = await chat(body)
    answer, prefixed = await chat(body | {"prefix": "Please say in short: "})
    assert int(prefixed["X-Kaito-Prompt-Tokens"]) > int(plain["X-Kaito-Prompt-Tokens"])
    assert answer["Result"].startswith(PROMPT)


async def test_handle_long_generation_cuts_what_does_not_fit(chat):
    """A prompt beyond the context is refused, and cut to fit where "hole" is asked for."""
    body = {"prompt": "word " * 3000, "return_full_text": False, "generate_kwargs": GREEDY}
    assert "2048" in (await chat(body, 400))[0]["detail"]
    _, headers = await chat(body | {"handle_long_generation": "hole"})
    assert int(headers["X-Kaito-Prompt-Tokens"]) == 2048 - 12


async def test_max_length_counts_the_prompt_and_defaults_to_200(chat):
    """Prompt and answer together end at max_length, at 200 without it; max_new_tokens counts the answer alone."""
    never = {"eos_token_id": 5}  # a token that ends nothing here, so that only the limit does
    assert sum(await tokens(chat, **never)) == 200
    assert sum(await tokens(chat, max_length=50, **never)) == 50
    assert (await tokens(chat, max_new_tokens=7, **never))[1] == 7


async def test_min_length_counts_the_prompt(chat):
    """No answer ends before min_length; min_new_tokens counts the answer alone."""
    assert sum(await tokens(chat, min_length=150)) >= 150
    assert (await tokens(chat, min_new_tokens=120))[1] >= 120


async def test_sampling_fields_change_what_is_drawn(chat):
    """With one seed, each of the fields that shape the distribution leads to another text than the default."""
    prompt = "I love pizza with cheese"
    base = {"seed": 3, "temperature": 1.5, "top_k": 0, "max_new_tokens": 40}

    async def draw(**fields) -> str:
        return await result(chat, prompt=prompt, generate_kwargs=base | fields)

    plain = await draw()
    assert await draw() == plain
    for fields in (
        {"temperature": 0.1},
        {"top_k": 1},
        {"top_p": 0.01},
        {"min_p": 1.0},
        {"repetition_penalty": 50.0},
        {"presence_penalty": -2.0},
        {"frequency_penalty": -2.0},
        {"seed": 4},
    ):
        assert await draw(**fields) != plain, fields


async def test_greedy_is_the_same_each_time(chat):
    """do_sample false and temperature 0 draw nothing."""
    greedy = [await result(chat, generate_kwargs={"do_sample": False, "max_new_tokens": 30}) for _ in range(2)]
    zero = await result(chat, generate_kwargs={"temperature": 0, "max_new_tokens": 30})
    assert greedy == [zero, zero]


async def test_stop_strings_and_end_tokens_end_the_answer(chat):
    """stop, stop_strings and eos_token_id end an answer; pad_token_id has nothing to pad and is named."""
    whole = await result(chat)
    for field in ("stop", "stop_strings"):
        assert await result(chat, generate_kwargs=GREEDY | {field: ["operator"]}) == whole.partition("operator")[0]
    _, headers = await chat({"prompt": PROMPT, "generate_kwargs": {"eos_token_id": [1, 5], "pad_token_id": 0}})
    assert "pad_token_id" not in headers.get("Warning", "") or "ignored" in headers["Warning"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_beams": 1, "early_stopping": False, "typical_p": 1, "top_p": 1}, False),
        ({"num_beams": 4}, True),
        ({"early_stopping": True}, True),
        ({"typical_p": 0.5}, True),
        ({"num_return_sequences": 2}, True),
        ({"something_else": 1}, True),
    ],
)
async def test_what_is_not_honoured_is_named(chat, fields, named):
    """The seed era's fields at their defaults pass in silence; what this engine does not do is in a Warning."""
    _, headers = await chat({"prompt": PROMPT, "generate_kwargs": {"max_new_tokens": 2} | fields})
    assert all((name in headers.get("Warning", "")) is named for name in fields)


async def test_a_stream_joined_is_the_result(chat, served, session):
    """stream true gives the same text in parts, then usage and an end."""
    whole = await result(chat, return_full_text=True)
    body = {"prompt": PROMPT, "generate_kwargs": GREEDY, "stream": True}
    async with session.post(f"{served.url}/chat", json=body) as reply:
        events = [line[6:] for line in (await reply.text()).splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert "".join(json.loads(event)["Result"] for event in events[:-1]) == whole
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 12


async def test_adapter_names_none_all_or_one(chat):
    """Without adapters "", null and no field are the base model, and a name is refused with the reason."""
    plain = await result(chat)
    assert await result(chat, adapter="") == await result(chat, adapter=None) == plain
    answer, _ = await chat({"prompt": PROMPT, "adapter": "style"}, 400)
    assert "no adapter 'style'" in answer["detail"]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"prompt": 1}, ["body", "prompt"]),
        ({"prompt": "x", "adapter": ["a"]}, ["body", "adapter"]),
        ({"prompt": "x", "generate_kwargs": {"temperature": "hot"}}, ["body", "generate_kwargs", "temperature"]),
        ({"messages": [{"role": "user"}]}, ["body", "messages", 0, "content"]),
    ],
)
async def test_wrong_types_are_422_with_their_place(chat, body, loc):
    """FastAPI's shape: a list of problems, each with type, place, words and input."""
    answer, _ = await chat(body, 422)
    assert answer["detail"][0]["loc"] == loc
    assert set(answer["detail"][0]) >= {"type", "loc", "msg", "input"}
