"""Random adapters in PEFT's layout, for tests.

In: a folder, a seed, a model's shapes. Out: the two files that ``save_pretrained`` writes. The weights are
random and large enough to change what a small model says; the same seed gives the same adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_server.adapters.safetensors import contents

TARGETS = ("qkv_proj", "o_proj", "down_proj")


def linear_shapes(model: Path) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer of a model's folder."""
    return {
        name.removesuffix(".weight"): (tensor.shape[0], tensor.shape[1])
        for file in model.glob("*.safetensors")
        for name, tensor in contents(file).items()
        if len(tensor.shape) == 2 and name.endswith("proj.weight")
    }


def write_adapter(
    folder: Path,
    seed: int,
    shapes: Mapping[str, tuple[int, int]],
    *,
    rank: int = 4,
    alpha: float = 8,
    targets: tuple[str, ...] = TARGETS,
    size: float = 0.1,
    **config: Any,
) -> Path:
    """Write an adapter; ``config`` overrides fields of ``adapter_config.json``. Returns the folder."""
    import numpy as np
    from safetensors.numpy import save_file

    chance = np.random.default_rng(seed)
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        if name.rpartition(".")[2] in targets:
            key = f"base_model.model.{name}.lora_"
            tensors[f"{key}A.weight"] = chance.normal(0, size, (rank, inputs)).astype(np.float32)
            tensors[f"{key}B.weight"] = chance.normal(0, size, (outputs, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(targets),
        "bias": "none",
        "base_model_name_or_path": "",
    } | config
    (folder / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder
