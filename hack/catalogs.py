"""Turns the collected upstream tables into the packaged catalogues of ``api/catalog``.

In: a folder with ``kaito_presets.json`` and ``azure_skus.json`` (figures collected from upstream releases).
Out: JSON documents as text. Run through ``hack/generate.py --data FOLDER``. The seed's era decides: the
17 presets of v0.3 keep their names and v0.3.1's figures; what that era did not record (weights, context, KV
cache, architecture) is taken from the newer catalogue where it is the same model on the hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from api.catalog.derive import disk_for, is_gated, kv_is_upper_bound, readiness_timeout, shape_of
from api.catalog.rules import Rules, short_name
from api.quantity import to_bytes
from hack.machine_rows import as_text, prices, skus

Obj = dict[str, Any]

BASE_IMAGE: Final = "kaito-base"

# Of the v0.3 models that the newer catalogue lacks: parameters (published counts; weights are two bytes each),
# licence, and what of the model's config.json the derivation reads.
_OLD_MODELS: Final[dict[str, tuple[int, str, Obj]]] = {
    "falcon-7b": (
        7_217_189_760,
        "apache-2.0",
        {
            "architectures": ["FalconForCausalLM"],
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
        },
    ),
    "falcon-40b": (
        41_303_293_952,
        "apache-2.0",
        {
            "architectures": ["FalconForCausalLM"],
            "hidden_size": 8192,
            "num_hidden_layers": 60,
            "num_attention_heads": 128,
            "num_key_value_heads": 8,
            "max_position_embeddings": 2048,
        },
    ),
    "llama-2-7b": (
        6_738_415_616,
        "llama2",
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
        },
    ),
    "llama-2-13b": (
        13_015_864_320,
        "llama2",
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "max_position_embeddings": 4096,
        },
    ),
    "llama-2-70b": (
        68_976_648_192,
        "llama2",
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
        },
    ),
    "phi-2": (
        2_779_683_840,
        "mit",
        {
            "architectures": ["PhiForCausalLM"],
            "hidden_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
        },
    ),
}

_FALCON_40B_DISK: Final = "400Gi"  # upstream wrote "400", which is 400 bytes; the model needs the unit


def documents(data: Path) -> Iterator[tuple[str, str]]:
    """``(file name, text)`` of every catalogue."""
    collected: Obj = json.loads((data / "kaito_presets.json").read_text(encoding="utf-8"))
    machines: Obj = json.loads((data / "azure_skus.json").read_text(encoding="utf-8"))
    yield "presets.json", as_text([*_old_presets(collected), *_new_presets(collected)])
    yield "architectures.json", as_text(sorted(collected["v0_12"]["supportedArchitectures"]))
    yield "rules.json", json.dumps(collected["v0_12"]["generatorRules"], indent=1) + "\n"
    yield "skus.json", as_text(list(skus(machines)))
    yield "prices.json", prices()


# ------------------------------------------------------------------------------ presets


def _old_presets(collected: Obj) -> Iterator[Obj]:
    newer = {model["hfId"].lower(): model for model in collected["v0_12"]["models"]}
    rules = Rules.from_obj(collected["v0_12"]["generatorRules"])
    for entry in collected["history"]["v0.3.1"]:
        name: str = entry["name"]
        inference: Obj = entry["inference"]
        hf_id, revision = _hub(entry["hfVersion"])
        model = newer.get((hf_id or "").lower())
        if model is not None:
            facts = _facts(model, rules)
            weights, license_ = to_bytes(model["modelFileSize"]), model["license"]
        else:
            parameters, license_, config = _OLD_MODELS[name.removesuffix("-instruct").removesuffix("-chat")]
            facts, weights = _derived(name, config, rules), 2 * parameters
        disk = str(inference["diskStorageRequirement"])
        yield {
            "name": name,
            "era": "v0.3",
            "family": inference["modelFamilyName"],
            "architecture": facts.pop("architecture"),
            "image": f"kaito-{name}",
            "imageTag": inference.get("imageTag") or entry["catalogTag"],
            "private": inference["imageAccessMode"] == "private",
            "weightsInImage": True,
            "weightsBytes": weights,
            "disk": _FALCON_40B_DISK if disk == "400" else disk,
            "gpuCount": int(inference["gpuCountRequirement"]),
            "totalGpuMemory": to_bytes(inference["totalGPUMemoryRequirement"]),
            "perGpuMemory": to_bytes(inference["perGPUMemoryRequirement"]),
            "readinessTimeout": 60 * inference["readinessTimeoutMin"],
            "distributed": entry["supportsDistributed"],
            "tuning": _old_tuning(entry["tuning"]),
            **facts,
            "worldSize": inference.get("worldSize"),
            "runParams": inference["modelRunParams"],
            "license": license_,
            "hfId": hf_id,
            "hfRevision": revision,
            "aliases": [],
            "corrections": ["upstream writes the disk as 400 without a unit"] if disk == "400" else [],
        }


def _facts(model: Obj, rules: Rules) -> Obj:
    """What the derivation says about a row of the newer catalogue."""
    config = {
        "architectures": model["architectures"],
        "hidden_size": model["hiddenSize"],
        "num_hidden_layers": model["numHiddenLayers"],
        "num_attention_heads": model["numAttentionHeads"],
        "num_key_value_heads": model["numKeyValueHeads"],
        "head_dim": model["headDim"],
        "kv_lora_rank": model["kvLoraRank"],
        "qk_rope_head_dim": model["qkRopeHeadDim"],
        "max_position_embeddings": model["modelTokenLimit"],
        "quantization_config": {"quant_method": model["quantMethod"]} if model["quantMethod"] else None,
    }
    return _derived(str(model["hfId"]), config, rules)


def _derived(name: str, config: Obj, rules: Rules) -> Obj:
    shape = shape_of(config)
    return {
        "architecture": shape.architecture,
        "contextLimit": shape.context_limit,
        "kvBytesPerToken": shape.kv_bytes_per_token,
        "attention": str(shape.attention),
        "layers": shape.layers,
        "attentionHeads": shape.attention_heads,
        "kvHeads": shape.kv_heads,
        "kvUpperBound": kv_is_upper_bound(shape.architecture),
        "quantization": shape.quantization,
        "toolParser": rules.tool_parser(name, shape.architecture),
        "reasoningParser": rules.reasoning_parser(name, shape.architecture),
    }


def _old_tuning(tuning: Obj | None) -> Obj | None:
    if tuning is None:
        return None
    disk = str(tuning["diskStorageRequirement"])
    return {
        "disk": disk,
        "gpuCount": int(tuning["gpuCountRequirement"]),
        "totalGpuMemory": to_bytes(tuning["totalGPUMemoryRequirement"]),
        "perGpuMemory": to_bytes(tuning["perGPUMemoryRequirement"]),
    }


def _new_presets(collected: Obj) -> Iterator[Obj]:
    base: Obj = collected["v0_12"]
    rules = Rules.from_obj(base["generatorRules"])
    revisions = {
        str(hf_id).lower(): revision
        for hf_id, revision in (_hub(row.get("version")) for row in base["supportedModelsYaml"])
        if hf_id
    }
    for model in base["models"]:
        short = short_name(str(model["hfId"]))
        weights = to_bytes(model["modelFileSize"])
        tuning = next(
            (base["tuning"][alias] for alias in (short, *model["legacyAliases"]) if alias in base["tuning"]), None
        )
        facts = _facts(model, rules)
        params, corrections = _run_params(model, facts)
        yield {
            "name": model["registryKey"],
            "era": "v0.12",
            "family": _family(short),
            "architecture": facts.pop("architecture"),
            "image": BASE_IMAGE,
            "imageTag": base["baseImage"]["tag"],
            "private": False,
            "weightsInImage": False,
            "weightsBytes": weights,
            "disk": disk_for(weights),
            "gpuCount": 1,  # the least; the plan counts from the weights and the instance type
            "totalGpuMemory": weights,
            "perGpuMemory": 0,
            "readinessTimeout": readiness_timeout(weights),
            "distributed": model["supportsDistributed"],
            "tuning": None
            if tuning is None
            else {
                "disk": tuning["disk"],
                "gpuCount": 1,
                "totalGpuMemory": to_bytes(tuning["totalGPUMem"]),
                "perGpuMemory": 0,
            },
            **facts,
            "worldSize": None,
            "runParams": params,
            "license": model["license"],
            "gated": is_gated(model["license"]),
            "hfId": model["hfId"],
            "hfRevision": revisions.get(str(model["hfId"]).lower()),
            "aliases": sorted({short, *model["legacyAliases"]}),
            "corrections": corrections,
        }


def _run_params(model: Obj, facts: Obj) -> tuple[dict[str, str], list[str]]:
    """The engine's parameters with our corrections, and a note for each of these."""
    params = {key: _param(value) for key, value in model["vllmModelRunParams"].items()}
    notes: list[str] = []
    tool = facts["toolParser"]
    if params.get("tool-call-parser") != tool:
        if tool:
            params |= {"tool-call-parser": tool, "enable-auto-tool-choice": ""}
            notes.append(f"tool parser {tool}: upstream's rule misspells the model's name and finds none")
        else:
            for key in ("tool-call-parser", "enable-auto-tool-choice", "chat-template"):
                params.pop(key, None)
            params["tokenizer_mode"] = "auto"
            notes.append(
                "no tool parser, template or tokenizer of DeepSeek V3: this is a distilled "
                f"{facts['architecture'].removesuffix('ForCausalLM')} model and has that family's tokens"
            )
    if is_gated(model["license"]):
        notes.append("gated on the hub: upstream's catalogue does not ask for a token")
    return params, notes


def _param(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _family(short: str) -> str:
    """The first word of a model's name, with its version: "qwen2.5-coder-7b-instruct" → "qwen2.5"."""
    return short.removeprefix("nvidia-").split("-", 1)[0]


def _hub(version: str | None) -> tuple[str | None, str | None]:
    match = re.fullmatch(r"https://huggingface\.co/([^/]+/[^/]+)/commit/([0-9a-f]+)", version or "")
    return (match.group(1), match.group(2)) if match else (None, None)
