"""`kaito tune` as a person meets it: templates, wrong arguments, and the line on a terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from api.progress import TuneProgress, TuneStage
from kaito.tuning_progress import line, share


def tune(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    argv = [sys.executable, "-m", "kaito", "tune", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=100)


def test_a_template_can_be_printed_and_used() -> None:
    """--show-template prints the method's training_config.yaml, and nothing else."""
    done = tune("--method", "QLoRA", "--show-template")

    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["training_config"]["QuantizationConfig"]["load_in_4bit"] is True


def test_wrong_arguments_end_before_anything_is_imported(tmp_path: Path) -> None:
    """A missing file is code 2 with what to do next, within the time that Python takes to start."""
    done = tune("-f", str(tmp_path / "none.yaml"), "--data-dir", ".", "--output-dir", str(tmp_path / "out"))

    assert done.returncode == 2
    assert "none.yaml cannot be read: No such file or directory" in done.stderr
    assert "next: name a training_config.yaml with -f" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("progress", "text", "part"),
    [
        (
            {"stage": TuneStage.FETCHING, "bytes_done": 1536, "bytes_total": 3 << 20},
            "Fetching, 1.5 KiB of 3.0 MiB",
            (1536, 3 << 20),
        ),
        (
            {"stage": TuneStage.TRAINING, "step": 3, "steps": 12, "loss": 0.25, "seconds_left": 3725.0},
            "Training, step 3 of 12, loss 0.250, 1:02:05 left",
            (3, 12),
        ),
        (
            {"stage": TuneStage.LOADING, "message": "reading the dataset"},
            "Loading, reading the dataset",
            (0, None),
        ),
    ],
)
def test_a_terminal_shows_where_the_run_is(
    progress: dict[str, object], text: str, part: tuple[int, int | None]
) -> None:
    """One line with what is known, and how much of the stage is done."""
    now = TuneProgress.model_validate(progress)

    assert line(now) == text
    assert share(now) == part
