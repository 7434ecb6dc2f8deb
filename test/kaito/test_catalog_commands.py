"""``kaito presets`` and ``kaito skus``: lists with filters, single rows, and JSON that stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kaito import cli
from kaito.errors import CliError
from kaito.preset_rows import PresetFilter, print_preset, print_presets
from kaito.sku_rows import SkuFilter, print_sku, print_skus

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "hidden_size": 512,
    "max_position_embeddings": 8192,
}


def names(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("wanted", "some", "none"),
    [
        (PresetFilter(), "phi-2", ""),
        (PresetFilter(search="PHI-4"), "microsoft/phi-4", "phi-2"),
        (PresetFilter(era="v0.3"), "phi-2", "microsoft/phi-4"),
        (PresetFilter(tunable=True), "phi-2", "falcon-7b-instruct"),
        (PresetFilter(tools=True), "qwen/qwen3-8b-awq", "phi-2"),
        (PresetFilter(reasoning=True), "qwen/qwen3-8b-awq", "mistralai/mistral-7b-v0.3"),
        (PresetFilter(fits="Standard_NC6s_v3"), "phi-3-mini-4k-instruct", "qwen/qwen3-8b-awq"),
        (PresetFilter(fits="standard_nc24ads_a100_v4", context=131_072), "phi-3-mini-128k-instruct", "phi-2"),
    ],
)
def test_filters_of_presets(
    wanted: PresetFilter, some: str, none: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each filter keeps what it names and drops the rest."""
    print_presets(wanted, "name")

    found = names(capsys)
    assert some in found
    assert none not in found


@pytest.mark.parametrize(
    ("wanted", "some", "none"),
    [
        (SkuFilter(), "Standard_NC6", ""),
        (SkuFilter(search="a100"), "Standard_NC24ads_A100_v4", "Standard_NC6s_v3"),
        (SkuFilter(cloud="aws"), "g5.xlarge", "Standard_NC6"),
        (SkuFilter(gpu="l4"), "g6.xlarge", "g5.xlarge"),
        (SkuFilter(min_memory="100Gi"), "Standard_NC48ads_A100_v4", "Standard_NC24ads_A100_v4"),
        (SkuFilter(usable=True), "Standard_NV36ads_A10_v5", "Standard_NC6s_v3"),
        (SkuFilter(fits="microsoft/phi-4"), "Standard_NC24ads_A100_v4", "Standard_NC4as_T4_v3"),
    ],
)
def test_filters_of_skus(wanted: SkuFilter, some: str, none: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each filter keeps what it names and drops the rest."""
    print_skus(wanted, None, "name")

    found = names(capsys)
    assert some in found
    assert none not in found


def test_tables_have_heads(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables name their columns; --fits adds nodes, layout and tokens; an empty list says so beside the output."""
    print_presets(PresetFilter(search="phi-2"), "wide")
    print_skus(SkuFilter(fits="phi-2", cloud="azure"), None, "table")
    print_presets(PresetFilter(search="nothing-like-it"), "table")

    shown = capsys.readouterr()
    assert shown.out.startswith("NAME ")
    for word in ("REASONING", "INSTANCE TYPE", "LAYOUT", "3.67 USD"):
        assert word in shown.out
    assert shown.err == "none matches\n"


def test_json_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """A preset's JSON has the catalogue's field names, and with --on the whole sizing."""
    print_preset("phi-4", None, "Standard_NV36ads_A10_v5", None, "json")

    obj = json.loads(capsys.readouterr().out)
    assert (obj["name"], obj["kvBytesPerToken"], obj["attention"]) == ("microsoft/phi-4", 204_800, "GQA")
    assert obj["tuning"]["totalGpuMemory"] == 70 * 1024**3
    assert (obj["sizing"]["nodes"], obj["sizing"]["pipelineParallel"]) == (2, 2)


def test_json_of_a_sku(capsys: pytest.CaptureFixture[str]) -> None:
    """An instance type's JSON has its GPUs, retirement and price with date and source."""
    print_sku("standard_nc6s_v3", None, "json")

    obj = json.loads(capsys.readouterr().out)
    assert (obj["gpus"], obj["computeCapability"], obj["retired"]) == (1, 7.0, "2025-09-30")
    assert (obj["price"]["onDemand"], obj["price"]["date"]) == (3.06, "2024-08")
    print_sku("Standard_NC6s_v3", None, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == obj


def test_one_of_each_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    """show prints labelled lines: what is corrected, where a price comes from, why something does not fit."""
    print_preset("microsoft/phi-4-mini-instruct", None, "Standard_NC6", None, "table")
    print_sku("Standard_ND96isr_H200_v5", None, "table")

    shown = capsys.readouterr().out
    assert "phi4_mini_json: upstream's rule misspells" in shown
    assert "x Standard_NC6: does not run" in shown
    assert "compute capability 3.7: the engine needs 7.0 at least" in shown
    assert "not known; --prices FILE adds it" in shown
    assert "a program sees 140.4Gi" in shown


def test_any_model_from_its_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model of no catalogue is sized from a folder with its files."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4096)
    (tmp_path / "training_args.bin").write_bytes(b"x")

    print_preset("org/qwen3-tiny", tmp_path, "Standard_NV36ads_A10_v5", None, "json")

    obj = json.loads(capsys.readouterr().out)
    assert (obj["name"], obj["weightsBytes"], obj["era"]) == ("org/qwen3-tiny", 4096, "hub")
    assert (obj["kvBytesPerToken"], obj["toolParser"], obj["sizing"]["fits"]) == (4096, "hermes", True)


@pytest.mark.parametrize(
    ("files", "fragment"),
    [
        ({}, "holds no config.json"),
        ({"config.json": "{"}, "cannot be read"),
        ({"config.json": json.dumps(CONFIG)}, "holds no *.safetensors"),
        ({"config.json": "{}", "m.safetensors": "x"}, "no number of layers"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, files: dict[str, str], fragment: str) -> None:
    """What is missing in a folder is named, as bad input."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(CliError) as caught:
        print_preset("org/m", tmp_path, "", None, "json")

    assert caught.value.exit_code == 2
    assert fragment in caught.value.message


def test_an_unknown_architecture_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose class the engine does not know is shown, with a warning."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"architectures": ["NobodysModel"]}))
    (tmp_path / "model.safetensors").write_bytes(b"x")

    print_preset("org/m", tmp_path, "", None, "table")

    assert "does not know the architecture NobodysModel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: print_preset("phi-3-mini-4k-instuct", None, "", None, "table"), "phi-3-mini-4k-instruct"),
        (lambda: print_preset("org/unknown", None, "", None, "table"), "--from"),
        (lambda: print_preset("phi-2", None, "Standard_NC6sv3", None, "table"), "Standard_NC6s_v3"),
        (lambda: print_sku("zzz", None, "table"), "kaito skus list"),
        (lambda: print_presets(PresetFilter(era="v9"), "table"), ""),
        (lambda: print_skus(SkuFilter(cloud="moon"), None, "table"), ""),
        (lambda: print_skus(SkuFilter(min_memory="lots"), None, "table"), "50Gi"),
    ],
)
def test_mistakes_get_a_next_step(call, fragment: str) -> None:
    """A name that nothing has, or a value that is none, is bad input with what to type instead."""
    with pytest.raises(CliError) as caught:
        call()

    assert caught.value.exit_code == 2
    assert fragment in caught.value.next_step


@pytest.mark.parametrize("args", [["presets"], ["skus"], ["presets", "list", "phi"], ["skus", "list", "--usable"]])
def test_the_commands_run(args: list[str]) -> None:
    """The bare nouns list everything, and options reach the filters."""
    done = CliRunner().invoke(cli.app, args)

    assert done.exit_code == 0
    assert len(done.output.splitlines()) > 3


@pytest.mark.parametrize("args", [["plan"], ["presets", "list"], ["presets", "show"], ["skus", "list"]])
def test_help_has_examples(args: list[str]) -> None:
    """--help shows commands to type."""
    done = CliRunner().invoke(cli.app, [*args, "--help"])

    assert "Examples" in done.output
    assert f"kaito {' '.join(args)}" in done.output
