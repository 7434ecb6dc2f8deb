"""How much memory the engine may take on a CPU.

In: the model's config.json and what this machine and its control group leave free. Out: bytes for the KV cache and
the reason in words. Pure but for `available_memory`. The engine's own default takes nine tenths of a NUMA node,
which no laptop can spare; too little would reject long prompts. Hence: enough for all sequences at full length, at
most a quarter of what is free, never less than one full sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MIB = 1 << 20
_SMALLEST = 16 * MIB
_FALLBACK = 512 * MIB


def bytes_per_token(config: Mapping[str, Any], bytes_per_value: int = 2) -> int | None:
    """KV cache bytes of one token, or None if the config does not tell (another attention than the usual one)."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    hidden = config.get("hidden_size")
    if not (isinstance(layers, int) and isinstance(heads, int) and isinstance(hidden, int) and heads):
        return None
    kv_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or hidden // heads
    return int(2 * layers * kv_heads * head_size * bytes_per_value)


def kv_cache_bytes(
    config: Mapping[str, Any], available: int, sequences: int, length: int | None
) -> tuple[int, str]:
    """Bytes for the KV cache, a whole number of MiB, and why."""
    longest = length or config.get("max_position_embeddings")
    per_token = bytes_per_token(config)
    share = max(available // 4, _SMALLEST)
    if per_token is None or not isinstance(longest, int):
        return _round(min(_FALLBACK, share)), "the model's config does not tell its needs"
    one = per_token * longest
    wanted = max(one * sequences, _SMALLEST)
    if wanted <= share:
        return _round(wanted), f"{sequences} sequences of {longest} tokens"
    if one <= share:
        return _round(share), "a quarter of the free memory"
    # The engine then shortens the longest sequence instead of failing.
    return _round(
        share
    ), f"a quarter of the free memory; one sequence of {longest} tokens would need {one // MIB} MiB"


def available_memory() -> int:
    """Bytes that can be had now: the machine's, or what the control group still allows if that is less."""
    free = _FALLBACK * 4
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _round(size: int) -> int:
    return (size + MIB - 1) // MIB * MIB


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
