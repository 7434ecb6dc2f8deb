"""The floor of `hack.bench.serving`: the same requests as calls of AsyncLLM, in the engine's own process, no HTTP.

In: a model's folder as argument; then one line of JSON for each run: {"concurrency", "stream", "requests",
"tokens"}. Out: "ready" and, for each run, one line of JSON with its wall time, the times to the first token and
CPU seconds. The chat template is applied for each request, as a server has to.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from hack.bench.serving_usage import cpu_seconds
from inference_server.engine import VllmEngine, prepare_environment
from inference_server.loop import run_loop
from inference_server.protocol import Message
from inference_server.settings import ServeSettings

PROMPT = "What is KAITO?"


async def run(engine: VllmEngine, concurrency: int, stream: bool, requests: int, tokens: int) -> dict[str, Any]:
    """One run."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    llm: Any = engine._llm
    firsts: list[float] = []
    numbers = iter(range(requests))

    async def worker() -> None:
        for number in numbers:
            began = time.perf_counter()
            prompt = engine.encode_chat([Message("user", PROMPT)])
            parameters = SamplingParams(
                max_tokens=tokens,
                min_tokens=tokens,
                temperature=0,
                ignore_eos=True,
                output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
            )
            first = 0.0
            async for _ in llm.generate({"prompt_token_ids": prompt}, parameters, f"{began}-{number}"):
                first = first or time.perf_counter() - began
            firsts.append(first)

    before, began = cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    wall = time.perf_counter() - began
    after = cpu_seconds()
    return {
        "wall": wall,
        "firsts": firsts,
        "front": after[0] - before[0],
        "engine": after[1] - before[1],
        "client": 0.0,
    }


async def main(model: str, sequences: int) -> int:
    """Start, then answer one line with another."""
    settings = ServeSettings(model=model, served_model_name="m", max_num_seqs=sequences)
    prepare_environment(settings, "ERROR")
    engine = VllmEngine(settings)
    await engine.start()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await run(engine, **json.loads(line))), flush=True)
    await engine.stop()
    return 0


if __name__ == "__main__":
    run_loop(main(sys.argv[1], int(sys.argv[2])))
