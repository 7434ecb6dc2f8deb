"""A run that was killed or stopped goes on where it was, and comes to the same end."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

STEPS = 8
SOAK = bool(os.environ.get("KAITO_SOAK"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, make_config: Any) -> Path:
    """A short run with a checkpoint every second step."""
    file = tmp_path_factory.mktemp("kills") / "training_config.yaml"
    file.write_text(make_config(max_steps=STEPS, save_strategy="steps", save_steps=2, warmup_steps=2))
    return file


@pytest.fixture(scope="module")
def whole(zygote: Any, config: Path, lesson: Any, model_path: Path) -> bytes:
    """The adapter of a run that nobody disturbed."""
    folder = config.parent / "whole"
    run = zygote.run(*arguments(config, lesson, model_path, folder))
    assert run.code == 0, run.text
    return (folder / "adapter_model.safetensors").read_bytes()


def arguments(config: Path, lesson: Any, model_path: Path, folder: Path) -> list[object]:
    """A run into a folder."""
    return ["-f", config, "--model", model_path, "--data-dir", lesson.file.parent, "--output-dir", folder]


def until(condition: Any, run: Any) -> None:
    """Waits for another process to come this far."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, run.text
        time.sleep(0.002)


@pytest.mark.parametrize(
    "seed_option", [(), ("--seed", 7)] if SOAK else [()], ids=lambda words: "-".join(map(str, words))
)
def test_the_same_seed_gives_the_same_adapter(
    zygote: Any,
    config: Path,
    lesson: Any,
    model_path: Path,
    whole: bytes,
    tmp_path: Path,
    seed_option: tuple[object, ...],
) -> None:
    """Two runs with one seed give equal bytes, in both files; with another seed they do not."""
    run = zygote.run(*arguments(config, lesson, model_path, tmp_path), *seed_option)

    assert run.code == 0, run.text
    assert ((tmp_path / "adapter_model.safetensors").read_bytes() == whole) is not bool(seed_option)
    name = "adapter_config.json"
    assert (tmp_path / name).read_bytes() == (config.parent / "whole" / name).read_bytes()


@pytest.mark.parametrize("number", range(20 if SOAK else 1))
def test_a_killed_run_goes_on_and_ends_the_same(
    zygote: Any,
    config: Path,
    lesson: Any,
    model_path: Path,
    whole: bytes,
    tmp_path: Path,
    seed: int,
    number: int,
) -> None:
    """SIGKILL at a random moment: the next start resumes from a whole checkpoint, to the same bytes."""
    words = arguments(config, lesson, model_path, tmp_path)
    rng = random.Random(seed)
    step = rng.randrange(0, STEPS, 2)
    victim = zygote.start(*words)
    begun = tmp_path / "checkpoints" / f"checkpoint-{step}" if step else tmp_path / "checkpoints"
    until(begun.exists, victim)
    time.sleep(rng.random() * 0.1)  # somewhere in the writing of this checkpoint or after it
    victim.kill(signal.SIGKILL)
    victim.wait()

    run = zygote.run(*words)

    assert run.code == 0, run.text
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == whole
    assert run.last.get("resumedFrom", 0) >= step - 2


def test_sigterm_saves_a_checkpoint_and_says_so(
    zygote: Any, config: Path, lesson: Any, model_path: Path, whole: bytes, tmp_path: Path, make_config: Any
) -> None:
    """SIGTERM ends a run after the step at hand with code 76 and a checkpoint; the next start goes on from it."""
    quiet = tmp_path / "training_config.yaml"
    quiet.write_text(make_config(max_steps=STEPS, warmup_steps=2))
    words = arguments(quiet, lesson, model_path, tmp_path / "out")
    victim = zygote.start(*words, "--metrics-port", 0, "--checkpoint-seconds", 0)
    until((tmp_path / "out" / "checkpoints" / "checkpoint-1" / "complete.json").exists, victim)
    victim.kill(signal.SIGTERM)

    assert victim.wait() == 76, victim.text
    assert victim.last["stage"] == "Training"
    assert "checkpoint" in victim.last["message"]
    again = zygote.run(*words)
    assert again.code == 0, again.text
    assert again.last["resumedFrom"] >= 1
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == whole
