"""training_config.yaml: six sections, the admission's rules, the libraries' names, files of older releases."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import yaml

from api import validation
from api.training_templates import TEMPLATE_CONFIG_MAPS, training_template
from api.v1alpha1.tuning import TuningMethod
from api.validation.training_config import problems
from inference_server.tuning.config import check_names, parse_config, read_config
from inference_server.tuning.errors import EXIT_UNUSABLE, TuneError


def config(text: str) -> str:
    """Sections under the root."""
    return "training_config:\n" + textwrap.indent(textwrap.dedent(text), "  ")


@pytest.mark.parametrize("method", list(TuningMethod))
def test_the_templates_are_what_upstream_ships(method: TuningMethod) -> None:
    """Both templates are admitted for their method and have upstream's values."""
    document = yaml.safe_load(training_template(method))
    sections = document["training_config"]

    assert list(problems(document, method)) == []
    assert sections["ModelConfig"] == {"torch_dtype": "bfloat16", "local_files_only": True, "device_map": "auto"}
    assert sections["QuantizationConfig"]["load_in_4bit"] is (method is TuningMethod.QLORA)
    assert sections["QuantizationConfig"]["bnb_4bit_quant_type"] == "nf4"
    assert sections["LoraConfig"] == {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
    assert sections["TrainingArguments"]["output_dir"] == "/mnt/results"
    assert sections["DatasetConfig"] == {"shuffle_dataset": True, "train_test_split": 1}
    assert TEMPLATE_CONFIG_MAPS[method] == f"{method.value}-params-template"


@pytest.mark.parametrize("method", list(TuningMethod))
def test_without_a_file_the_template_counts(method: TuningMethod) -> None:
    """A run without -f has the method's template."""
    found = read_config(None, method)

    assert found.method is method
    assert found.lora["r"] == 8


def test_a_template_is_admitted_as_a_config_map() -> None:
    """What the program ships passes the webhook's rule for tuning.config."""
    data = {"training_config.yaml": training_template(TuningMethod.QLORA)}
    workspace = {
        "apiVersion": "kaito.sh/v1alpha1",
        "kind": "Workspace",
        "metadata": {"name": "phi", "namespace": "default"},
        "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"a": "b"}}},
        "tuning": {
            "preset": {"name": "phi-3-mini-4k-instruct"},
            "method": "qlora",
            "config": "mine",
            "input": {"urls": ["https://example.com/train.parquet"]},
            "output": {"image": "registry.example.com/a/b:1", "imagePushSecret": "push"},
        },
    }

    found = validation.judge(workspace, world=validation.World(config_maps={"mine": {"data": data}}))

    assert found.violations == ()


def test_the_method_follows_from_the_bits() -> None:
    """Without a method on the command line, 4 or 8 bits mean qlora."""
    assert parse_config(config("QuantizationConfig: {load_in_8bit: true}"), None).method is TuningMethod.QLORA
    assert parse_config(config("LoraConfig: {r: 4}"), None).method is TuningMethod.LORA


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("- a", "it is no mapping", "training_config:"),
        ("a: [", "it is not YAML, line 1", "--show-template"),
        ("other: 1", "training_config is missing", "root of the file"),
        ("training_config: {}\nother: 1", "unknown key other", "under training_config"),
        (config("LoraConfg: {}"), "unknown section LoraConfg", "did you mean LoraConfig?"),
        (config("LoraConfig: [1]"), "section LoraConfig is not a mapping", "name: value"),
        (config("ModelConfig: {torch_typ: bfloat16}"), "ModelConfig has no setting torch_typ", "torch_dtype?"),
        (config("DatasetConfig: {response_colum: a}"), "no setting response_colum", "response_column?"),
        (config("DatasetConfig: {train_test_split: 0}"), "train_test_split is 0", "above 0 and up to 1"),
        (config("DatasetConfig: {shuffle_dataset: 'no'}"), "shuffle_dataset is 'no'", "write a bool"),
        (config("DatasetConfig: {shuffle_seed: true}"), "shuffle_seed is True", "write a int"),
        (
            config("QuantizationConfig: {load_in_4bit: true, load_in_8bit: true}"),
            "cannot both be true",
            "choose one",
        ),
        (config("TrainingArguments: {output_dir: /etc}"), "a folder below /mnt", "/mnt/results"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(text: str, says: str, hint: str) -> None:
    """Each rule of the file has a sentence and a next step, and ends the run before it begins."""
    with pytest.raises(TuneError) as caught:
        parse_config(text, None)

    assert says in caught.value.message
    assert hint in caught.value.next_step
    assert caught.value.exit_code == EXIT_UNUSABLE


def test_the_method_and_the_bits_must_agree() -> None:
    """--method lora with a model in 4 bits is refused in the webhook's words."""
    with pytest.raises(TuneError, match="lora does not load the model in 4 or 8 bits"):
        parse_config(config("QuantizationConfig: {load_in_4bit: true}"), TuningMethod.LORA)


def test_files_of_older_releases_go_on_working() -> None:
    """Renamed settings are translated, dropped ones are noted, and 1e-4 is a number."""
    found = parse_config(
        config("""
        TrainingArguments:
          evaluation_strategy: epoch
          max_seq_length: 512
          overwrite_output_dir: true
          group_by_length: true
          learning_rate: 1e-4
        """),
        None,
    )

    assert found.arguments == {
        "eval_strategy": "epoch",
        "max_length": 512,
        "train_sampling_strategy": "group_by_length",
        "learning_rate": 1e-4,
    }
    assert [note for note in found.notes if "overwrite_output_dir has no effect" in note]


def test_output_outside_mnt_is_for_runs_outside_a_cluster(tmp_path: Path) -> None:
    """With a folder on the command line the file's own may be anywhere."""
    file = tmp_path / "training_config.yaml"
    file.write_text(config("TrainingArguments: {output_dir: ./out}"))

    assert "output_dir" not in read_config(file, None, any_output=True).arguments
    with pytest.raises(TuneError, match="cannot be read: No such file"):
        read_config(file.with_name("none.yaml"), None)


def test_the_libraries_names_are_checked_with_a_suggestion() -> None:
    """A name that a library does not take is named with the nearest that it does."""
    found = parse_config(config("LoraConfig: {lora_alfa: 16}"), None)

    with pytest.raises(TuneError) as caught:
        check_names(found, arguments=["seed"], lora=["r", "lora_alpha"], quantization=[])

    assert caught.value.message == "LoraConfig has no setting lora_alfa"
    assert caught.value.next_step == "did you mean lora_alpha?"
