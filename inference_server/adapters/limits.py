"""How many adapters, and of what rank, one engine holds; pure numbers, shared by the engine and the manager.

In: what was asked for. Out: what the engine is started with. vLLM reserves memory for ``max_loras`` adapters of
the highest rank when it starts, so both limits are a matter of a new process; every refusal says what to raise.
"""

from __future__ import annotations

from dataclasses import dataclass

# The ranks that vLLM has kernels for (vllm.config.lora.MaxLoRARanks in 0.32 and 0.33).
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LOADED_ADAPTERS = 64  # at once: the set in force, the next one, and what still drains


def engine_rank(asked: int) -> int:
    """The engine's smallest rank that holds ``asked``. Raises ValueError beyond the largest."""
    for rank in ENGINE_RANKS:
        if rank >= asked:
            return rank
    raise ValueError(f"--max-lora-rank {asked}: the engine's largest is {ENGINE_RANKS[-1]}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the running engine can take."""

    max_rank: int = 64
    max_adapters: int = 15  # in one list: two sets with a combination each fit into LOADED_ADAPTERS
    max_bytes: int = 8 << 30  # of one adapter's files
