"""Engine options from people to the engine's parser: who wins, what is written how, what is refused."""

from __future__ import annotations

import json

import pytest
import yaml

from inference_server import options
from inference_server.options import Layer, arguments, merge, read_assignment, read_words
from inference_server.settings import (
    Parallel,
    ServeSettings,
    SettingsError,
    node_rank,
    parallel,
    read_api_keys,
    read_config_file,
    weights_bytes,
)
from inference_server.vllm_arguments import choose
from kaito.presetargs import preset_options


def test_the_later_layer_wins_and_says_so():
    """Each option has its last writer's value and source; None overrides nothing."""
    merged = merge(
        [Layer("device", {"a": 1, "b": 2}), Layer("flag", {"a": None, "b": 3}), Layer("file", {"c": False})]
    )
    assert merged.options == {"a": 1, "b": 3, "c": False}
    assert merged.sources == {"a": "device", "b": "flag", "c": "file"}


def test_words_after_the_dashes_are_the_engines_own():
    """Values, switches, equals signs, several values and nested names are read as the engine's command line is."""
    words = "--max-num-seqs 5 --enforce-eager --no-enable-prefix-caching --dtype=half"
    words += " --served-model-name a b --compilation-config.pass_config.fuse false"
    assert read_words(words.split()) == {
        "max_num_seqs": "5",
        "enforce_eager": True,
        "no_enable_prefix_caching": True,
        "dtype": "half",
        "served_model_name": ["a", "b"],
        "compilation_config.pass_config.fuse": "false",
    }


@pytest.mark.parametrize("words", [["5"], ["--a=1", "2"], ["--"], ["--=x"]])
def test_words_that_are_no_options_are_refused(words):
    """A value without an option is an error before the engine is loaded."""
    with pytest.raises(SettingsError, match="after --"):
        read_words(words)


def test_an_engine_argument_is_a_key_and_a_value():
    """key=value, a key alone, and values with equals signs."""
    assert read_assignment("max-model-len=4k") == ("max_model_len", "4k")
    assert read_assignment("--enable-prefix-caching") == ("enable_prefix_caching", True)
    assert read_assignment("chat_template={{ a=b }}") == ("chat_template", "{{ a=b }}")
    with pytest.raises(SettingsError, match="expected key=value"):
        read_assignment("=1")


def test_a_file_becomes_the_parsers_words(tmp_path):
    """Every YAML type of the configuration file has its form on the engine's command line."""
    path = tmp_path / "c.yaml"
    text = """
        vllm:
          cpu-offload-gb: 0
          enforce-eager: true
          enable-prefix-caching: false
          enable-auto-tool-choice: ''
          swap-space: 4.5
          compilation-config: {mode: 0, pass_config: {fuse: false}}
          compilation-config.pass_config.fuse_allreduce_rms: false
          served-model-name: [a, b]
          seed: -1
          revision: null
    """
    path.write_text(text)
    assert arguments(merge([Layer("file", read_config_file(path))]).options) == [
        "--cpu-offload-gb=0",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--enable-auto-tool-choice",
        "--swap-space=4.5",
        '--compilation-config={"mode": 0, "pass_config": {"fuse": false}}',
        "--compilation-config.pass_config.fuse_allreduce_rms=false",
        "--served-model-name",
        "a",
        "b",
        "--seed=-1",
    ]
    assert yaml.safe_load(text)["vllm"]["revision"] is None


@pytest.mark.parametrize(
    ("name", "words"),
    [("port", "use --port"), ("api_key", "use --api-key-file"), ("uvicorn_log_level", "own HTTP server")],
)
def test_options_of_the_engines_own_server_are_refused(name, words):
    """What only vLLM's HTTP server understands is refused with what to use here."""
    with pytest.raises(SettingsError, match=words):
        options.check_ours([name])


@pytest.mark.parametrize(("text", "rank"), [("0", 0), ("3", 3), ("phi-3-mini-0", 0), ("ws-12", 12)])
def test_a_nodes_rank_is_a_number_or_the_end_of_its_pods_name(text, rank):
    """The pods of a StatefulSet number themselves."""
    assert node_rank(text) == rank


@pytest.mark.parametrize("text", ["", "ws", "ws-", "ws-a", "1.5"])
def test_a_rank_that_is_none_is_refused(text):
    """A name without a number is an error that says what is expected."""
    with pytest.raises(SettingsError, match="expected a number"):
        node_rank(text)


def test_nodes_become_the_engines_options():
    """Rank, count and meeting point of several nodes are vLLM's own multi-node options; one node has none."""
    assert parallel(2, 0, 1, "0", "") == Parallel(tensor=2)
    assert parallel(2, 0, 1, "0", "").options() == {"tensor_parallel_size": 2, "pipeline_parallel_size": None}
    assert parallel(8, 2, 2, "ws-1", "ws-0.ws-headless.ns.svc:29500").options() == {
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
        "nnodes": 2,
        "node_rank": 1,
        "master_addr": "ws-0.ws-headless.ns.svc",
        "master_port": 29500,
        "distributed_executor_backend": "mp",
    }
    assert parallel(0, 2, 2, "0", "[::1]:29500").options()["master_addr"] == "::1"


@pytest.mark.parametrize(
    ("nodes", "rank", "leader", "words"),
    [
        (2, "2", "a:1", "between 0 and 1"),
        (1, "ws-1", "", "between 0 and 0"),
        (2, "0", "", "host:port"),
        (2, "0", "host", "host:port"),
        (2, "0", "host:0", "host:port"),
        (2, "0", ":99", "host:port"),
    ],
)
def test_nodes_that_cannot_meet_are_refused(nodes, rank, leader, words):
    """A rank beyond the nodes, or nodes without a meeting point, is an error that names the flag."""
    with pytest.raises(SettingsError, match=words):
        parallel(0, 0, nodes, rank, leader)


def test_api_keys_come_from_a_file_or_the_environment(tmp_path):
    """One key per line; the environment counts only without a file; an empty file is no open door."""
    path = tmp_path / "keys"
    path.write_text("one\n\n two \n")
    assert read_api_keys(path, "ignored") == {"one", "two"}
    assert read_api_keys(None, " three\n") == {"three"}
    assert read_api_keys(None, "") == read_api_keys(None, None) == frozenset()
    path.write_text("\n")
    with pytest.raises(SettingsError, match="holds no key"):
        read_api_keys(path, "three")
    with pytest.raises(SettingsError, match="No such file"):
        read_api_keys(tmp_path / "none", None)


def test_a_preset_speaks_for_its_own_architecture_only(tmp_path):
    """Tool and reasoning parsers of a preset hold for its weights and for a hub name, not for a stand-in."""
    config = tmp_path / "config.json"
    config.write_text('{"architectures": ["Phi3ForCausalLM"]}')
    assert preset_options("qwen/qwen3-8b-awq", str(tmp_path)) == {}
    found = preset_options("qwen/qwen3-8b-awq", "Qwen/Qwen3-8B-AWQ")
    assert found == {"tool_call_parser": "hermes", "enable_auto_tool_choice": "", "reasoning_parser": "qwen3"}
    assert preset_options("phi-2", "microsoft/phi-2") == {"dtype": "float16"}
    assert preset_options("phi-3-mini-4k-instruct", str(tmp_path)) == {}
    assert preset_options("none such", str(tmp_path)) == preset_options("", "") == {}
    config.write_text("{")
    assert preset_options("qwen/qwen3-8b-awq", str(tmp_path)) == {}


def test_the_size_of_the_weights_is_that_of_their_files(tmp_path):
    """The bytes of the loading progress are those of the weights that are here."""
    (tmp_path / "a.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "b.safetensors").write_bytes(b"x" * 5)
    (tmp_path / "config.json").write_text("{}")
    assert weights_bytes(str(tmp_path)) == 15
    assert weights_bytes("org/model") == 0


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default"}}, 2048),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "yarn", "factor": 8}}, 9596),
        ({"max_position_embeddings": 131072}, 9596),
        ({}, 9596),
    ],
)
def test_a_length_that_was_sized_for_another_model_is_cut(tmp_path, config, expected):
    """The operator sizes for the preset; a stand-in whose context is shorter starts with its own."""
    (tmp_path / "config.json").write_text(json.dumps(config))

    merged = choose(ServeSettings(model=str(tmp_path), max_model_len=9596), cpu=False)

    assert merged.options["max_model_len"] == expected
