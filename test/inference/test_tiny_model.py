"""The packaged stand-in weights: complete, small, honest about what they are."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path

import pytest

FOLDER = Path(str(files("kaito.local"))) / "models" / "tiny-phi3"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def trainer():
    spec = importlib.util.spec_from_file_location("train_tiny_model", ROOT / "hack" / "train_tiny_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_folder_is_a_complete_model_under_six_megabytes():
    """Everything that an engine loads is in the package, and small enough for the repository."""
    names = {path.name for path in FOLDER.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "README.md",
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000


def test_the_weights_are_the_size_that_the_readme_says():
    """The README names the number of parameters, and says that these are not Phi-3's."""
    with (FOLDER / "model.safetensors").open("rb") as weights:
        header = json.loads(weights.read(int.from_bytes(weights.read(8), "little")))
    header.pop("__metadata__")
    values = 0
    for tensor in header.values():
        assert tensor["dtype"] == "BF16"
        size = 1
        for length in tensor["shape"]:
            size *= length
        values += size
    readme = (FOLDER / "README.md").read_text()
    assert f"{values:,} parameters" in readme
    assert readme.startswith("# Stand-in weights, not Phi-3")


def test_the_template_ends_where_the_assistant_speaks():
    """The tokenizer carries Phi-3's turns for readers of either file."""
    settings = json.loads((FOLDER / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == (FOLDER / "chat_template.jinja").read_text()
    assert "<|assistant|>" in settings["chat_template"]


def test_the_corpus_is_read_whole(trainer):
    """Every question has its answer, no question has two, and slips are named by line."""
    entries = trainer.read_corpus(trainer.CORPUS)
    questions = [
        question.lower() for entry in entries for question in dict.fromkeys(q.lower() for q in entry.questions)
    ]
    assert len(entries) > 100
    assert len(questions) == len(set(questions))
    assert max(len(entry.answer.split()) for entry in entries) <= 60


def test_a_slip_in_the_corpus_is_named(trainer, tmp_path):
    """A line that is neither question nor answer is an error with its number."""
    path = tmp_path / "corpus.txt"
    path.write_text("Q: a | b\nA: c\n\nstray\n")
    with pytest.raises(ValueError, match=r":4: expected"):
        trainer.read_corpus(path)
