"""Flags, the configuration file and the model folder, checked before the engine is imported."""

from __future__ import annotations

import pytest

from inference_server import engine, memory
from inference_server.engine import prepare_environment, require_engine
from inference_server.protocol import EngineMissing
from inference_server.settings import ServeSettings, SettingsError, check_model, model_config, read_config_file


def test_the_config_files_options_lose_their_dashes(tmp_path):
    """Upstream's file shape is read, with option names as vLLM's fields."""
    path = tmp_path / "inference_config.yaml"
    path.write_text("max_probe_steps: 6\nvllm:\n  cpu-offload-gb: 0\n  --max-model-len: 512\n")
    assert read_config_file(path) == {"cpu_offload_gb": 0, "max_model_len": 512}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vlm: {}", "unknown key 'vlm'; did you mean 'vllm'"),
        ("- a", "expected a map"),
        ("vllm: [1]", "must be a map"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_config_file_says_what_is_wrong(tmp_path, text, words):
    """A slip in the file is an error with a suggestion, not a silent default."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_config_file(path)


def test_a_missing_config_file_is_named(tmp_path):
    """The error of a missing file carries its path."""
    with pytest.raises(SettingsError, match=r"nothing.yaml: No such file"):
        read_config_file(tmp_path / "nothing.yaml")


def test_a_missing_model_folder_says_what_belongs_there(tmp_path):
    """An absent path, a file, an empty folder and one without weights each get their own words."""
    with pytest.raises(SettingsError, match=r"expected a folder with config.json"):
        check_model(str(tmp_path / "none"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SettingsError, match="is a file"):
        check_model(str(file))
    with pytest.raises(SettingsError, match=r"holds no config.json"):
        check_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SettingsError, match="no weights"):
        check_model(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    check_model(str(tmp_path))
    check_model("microsoft/Phi-3-mini-4k-instruct")


def test_the_served_name_falls_back_to_preset_and_folder():
    """The name that clients see is the flag, else the preset, else the folder's name."""
    assert ServeSettings(model="/a/b", preset="p", served_model_name="n").name == "n"
    assert ServeSettings(model="/a/b", preset="p").name == "p"
    assert ServeSettings(model="/a/b").name == "b"


def test_a_missing_engine_names_the_command(monkeypatch):
    """Without vLLM the error is one line with the command that installs it."""
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineMissing, match=r"pip install 'kaito\[cpu\]'") as caught:
        require_engine()
    assert "\n" not in str(caught.value)


def test_the_environment_is_offline_for_a_local_model_and_the_users_values_stay(monkeypatch, tmp_path):
    """No usage statistics leave, a local model needs no network, and what the user set is kept."""
    environment: dict[str, str] = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    monkeypatch.setattr(engine.os, "environ", environment)
    prepare_environment(ServeSettings(model=str(tmp_path)), "ERROR")
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "VLLM_PLUGINS" not in environment
    environment.clear()
    environment["VLLM_PLUGINS"] = "mine"
    prepare_environment(ServeSettings(model="org/model"), "ERROR")
    assert "HF_HUB_OFFLINE" not in environment
    assert environment["VLLM_PLUGINS"] == "mine,kaito_cpu_fixes"


CONFIG = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("config", "available_mib", "length", "mib", "reason"),
    [
        (CONFIG, 4096, None, 16, "16 sequences of 4096 tokens"),  # 256 bytes a token
        (CONFIG | {"hidden_size": 6400}, 4096, None, 1024, "a quarter of the free memory"),
        (CONFIG | {"hidden_size": 64000}, 4096, None, 1024, "would need 1000 MiB"),
        (CONFIG | {"hidden_size": 6400}, 4096, 100, 40, "16 sequences of 100 tokens"),
        ({}, 4096, None, 512, "does not tell"),
    ],
)
def test_the_cache_is_sized_by_model_and_free_memory(config, available_mib, length, mib, reason):
    """Enough for all sequences, at most a quarter of what is free, with the reason in words."""
    size, words = memory.kv_cache_bytes(config, available_mib * memory.MIB, 16, length)
    if "would need" in reason:
        size, words = memory.kv_cache_bytes(config, 2048 * memory.MIB, 16, length)
        mib = 512
    assert size == mib * memory.MIB
    assert reason in words


def test_available_memory_is_a_sane_number():
    """What this machine reports lies between 64 MiB and 64 TiB."""
    assert 64 * memory.MIB < memory.available_memory() < 2**46


def test_a_broken_model_config_is_named(tmp_path):
    """A config.json that is not JSON is an error with its path; an absent one is empty."""
    assert model_config(str(tmp_path)) == {}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SettingsError, match=r"config.json is not JSON"):
        model_config(str(tmp_path))
