"""The small deciding parts: number formats, layers to adapt, checkpoints, failures, progress."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from api.progress import TuneFailure, TuneProgress, TuneStage
from inference_server.tuning import checkpoints
from inference_server.tuning.board import Board, termination_message
from inference_server.tuning.errors import EXIT_FAILED, EXIT_TEMPORARY, TuneError, explain
from inference_server.tuning.precision import Device, choose_format
from inference_server.tuning.targets import NoTargets, choose_targets

V100 = Device("V100", (7, 0))
A100 = Device("A100", (8, 0))
CPU = Device("CPU")
NEW_CPU = Device("CPU", bfloat16=True)


@pytest.mark.parametrize(
    ("device", "asked", "format_"),
    [
        (A100, "bfloat16", "bfloat16"),
        (A100, "auto", "bfloat16"),
        (A100, "float16", "float16"),
        (A100, "torch.float32", "float32"),
        (V100, "bfloat16", "float16"),
        (V100, None, "float16"),
        (Device("T4", (7, 5)), "bfloat16", "float16"),
        (Device("K80", (3, 7)), "bfloat16", "float32"),
        (CPU, "bfloat16", "float32"),
        (CPU, "float16", "float32"),
        (NEW_CPU, "bfloat16", "bfloat16"),
        (NEW_CPU, "float16", "bfloat16"),
        (NEW_CPU, "float32", "float32"),
    ],
)
def test_the_number_format_is_one_that_the_device_has(device: Device, asked: str | None, format_: str) -> None:
    """bfloat16 needs compute capability 8.0 or a CPU with it; a change is said, what was asked for is not."""
    found, note = choose_format(device, asked)

    assert found == format_
    kept = asked in (None, "auto") or str(asked).removeprefix("torch.") == format_
    assert bool(note) is not kept


PHI_3 = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"]
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
FALCON = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h", "lm_head"]
UPSTREAM = ["k_proj", "q_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"]


@pytest.mark.parametrize(
    ("linear", "wanted", "default", "chosen"),
    [
        (PHI_3, None, UPSTREAM, ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        (LLAMA, None, UPSTREAM, sorted(UPSTREAM)),
        (FALCON, None, UPSTREAM, ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]),
        (PHI_3, None, (), ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        (PHI_3, ["q_proj", "v_proj"], UPSTREAM, ["qkv_proj"]),
        (PHI_3, ["all-linear"], UPSTREAM, ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]),
        (PHI_3, ["lm_head"], (), ["lm_head"]),
    ],
)
def test_the_same_list_means_the_same_layers(
    linear: list[str], wanted: list[str] | None, default: list[str], chosen: list[str]
) -> None:
    """A separate projection stands for the fused module that holds it; without a list it is all but the head."""
    assert choose_targets(linear, wanted, default) == chosen


def test_a_layer_that_no_model_has_is_an_error() -> None:
    """What the configuration names must exist; the error has what does."""
    with pytest.raises(NoTargets) as caught:
        choose_targets(PHI_3, ["q_proj", "xyz"])

    assert caught.value.wanted == ("xyz",)
    assert "qkv_proj" in caught.value.names


# ------------------------------------------------------------------ checkpoints


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sealed checkpoints of one run."""
    for step in (2, 10):
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "optimizer.pt").write_bytes(b"state" * step)
        checkpoints.seal(path, "mark")
    return tmp_path


def newest(folder: Path, mark: str = "mark") -> int | None:
    """The step of the checkpoint that a run would go on from."""
    found = checkpoints.newest(folder, mark)
    return found.step if found else None


def test_the_newest_whole_checkpoint_is_taken(folder: Path) -> None:
    """By number, not by name."""
    assert newest(folder) == 10


@pytest.mark.parametrize(
    "harm", ["shorter", "other bytes", "gone", "no seal", "torn seal", "no files in the seal"]
)
def test_a_torn_checkpoint_is_never_taken(folder: Path, harm: str) -> None:
    """Whatever a kill left of the newest one, the one before is taken."""
    path = folder / "checkpoint-10"
    state, seal = path / "optimizer.pt", path / checkpoints.SEAL
    if harm == "shorter":
        state.write_bytes(state.read_bytes()[:-1])
    elif harm == "other bytes":
        state.write_bytes(b"x" * state.stat().st_size)
    elif harm == "gone":
        state.unlink()
    elif harm == "no seal":
        seal.unlink()
    elif harm == "torn seal":
        seal.write_bytes(seal.read_bytes()[:-5])
    else:
        seal.write_text("[]")

    assert newest(folder) == 2


def test_a_checkpoint_of_another_run_is_not_taken(folder: Path) -> None:
    """Other settings, another model or other data are another run."""
    assert newest(folder, "other") is None
    assert checkpoints.fingerprint(a=1, b=2) == checkpoints.fingerprint(b=2, a=1)
    assert checkpoints.fingerprint(a=1) != checkpoints.fingerprint(a=2)


def test_what_is_past_the_beginning_makes_room(folder: Path) -> None:
    """A run that begins at step 2 removes the torn checkpoint 10 before it writes that name again."""
    (folder / "checkpoint-10" / checkpoints.SEAL).unlink()

    checkpoints.clear(folder, checkpoints.newest(folder, "mark"))

    assert [path.name for path in folder.iterdir()] == ["checkpoint-2"]


# ------------------------------------------------------------------ failures and progress


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/mnt/x"), TuneFailure.DISK_FULL),
        (RuntimeError("PytorchStreamWriter failed: file write failed"), TuneFailure.DISK_FULL),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), TuneFailure.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), TuneFailure.OUT_OF_MEMORY),
        (MemoryError(), TuneFailure.OUT_OF_MEMORY),
        (RuntimeError("loss is odd"), TuneFailure.TRAINING_FAILED),
        (OSError(errno.EACCES, "Permission denied", "/mnt/x"), TuneFailure.TRAINING_FAILED),
    ],
)
def test_every_exception_has_a_reason(error: BaseException, reason: TuneFailure) -> None:
    """Full disks and full memory are known by their words, too; the rest says what it was doing."""
    found = explain(error, "training")

    assert found.reason is reason
    assert "training" in found.message
    assert found.exit_code == EXIT_FAILED


def test_a_temporary_failure_asks_to_be_repeated() -> None:
    """The exit code alone says whether running it again can help."""
    assert TuneError(TuneFailure.PUSH_FAILED, "a", temporary=True).exit_code == EXIT_TEMPORARY


def test_a_termination_message_fits_and_is_json() -> None:
    """However long its texts, at most 4096 bytes of valid JSON with the reason."""
    long = TuneProgress(
        stage=TuneStage.FAILED, reason=TuneFailure.TRAINING_FAILED, message="ä" * 9000, next_step="x" * 9000
    )

    data = termination_message(long)

    assert len(data) <= 4096
    assert TuneProgress.model_validate(json.loads(data)).reason is TuneFailure.TRAINING_FAILED


def test_a_new_stage_forgets_what_was_left_of_the_last() -> None:
    """Bytes and times belong to a stage; step and loss to the run."""
    board = Board()
    board.set(stage=TuneStage.TRAINING, step=3, loss=0.5, seconds_left=9.0, bytes_done=7)

    board.set(stage=TuneStage.PUSHING)

    assert (board.now.step, board.now.loss) == (3, 0.5)
    assert (board.now.seconds_left, board.now.bytes_done) == (None, None)
