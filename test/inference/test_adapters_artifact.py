"""What an adapter must be like, what it is refused for, and what its slot holds, to the last digit."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from inference_server.adapters.artifact import InvalidAdapter, examine, locate
from inference_server.adapters.base import BaseModel, read_base
from inference_server.adapters.limits import Limits
from inference_server.adapters.materialise import Part, materialise
from inference_server.testing.adapters import linear_shapes, write_adapter

MODEL = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
SHAPES = linear_shapes(MODEL)
BASE = read_base(MODEL, ("phi-3-mini-4k-instruct",))


def judge(folder: Path, limits: Limits | None = None, base: BaseModel = BASE):
    return examine(folder, base, limits or Limits())


def delta(folder: Path, module: str, scale: float) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    a = tensors[f"{module}.lora_A.weight"].astype(np.float64)
    b = tensors[f"{module}.lora_B.weight"].astype(np.float64)
    return scale * b @ a


def test_a_sound_adapter_tells_its_rank_and_scales(tmp_path):
    """Alpha over rank, or over its root for rsLoRA, with patterns for single layers."""
    facts = judge(write_adapter(tmp_path / "a", 1, SHAPES, rank=4, alpha=8))
    assert facts.rank == 4
    assert set(facts.scales.values()) == {2.0}
    stable = judge(write_adapter(tmp_path / "b", 1, SHAPES, rank=4, alpha=8, use_rslora=True))
    assert set(stable.scales.values()) == {4.0}
    mixed = judge(write_adapter(tmp_path / "c", 1, SHAPES, rank=4, alpha=8, alpha_pattern={"o_proj": 2}))
    assert {name.rpartition(".")[2]: scale for name, scale in mixed.scales.items()} == {
        "qkv_proj": 2.0,
        "o_proj": 0.5,
        "down_proj": 2.0,
    }


def test_a_slot_is_the_exact_sum_of_the_deltas(tmp_path):
    """Strength and scale are in B, ranks are stacked, layers of one adapter keep their delta."""
    one = write_adapter(tmp_path / "a", 1, SHAPES, rank=4, alpha=8)
    two = write_adapter(tmp_path / "b", 2, SHAPES, rank=8, alpha=8, targets=("qkv_proj", "gate_up_proj"))
    strengths = (0.3, 0.7)
    parts = [Part(folder, judge(folder), s) for folder, s in zip((one, two), strengths, strict=True)]
    assert materialise(parts, tmp_path / "slot") == 12
    config = json.loads((tmp_path / "slot" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == 12
    assert set(config["target_modules"]) == {"qkv_proj", "o_proj", "down_proj", "gate_up_proj"}
    modules = {name.rpartition(".lora_")[0] for name in load_file(tmp_path / "slot" / "adapter_model.safetensors")}
    for module in modules:
        expected = 0.0
        for part in parts:
            if module in part.facts.scales:
                expected = expected + delta(part.folder, module, part.strength * part.facts.scales[module])
        np.testing.assert_allclose(delta(tmp_path / "slot", module, 1.0), expected, rtol=0, atol=1e-7)
    assert len(modules) == 4 * 3


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"r": 0}, "must be a positive number"),
        ({"r": "4"}, "must be a positive number"),
        ({"lora_alpha": None}, "must be a positive number"),
        ({"r": 8}, "have the rank 4"),
        ({"alpha_pattern": {"(a+)+": 1}}, "not a name"),
        ({"rank_pattern": [1]}, "must map names"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_served_exactly_is_refused_by_name(tmp_path, config, reason):
    """Each kind of adapter that the engine or the scaling cannot do has its own sentence."""
    with pytest.raises(InvalidAdapter, match=reason):
        judge(write_adapter(tmp_path / "a", 1, SHAPES, **config))


def test_an_adapter_of_another_model_is_refused(tmp_path):
    """Unknown layers, too many layers and other sizes are told apart, with the base model's own figures."""
    other = {name.replace("qkv_proj", "q_proj"): shape for name, shape in SHAPES.items()}
    with pytest.raises(InvalidAdapter, match=r"named 'q_proj'.*qkv_proj"):
        judge(write_adapter(tmp_path / "a", 1, other, targets=("q_proj",)))
    deeper = {name.replace("layers.2.", "layers.20."): shape for name, shape in SHAPES.items()}
    with pytest.raises(InvalidAdapter, match="layer 20 and the base model has 3"):
        judge(write_adapter(tmp_path / "b", 1, deeper))
    wider = {name: (rows, 4096) for name, (rows, _) in SHAPES.items()}
    with pytest.raises(InvalidAdapter, match="4096 inputs"):
        judge(write_adapter(tmp_path / "c", 1, wider))


def test_another_base_models_name_is_a_warning_only(tmp_path):
    """The hint may be a copy's name; it is shown, and does not keep the adapter out."""
    same = "microsoft/Phi-3-mini-4k-instruct"
    assert judge(write_adapter(tmp_path / "a", 1, SHAPES, base_model_name_or_path=same)).warnings == ()
    facts = judge(write_adapter(tmp_path / "b", 1, SHAPES, base_model_name_or_path="org/other"))
    assert facts.warnings == ("it says that it was made for org/other",)


def test_too_high_a_rank_says_what_to_raise(tmp_path):
    """The engine's limit is a flag of the server."""
    folder = write_adapter(tmp_path / "a", 1, SHAPES, rank=32)
    with pytest.raises(InvalidAdapter, match=r"rank 32 is above the server's 16; raise --max-lora-rank"):
        judge(folder, Limits(max_rank=16))


def test_files_that_are_not_whole_or_can_run_code_are_refused(tmp_path):
    """A cut file, a pickle, a missing config, half a pair and a stray tensor have a sentence each."""
    whole = write_adapter(tmp_path / "a", 1, SHAPES)
    weights = whole / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(InvalidAdapter, match="cut off"):
        judge(whole)
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidAdapter, match="not a safetensors file"):
        judge(whole)
    weights.rename(whole / "adapter_model.bin")
    with pytest.raises(InvalidAdapter, match="can run code"):
        judge(whole)
    (whole / "adapter_config.json").unlink()
    with pytest.raises(InvalidAdapter, match=r"no adapter_config\.json"):
        judge(whole)
    odd = write_adapter(tmp_path / "b", 1, SHAPES)
    tensors = load_file(odd / "adapter_model.safetensors")
    first = next(iter(tensors))
    save_file({name: t for name, t in tensors.items() if name != first}, odd / "adapter_model.safetensors")
    with pytest.raises(InvalidAdapter, match="lack one of lora_A and lora_B"):
        judge(odd)
    save_file(tensors | {"x.lora_magnitude_vector": tensors[first]}, odd / "adapter_model.safetensors")
    with pytest.raises(InvalidAdapter, match="DoRA vector"):
        judge(odd)


def test_numbers_that_are_none_do_not_reach_the_engine(tmp_path):
    """An adapter with NaN would answer with noise; it is refused when its slot is made."""
    folder = write_adapter(tmp_path / "a", 1, SHAPES)
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InvalidAdapter, match="NaN"):
        materialise([Part(folder, judge(folder), 1.0)], tmp_path / "slot")


def test_the_adapter_is_found_where_people_put_it(tmp_path):
    """Under /data, at the top, or in the only folder that has one; two are too many."""
    for number, where in enumerate(("data", "", "checkpoint-3/adapter")):
        root = tmp_path / str(number)
        write_adapter(root / where, 1, SHAPES)
        assert locate(root) == root / where
    write_adapter(tmp_path / "2" / "other", 1, SHAPES)
    with pytest.raises(InvalidAdapter, match="holds 2 adapters"):
        locate(tmp_path / "2")
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidAdapter, match="/data in the image"):
        locate(tmp_path / "none")
