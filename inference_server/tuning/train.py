"""The training loop: transformers' trainer over our tokens, with our checkpoints and our progress.

In: a prepared model, a corpus, the configuration. Out: the trained adapter in the model, or the word that it was
stopped. Runs in a thread of its own; the event loop goes on answering. Seeded: on a CPU the same seed, data,
versions and number of threads give the same adapter, byte for byte, also when the run was killed and resumed in
between.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from inference_server.tuning import checkpoints
from inference_server.tuning.board import Board
from inference_server.tuning.config import TrainingConfig
from inference_server.tuning.corpus import Corpus
from inference_server.tuning.encode import IGNORED
from inference_server.tuning.errors import one_line
from inference_server.tuning.model import Prepared
from inference_server.tuning.precision import NumberFormat
from inference_server.tuning.settings import TuneSettings, unusable

logger = logging.getLogger("kaito.inference_server.tuning.train")

_OURS: Final = ("max_length", "completion_only_loss", "assistant_only_loss", "output_dir", "bf16", "fp16")
_LOG_SECONDS: Final = 10.0  # between two lines about steps
DEFAULT_LONGEST: Final = 2048


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended. ``saved`` is the checkpoint that a stopped run left."""

    steps: int
    loss: float | None
    stopped: bool
    saved: int | None


def train(
    prepared: Prepared,
    corpus: Corpus,
    config: TrainingConfig,
    settings: TuneSettings,
    *,
    folder: Path,
    mark: str,
    board: Board,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Trains to the end, or until ``stop`` is set: then a checkpoint is saved after the step at hand."""
    arguments = make_arguments(prepared, corpus, config, settings, folder)
    begin = checkpoints.newest(folder, mark) if settings.resume else None
    checkpoints.clear(folder, begin)
    transformers.set_seed(arguments.seed)
    torch.use_deterministic_algorithms(not prepared.device.is_gpu, warn_only=True)
    watcher = _make_callback(board, stop, mark, folder, settings.checkpoint_seconds, clock)
    trainer: Any = transformers.Trainer(
        model=prepared.model,
        args=arguments,
        train_dataset=corpus.train,
        eval_dataset=corpus.evaluation,
        data_collator=Collator(prepared.tokenizer.pad_token_id, config.collator.get("pad_to_multiple_of")),
        processing_class=prepared.tokenizer,
        callbacks=[watcher],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    board.set(resumed_from=begin.step if begin else None)
    trainer.train(resume_from_checkpoint=str(begin.path) if begin else None)
    state = trainer.state
    done = state.global_step >= state.max_steps
    return Outcome(state.global_step, board.now.loss, stop.is_set() and not done, watcher.sealed)


def make_arguments(
    prepared: Prepared, corpus: Corpus, config: TrainingConfig, settings: TuneSettings, folder: Path
) -> Any:
    """The trainer's arguments: the configuration's over ours. Raises TuneError."""
    given = {key: value for key, value in config.arguments.items() if key not in _OURS}
    if settings.max_steps is not None:
        given["max_steps"] = settings.max_steps
    if settings.seed is not None:
        given["seed"] = settings.seed
    gpu = prepared.device.is_gpu
    ours: dict[str, Any] = {
        "save_total_limit": 2,
        "logging_steps": _logging_steps(corpus, given),
        "report_to": "none",
        "gradient_checkpointing": gpu,
        "disable_tqdm": True,  # who runs us shows progress from the board
        "dataloader_pin_memory": gpu,
        "eval_strategy": "epoch" if corpus.evaluation is not None else "no",
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
    merged = {
        **ours,
        **given,
        "output_dir": str(folder),
        "bf16": prepared.number_format is NumberFormat.BFLOAT16,
        "fp16": prepared.number_format is NumberFormat.FLOAT16,
        "use_cpu": not gpu or bool(given.get("use_cpu")),
    }
    if corpus.evaluation is None:
        merged["eval_strategy"] = "no"
    if merged["save_total_limit"] == 1:
        merged["save_total_limit"] = 2  # the one before goes only once the new one is whole
    if merged["gradient_checkpointing"]:
        merged.setdefault("gradient_checkpointing_kwargs", {"use_reentrant": False})
    try:
        return transformers.TrainingArguments(**merged)
    except (TypeError, ValueError, ImportError) as error:
        raise unusable(f"TrainingArguments: {one_line(str(error))}", "mend it in training_config.yaml") from error


def longest(prepared: Prepared, config: TrainingConfig) -> int:
    """Tokens of one example."""
    limit = int(getattr(prepared.model.config, "max_position_embeddings", 0) or DEFAULT_LONGEST)
    asked = config.arguments.get("max_length")
    return min(int(asked), limit) if asked else min(DEFAULT_LONGEST, limit)


@dataclass(frozen=True, slots=True)
class Collator:
    """Examples of one batch, padded to the longest."""

    pad: int
    multiple: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Any]:
        """Tensors of the batch."""
        width = max(len(row["input_ids"]) for row in rows)
        if self.multiple:
            width = -(-width // self.multiple) * self.multiple
        ids, labels, mask = [], [], []
        for row in rows:
            count = len(row["input_ids"])
            rest = width - count
            ids.append([*row["input_ids"], *[self.pad] * rest])
            labels.append([*row["labels"], *[IGNORED] * rest])
            mask.append([1] * count + [0] * rest)
        return {
            "input_ids": torch.tensor(ids),
            "labels": torch.tensor(labels),
            "attention_mask": torch.tensor(mask),
        }


def _logging_steps(corpus: Corpus, given: Mapping[str, Any]) -> int:
    """Some twenty to a hundred reports a run, each at most ten steps after the last."""
    batch = int(given.get("per_device_train_batch_size", 8)) * int(given.get("gradient_accumulation_steps", 1))
    steps = int(given.get("max_steps", 0) or 0)
    if steps <= 0:
        steps = math.ceil(len(corpus.train) / max(1, batch) * float(given.get("num_train_epochs", 3)))
    return max(1, min(10, steps // 20))


def _make_callback(
    board: Board,
    stop: threading.Event,
    mark: str,
    folder: Path,
    seconds: float,
    clock: Callable[[], float],
) -> Any:
    class Watcher(transformers.TrainerCallback):  # type: ignore[misc]
        """Tells the board, seals checkpoints, saves when it is time or when it is told to stop."""

        sealed: int | None = None
        saved_at = began_at = told_at = clock()
        began_with = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began_at = self.saved_at = clock()
            self.began_with = state.global_step
            board.set(step=state.global_step, steps=state.max_steps, epoch=state.epoch or 0.0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            done = state.global_step - self.began_with
            each = (clock() - self.began_at) / max(1, done)
            left = each * (state.max_steps - state.global_step)
            board.set(step=state.global_step, epoch=state.epoch, seconds_left=round(left, 1))
            if stop.is_set():
                control.should_save = control.should_training_stop = True
            elif clock() - self.saved_at >= seconds:
                control.should_save = True
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss, evaluated = (logs or {}).get("loss"), (logs or {}).get("eval_loss")
            if loss is not None and math.isfinite(float(loss)):
                board.set(loss=float(loss))
            if evaluated is not None:
                logger.info("evaluation step=%s loss=%.4f", state.global_step, float(evaluated))
            elif clock() - self.told_at >= _LOG_SECONDS:
                self.told_at = clock()
                now = board.now
                logger.info(
                    "training step=%s/%s loss=%s seconds_left=%s", now.step, now.steps, now.loss, now.seconds_left
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = folder / f"{checkpoints.PREFIX}{state.global_step}"
            checkpoints.seal(path, mark)
            self.sealed = state.global_step
            self.saved_at = clock()

    return Watcher()
