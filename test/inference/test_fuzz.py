"""Bodies that nobody would send, over all routes, on the real engine: no fault, no lost slot, the engine lives.

A sample by default, over two thousand with KAITO_SOAK=1. The bodies follow from the run's seed.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import re
from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(find_spec("vllm") is None, reason="the engine is not installed"),
]

COUNT = 2400 if os.environ.get("KAITO_SOAK") else 150
AT_ONCE = 8
CHAT = {"role": "user", "content": "hello there"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
VALID: dict[str, dict[str, Any]] = {
    "/chat": {
        "prompt": "hello",
        "messages": [CHAT],
        "return_full_text": True,
        "clean_up_tokenization_spaces": False,
        "prefix": "x",
        "handle_long_generation": "hole",
        "stream": False,
        "adapter": "",
        "apply_chat_template": True,
        "generate_kwargs": {
            "max_new_tokens": 3, "max_length": 60, "min_length": 1, "temperature": 1.0, "top_k": 5, "top_p": 0.9,
            "repetition_penalty": 1.1, "stop": ["a"], "eos_token_id": 3, "seed": 1, "num_beams": 1, "typical_p": 1,
        },
    },
    "/v1/chat/completions": {
        "model": "phi-3-mini-4k-instruct",
        "messages": [CHAT],
        "max_tokens": 3,
        "stream": False,
        "stream_options": {"include_usage": True},
        "n": 1,
        "temperature": 0.5,
        "top_p": 1,
        "logprobs": True,
        "top_logprobs": 1,
        "stop": ["x"],
        "seed": 1,
        "logit_bias": {"5": 1},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        "chat_template_kwargs": {"a": 1},
        "add_generation_prompt": True,
        "continue_final_message": False,
        "documents": [{"title": "t", "text": "x"}],
    },
    "/v1/completions": {
        "model": "phi-3-mini-4k-instruct", "prompt": ["hello"], "max_tokens": 3, "stream": True, "echo": True,
        "n": 1, "logprobs": 1, "best_of": 1, "suffix": None, "stop_token_ids": [5], "bad_words": ["x"],
        "allowed_token_ids": [5, 6], "structured_outputs": {"choice": ["a", "b"]}, "prompt_logprobs": 1,
        "truncate_prompt_tokens": 5, "prompt_embeds": None, "vllm_xargs": {"a": 1}, "min_p": 0.1, "top_k": 3,
    },
    "/v1/embeddings": {"model": "phi-3-mini-4k-instruct", "input": "x"},
    "/v1/score": {"queries": "a", "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/pooling": {"input": "x"},
    "/tokenize": {"prompt": "hello", "messages": [CHAT], "add_special_tokens": True, "return_token_strs": True},
    "/detokenize": {"tokens": [5, 6, 7]},
}  # fmt: skip
JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 1e308, -0.5, "", "\x00", "a" * 3000, "日本語🙂", "null",
    "{{ 1/0 }}", "<|end|>", [], [[]], [None], {}, {"": None}, [1, "a", {}], {"type": "object"}, ["x"] * 50,
    [[5, 6], [7]], [10**9], [-1], {"role": "tool", "content": None}, "../../etc/passwd", "%s%n",
    {"$ref": "#/x"}, {"regex": "(" * 20}, {"grammar": "root ::="}, {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
]  # fmt: skip


def body_of(rng: random.Random, path: str) -> bytes:
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.1:
        return json.dumps(rng.choice(JUNK)).encode()
    value = copy.deepcopy(VALID[path])
    for name in rng.sample(sorted(value), rng.randrange(len(value))):
        del value[name]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        mutate(rng, value)
    raw = json.dumps(value).encode()
    return raw[: rng.randrange(len(raw))] if kind > 0.97 else raw


def mutate(rng: random.Random, value: Any) -> None:
    """Put junk somewhere."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(sorted(value)) if isinstance(value, dict) else rng.randrange(len(value))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.6:
            value = inner
            continue
        value[key] = copy.deepcopy(rng.choice(JUNK))
        return
    if isinstance(value, dict):
        value[rng.choice(["prompt", "messages", "zzz", "n"])] = copy.deepcopy(rng.choice(JUNK))


async def test_no_body_is_a_fault_or_leaks_a_slot(served, session, seed):
    """Every answer is a success, a refusal or a deadline; afterwards nothing runs, and the engine answers."""
    rng = random.Random(seed)
    cases = [(path, body_of(rng, path)) for path in (rng.choice(sorted(VALID)) for _ in range(COUNT))]
    seen: Counter[int] = Counter()
    faults: list[str] = []
    queue = iter(cases)

    async def work() -> None:
        for path, raw in queue:
            headers = {"Content-Type": "application/json", "X-Request-Timeout": "2"}
            async with session.post(served.url + path, data=raw, headers=headers) as reply:
                text = await reply.text()
            seen[reply.status] += 1
            if reply.status not in (200, 400, 404, 413, 422, 429, 504) or "Traceback" in text or "File " in text:
                faults.append(f"{reply.status} {path} {raw[:600]!r} -> {text[:300]}")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    print(f"fuzz seed={seed} {sorted(seen.items())}")
    assert not faults, "\n".join(faults[:20])
    assert seen[200] > COUNT / 20
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{served.url}/metrics") as reply:
                text = await reply.text()
            counts = re.findall(
                r"^(?:vllm:num_requests_(?:running|waiting)\{.*\}|kaito_requests_active) (\S+)$", text, re.M
            )
            if {float(count) for count in counts} == {0.0}:
                break
            await asyncio.sleep(0.1)
    async with session.post(f"{served.url}/chat", json={"prompt": "What is KAITO?"}) as reply:
        assert reply.status == 200
    assert "Traceback" not in served.log.read_text()
