"""What the HTTP server's CPU is beside one decoding step of a model that people use.

The model is Phi-3-mini's configuration (3072 wide, 32 heads, 8192 in the feed-forward part, 32064 words) with
dummy weights, which take as long to compute with as real ones. Where 7.6 GB of weights do not fit, a step's time
is taken at two smaller depths and drawn out to 32 layers, since what a layer costs does not depend on how many
there are. The server's CPU for each token is what `hack.bench.serving` printed (`us/token`, streaming).

Usage: python -m hack.bench.decoding_share --cpu-us 40 [--layers 2,4] [--batches 1,8] [--steps 8]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

LAYERS = 32
PHI_3_MINI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "pad_token_id": 32000,
}


async def measure(folder: Path, layers: int, batches: list[int], steps: int) -> dict[int, float]:
    """Seconds of a decoding step by batch: the smallest of three runs, since others may use the machine."""
    from inference_server.engine import VllmEngine, prepare_environment
    from inference_server.settings import ServeSettings

    (folder / "config.json").write_text(json.dumps(PHI_3_MINI | {"num_hidden_layers": layers}))
    settings = ServeSettings(
        model=str(folder),
        max_model_len=512,
        max_num_seqs=max(batches),
        kv_cache_bytes=1 << 29,
        engine_args={"load_format": "dummy", "skip_tokenizer_init": False},
    )
    prepare_environment(settings, "ERROR")
    engine = VllmEngine(settings)
    await engine.start()
    llm: Any = engine._llm
    try:
        return {batch: min([await step(llm, batch, steps) for _ in range(3)]) for batch in batches}
    finally:
        await engine.stop()


async def step(llm: Any, batch: int, steps: int) -> float:
    """Seconds between the first token of all and the last, over the number of steps."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    parameters = SamplingParams(
        max_tokens=steps + 1, ignore_eos=True, temperature=0, detokenize=False, output_kind=RequestOutputKind.DELTA
    )

    async def one(number: int) -> tuple[float, float]:
        prompt = {"prompt_token_ids": [5 + number] * 8}
        outputs = llm.generate(prompt, parameters, f"{time.perf_counter()}-{number}")
        times = [time.perf_counter() async for _ in outputs]
        return times[0], times[-1]

    found = await asyncio.gather(*(one(number) for number in range(batch)))
    return (max(last for _, last in found) - max(first for first, _ in found)) / steps


def main() -> None:
    """Each depth in a process of its own, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-us", type=float, required=True, help="of the server's front process for each token")
    parser.add_argument("--layers", default="2,4", help=f"one depth ({LAYERS} is the model), or two to draw out")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    batches = [int(batch) for batch in asked.batches.split(",")]
    if asked.one is not None:
        from inference_server.loop import run_loop

        async def print_one() -> int:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                tiny = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
                for file in tiny.iterdir():
                    if file.suffix != ".safetensors":
                        shutil.copy(file, folder)
                print(json.dumps(await measure(folder, asked.one, batches, asked.steps)))
            return 0

        run_loop(print_one())
        return
    found: dict[int, dict[str, float]] = {}
    for layers in map(int, asked.layers.split(",")):
        flags = ["--cpu-us=0", f"--one={layers}", f"--batches={asked.batches}", f"--steps={asked.steps}"]
        command = [sys.executable, "-m", "hack.bench.decoding_share", *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        found[layers] = json.loads(done.stdout.splitlines()[-1])
        times = "  ".join(f"batch {batch}: {seconds * 1e3:.1f} ms" for batch, seconds in found[layers].items())
        print(f"{layers} layers, a step: {times}", flush=True)
    print(
        f"\n{LAYERS} layers{'' if LAYERS in found else ' (drawn out)'}, {asked.cpu_us:g} us of CPU for each token:"
    )
    for batch in batches:
        whole = at_full_depth({layers: times[str(batch)] for layers, times in found.items()})
        cpu = asked.cpu_us / 1e6 * batch
        print(
            f"  batch {batch:2}: a step {whole * 1e3:7.1f} ms, the server {cpu * 1e3:5.2f} ms, {cpu / whole:.2%}"
        )


def at_full_depth(times: dict[int, float]) -> float:
    """The time at the model's depth, on the line through the shallowest and the deepest that were measured."""
    low, high = min(times), max(times)
    if low == high:
        return times[low] * (1 if low == LAYERS else LAYERS / low)
    slope = (times[high] - times[low]) / (high - low)
    if slope <= 0:
        raise SystemExit("more layers took no more time: the machine was too busy for a measurement; try again")
    return times[high] + slope * (LAYERS - high)


if __name__ == "__main__":
    main()
