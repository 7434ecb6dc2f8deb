"""A slot's folder: one or several adapters at their strengths, as a single adapter that needs no scaling.

In: sound adapters and strengths. Out: PEFT's two files. The delta of an adapter is strength * scale * B @ A;
the product with the factors goes into B, so that the engine applies exactly that. Several are one of the summed
rank: stacking A = [A1; A2] and B = [s1*B1, s2*B2] makes B @ A the exact sum of their deltas, which no mean or
decomposition of weights is. Ranks are filled up with zeros to be equal in all modules. Blocking: needs a
thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_server.adapters.artifact import CONFIG, WEIGHTS, AdapterFacts, InvalidAdapter

_HALF = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.weight)?")


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter of a slot. ``folder`` is where its files are."""

    folder: Path
    facts: AdapterFacts
    strength: float


def summed_rank(parts: Sequence[Part]) -> int:
    """The rank of the combination."""
    return sum(part.facts.rank for part in parts)


def materialise(parts: Sequence[Part], target: Path) -> int:
    """Write the slot into the new folder ``target``; returns its rank. Raises InvalidAdapter or OSError."""
    import torch
    from safetensors.torch import load_file, save_file

    rank = summed_rank(parts)
    stacked: dict[str, Any] = {}
    offset = 0
    for part in parts:
        for name, tensor in load_file(part.folder / WEIGHTS).items():
            found = _HALF.fullmatch(name)
            assert found is not None  # noqa: S101  `examine` has refused everything else
            if not bool(torch.isfinite(tensor).all()):
                raise InvalidAdapter(f"{name} holds numbers that are none (NaN or infinite); train it again")
            own = part.facts.ranks[found["module"]]
            if found["half"] == "A":
                whole = stacked.setdefault(name, torch.zeros(rank, tensor.shape[1]))
                whole[offset : offset + own] = tensor.float()
            else:
                factor = part.strength * part.facts.scales[found["module"]]
                whole = stacked.setdefault(name, torch.zeros(tensor.shape[0], rank))
                whole[:, offset : offset + own] = tensor.float() * factor
        offset += part.facts.rank
    modules = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in stacked})
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": modules,
        "bias": "none",
        "inference_mode": True,
    }
    target.mkdir(parents=True)
    save_file(stacked, target / WEIGHTS)
    (target / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return rank
