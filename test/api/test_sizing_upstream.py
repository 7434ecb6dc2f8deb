"""Upstream's estimator and derivation, reproduced to the figure for its whole catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.catalog import find_preset, preset, presets, sku
from api.catalog.derive import (
    Weights,
    disk_for,
    preset_from,
    readiness_timeout,
    shape_of,
    weights_of,
)
from api.catalog.rules import rules
from api.quantity import GIB
from api.sizing.upstream import DoesNotFit, estimate, nodes_for

EXPECTED: dict[str, dict[str, list[int]]] = json.loads(
    (Path(__file__).parent / "upstream_estimates.json").read_text("utf-8")
)
NEW = [item for item in presets() if item.era == "v0.12"]


@pytest.mark.parametrize("item", NEW, ids=lambda item: item.name)
def test_upstreams_estimates(item) -> None:
    """GPUs and nodes on the six instance types of upstream's table are upstream's, for each of its models."""
    for instance_type, (gpus, nodes) in EXPECTED[item.name].items():
        found = sku(instance_type)
        assert found is not None
        estimated = estimate(item.weights_bytes, item.kv_bytes_per_token, found.gpus, found.total_gpu_memory)
        assert (estimated.gpus, estimated.nodes) == (gpus, nodes), instance_type


def test_the_table_is_complete() -> None:
    """All 60 models on all six instance types."""
    assert sorted(EXPECTED) == sorted(item.name for item in NEW)
    assert {len(row) for row in EXPECTED.values()} == {6}
    assert len(NEW) == 60


@pytest.mark.acceptance("KS-A18")
@pytest.mark.parametrize(
    ("name", "instance_type", "count", "nodes"),
    [
        (None, "Standard_NC24ads_A100_v4", 3, 3),
        (None, "Standard_NC24ads_A100_v4", None, 1),
        ("falcon-7b", "Standard_NV36ads_A10_v5", None, 1),
        ("falcon-7b", "Standard_NC24ads_A100_v4", None, 1),
        ("qwen2.5-coder-32b-instruct", "Standard_NC24ads_A100_v4", None, 2),
        ("phi-4", "Standard_NV36ads_A10_v5", None, 2),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", None, 3),
        ("llama-3.3-70b-instruct", "Standard_NC96ads_A100_v4", None, 1),
    ],
)
def test_upstreams_unit_rows(name: str | None, instance_type: str, count: int | None, nodes: int) -> None:
    """The rows of upstream's own estimator tests."""
    assert nodes_for(find_preset(name) if name else None, sku(instance_type), count=count) == nodes


@pytest.mark.acceptance("KS-A18")
def test_upstreams_errors() -> None:
    """An unknown instance type is an error; a GPU that the overhead fills holds no model."""
    with pytest.raises(ValueError, match="not in the catalogue"):
        nodes_for(preset("falcon-7b"), None)
    with pytest.raises(DoesNotFit):
        estimate(8 * GIB, 131_072, 1, 2 * GIB)
    assert estimate(8 * GIB, 131_072, 4, 320 * GIB).nodes == 1


# ------------------------------------------------------------------------------ derivation

CONFIGS = {
    "phi-4-mini": (
        {"num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8, "hidden_size": 3072},
        7.15,
        131_072,
        "87Gi",
    ),
    "falcon-7b": (
        {"n_layer": 32, "n_head": 71, "hidden_size": 4544, "multi_query": True},
        13.44,
        8192,
        "93Gi",
    ),
    "ministral-3-8b": (
        {
            "text_config": {
                "num_hidden_layers": 34,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
            }
        },
        9.70,
        139_264,
        "89Gi",
    ),
    "mistral-large": (
        {
            "n_layers": 61,
            "n_heads": 128,
            "n_kv_heads": 128,
            "kv_lora_rank": 512,
            "qk_rope_head_dim": 64,
            "dim": 7168,
        },
        634.70,
        70_272,
        "714Gi",
    ),
    "deepseek-r1": (
        {"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
        641.30,
        70_272,
        "721Gi",
    ),
    "qwen3-8b": (
        {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        15.26,
        147_456,
        "95Gi",
    ),
    "qwen3-8b-awq": (
        {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        5.68,
        147_456,
        "85Gi",
    ),
}


@pytest.mark.acceptance("KS-A19")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_bytes_per_token_and_disk(name: str) -> None:
    """Cache per token and disk follow from a model's own files, in every dialect of config.json."""
    config, gib, per_token, disk = CONFIGS[name]

    assert shape_of(config).kv_bytes_per_token == per_token
    assert disk_for(int(gib * GIB)) == disk


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        ({"num_key_value_heads": 8}, "MHA"),
        ({"num_key_value_heads": 4}, "GQA"),
        ({"num_key_value_heads": 1}, "MQA"),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, "MLA"),
        ({}, "MHA"),
        ({"multi_query": True}, "MQA"),
        ({"multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 4}, "GQA"),
    ],
)
def test_attention_kinds(config: dict, attention: str) -> None:
    """Heads say how queries share keys and values."""
    base = {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 512}

    assert shape_of(base | config).attention == attention


def test_shapes_of_odd_files() -> None:
    """JSON's NaN and Infinity are tolerated, a nested model is lifted up, and what is missing is an error."""
    text = (
        '{"architectures": ["A"], "num_attention_heads": NaN, "max_position_embeddings": Infinity, '
        '"llm_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}}'
    )

    found = shape_of(json.loads(text))

    assert (found.architecture, found.layers, found.context_limit) == ("A", 2, None)
    with pytest.raises(ValueError, match="layers and attention heads"):
        shape_of({"hidden_size": 64})
    with pytest.raises(ValueError, match="hidden_size"):
        shape_of({"num_hidden_layers": 2, "num_attention_heads": 4})


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
            "pack-quantized",
        ),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, "NVFP4"),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, "fp8"),
    ],
)
def test_quantization(config: dict, method: str | None) -> None:
    """The quantisation is the method, or what is inside a container format."""
    base = {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 512}

    assert shape_of(base | config).quantization == method


@pytest.mark.parametrize(
    ("files", "size", "mistral"),
    [
        ({"consolidated-00001-of-2.safetensors": 5, "model.safetensors": 9, "x.bin": 1}, 5, True),
        (
            {"model-1.safetensors": 4, "model-2.safetensors": 5, "pytorch_model.bin": 1, "onnx/m.safetensors": 9},
            9,
            False,
        ),
        ({"pytorch_model.bin": 7, "training_args.bin": 1}, 7, False),
        ({"model.gguf": 7}, None, False),
    ],
)
def test_which_files_are_the_weights(files: dict[str, int], size: int | None, mistral: bool) -> None:
    """Consolidated files before safetensors before .bin, and nothing from sub-folders."""
    found = weights_of(files)

    assert (found.size if found else None) == size
    assert (found.mistral_format if found else False) == mistral


@pytest.mark.parametrize("item", NEW, ids=lambda item: item.name)
def test_the_catalogue_follows_the_rules(item) -> None:
    """Disk and time limit of every catalogued model are what the rules give for its weights."""
    assert item.disk == disk_for(item.weights_bytes)
    assert item.readiness_timeout == readiness_timeout(item.weights_bytes)


@pytest.mark.parametrize("item", NEW, ids=lambda item: item.name)
def test_run_params_follow_the_rules(item) -> None:
    """The engine's parameters of every catalogued model are what the rules give for its name."""
    derived = rules().run_params(
        item.hf_id,
        item.architecture,
        quantized=item.quantization is not None,
        mistral_format=item.run_params["load_format"] == "mistral",
    )

    own_template = item.run_params.get("chat-template")
    assert derived | ({"chat-template": own_template} if own_template else {}) == dict(item.run_params)


def test_any_model_of_the_hub() -> None:
    """A model that no catalogue lists gets the same treatment from its own files."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
    }

    found = preset_from("Qwen/Qwen3-8B", config, Weights(("m.safetensors",), int(15.26 * GIB), False), rules())

    assert (found.name, found.disk, found.kv_bytes_per_token) == ("qwen/qwen3-8b", "95Gi", 147_456)
    assert (found.tool_parser, found.reasoning_parser) == ("hermes", "qwen3")
    assert found.run_params["dtype"] == "bfloat16"


# ------------------------------------------------------------------------------ upstream's slips


@pytest.mark.parametrize(
    ("name", "tool", "upstreams"),
    [
        ("microsoft/phi-4-mini-instruct", "phi4_mini_json", None),
        ("deepseek-ai/deepseek-r1-distill-llama-8b", None, "deepseek_v3"),
        ("deepseek-ai/deepseek-r1-distill-qwen-14b", None, "deepseek_v3"),
        ("deepseek-ai/deepseek-r1-0528", "deepseek_v3", "deepseek_v3"),
    ],
)
def test_parsers_that_upstream_got_wrong(name: str, tool: str | None, upstreams: str | None) -> None:
    """A misspelt rule and rules for another network are mended, and the preset says so."""
    found = preset(name)

    assert found.tool_parser == tool == found.run_params.get("tool-call-parser")
    assert rules().tool_parser(name, found.architecture, upstream=True) == upstreams
    assert bool(found.corrections) == (tool != upstreams)


def test_gated_models_say_so() -> None:
    """Llama's and Gemma 3's licences want a token, which upstream's catalogue never asks for."""
    gated = {item.name for item in NEW if item.gated}

    assert gated == {
        "meta-llama/llama-3.1-8b-instruct",
        "meta-llama/llama-3.3-70b-instruct",
        "google/gemma-3-4b-it",
        "google/gemma-3-27b-it",
    }
