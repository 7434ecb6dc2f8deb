"""One tuning run, from its settings to an exit code.

In: ``TuneSettings``. Out: files in the output folder, an image in a registry, a last ``TuneProgress``, an exit
code.
Order: settings and configuration, then the libraries (which know the rest of the configuration), then the port,
the dataset, the model, training, saving, pushing: what can be wrong is found before what is expensive. A run that
was stopped or killed is started again with the same command and goes on: downloads, checkpoints and a finished
adapter are taken up where they are. The event loop runs in the main thread and is never blocked; torch works in
threads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from api import keys
from api.progress import TuneProgress, TuneStage
from inference_server.adapters.artifact import InvalidAdapter, refuse_what_the_engine_lacks
from inference_server.threads import in_thread
from inference_server.tuning import adapter, checkpoints, fetch, files, registry
from inference_server.tuning.board import Board
from inference_server.tuning.config import TrainingConfig, check_names, read_config
from inference_server.tuning.errors import EXIT_STOPPED, TuneError, explain
from inference_server.tuning.settings import DEFAULT_RESULTS, TuneSettings, check, unusable
from inference_server.tuning.status import serving

if TYPE_CHECKING:
    from inference_server.tuning.model import Prepared
    from inference_server.tuning.train import Outcome

logger = logging.getLogger("kaito.inference_server.tuning")

_RESULT: Final = "result.json"
_TOLD: Final = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "seed",
)
_DOING: Final = {
    TuneStage.FETCHING: "fetching the dataset",
    TuneStage.LOADING: "loading the model",
    TuneStage.TRAINING: "training",
    TuneStage.SAVING: "saving the adapter",
    TuneStage.PUSHING: "pushing the adapter",
    TuneStage.SUCCEEDED: "ending",
}
_SETTLED: Final = (TuneStage.TRAINING, TuneStage.SAVING)  # a stop waits for these to come to a good end


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of a run."""

    output: Path
    checkpoints: Path
    work: Path

    @classmethod
    def of(cls, settings: TuneSettings, config: TrainingConfig) -> Places:
        """From the command line, else from the configuration, else upstream's."""
        asked = config.arguments.get("output_dir")
        output = settings.output_dir or (Path("/mnt") / asked if asked else DEFAULT_RESULTS)
        return cls(output, settings.checkpoint_dir or output / "checkpoints", settings.work_dir or output / "work")


async def run(
    settings: TuneSettings, told: Callable[[TuneProgress], None] = lambda _: None
) -> tuple[TuneProgress, int]:
    """Runs to the end, or until SIGTERM or SIGINT; returns the last progress and the exit code.

    ``told`` is called with each progress, in the thread that made it.
    Never raises for a failure of the run.
    """
    board, stop = Board(told), threading.Event()
    task = asyncio.ensure_future(_steps(settings, board, stop))
    watched = _watch_signals(task, board, stop)
    try:
        code = await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        board.set(message="stopped by a signal; start it again to go on")
        code = EXIT_STOPPED
    except Exception as failure:
        error = explain(failure, board.now.message or _DOING[board.now.stage])
        if not isinstance(failure, TuneError):
            logger.debug("traceback of the failure", exc_info=failure)
        board.set(stage=TuneStage.FAILED, reason=error.reason, message=error.message, next_step=error.next_step)
        code = error.exit_code
    finally:
        for number in watched:
            asyncio.get_running_loop().remove_signal_handler(number)
    board.write(settings.termination_log)
    return board.now, code


async def _steps(settings: TuneSettings, board: Board, stop: threading.Event) -> int:
    check(settings)
    # With --output-dir the file's folder is not used, so it may be anywhere.
    config = read_config(settings.config, settings.method, any_output=settings.output_dir is not None)
    places = Places.of(settings, config)
    async with serving(board, settings.host, settings.metrics_port) as port:
        if port is not None:
            logger.info("listening address=%s:%s", settings.host, port)
        _make(places)
        board.set(message="importing the training libraries")
        await in_thread("import", lambda: _import(config))
        board.set(message="")
        push_secrets = registry.SecretFiles(settings.push_secrets)
        if settings.output_image:
            await registry.check_push(settings.output_image, push_secrets, insecure=settings.insecure_registries)
        found = await _dataset(settings, config, places, board)
        digest = await in_thread("digest", lambda: files.digest_of(found))
        mark = _mark(settings, config, digest)
        done = _finished(places.output, mark)
        if done is None:
            done = await _train(settings, config, places, found, digest, mark, board, stop)
            if done is None:
                return EXIT_STOPPED
        else:
            logger.info("the adapter of this run is there already folder=%s", places.output)
        adapter.mark_done(places.output)
        where = f"the adapter is in {places.output}"
        if settings.output_image:
            digest = await _push(settings.output_image, settings, config, places, done, board)
            board.set(image=settings.output_image, digest=digest)
            where = f"the adapter is in {places.output}, and in {settings.output_image} as {digest}"
        board.set(stage=TuneStage.SUCCEEDED, message=where)
        return 0


def _import(config: TrainingConfig) -> None:
    """The libraries, and the names that they know."""
    import dataclasses

    try:
        refuse_what_the_engine_lacks(config.lora)
    except InvalidAdapter as error:
        logger.warning("our own server will not serve this adapter: %s", error)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells CPUs of a kernel that training cannot use
    import peft
    import transformers

    transformers.utils.logging.disable_progress_bar()
    check_names(
        config,
        arguments=[item.name for item in dataclasses.fields(transformers.TrainingArguments)],
        lora=[item.name for item in dataclasses.fields(peft.LoraConfig)],
        quantization=vars(transformers.BitsAndBytesConfig()).keys() | {"load_in_4bit", "load_in_8bit"},
    )


async def _dataset(
    settings: TuneSettings, config: TrainingConfig, places: Places, board: Board
) -> tuple[files.DataFile, ...]:
    board.set(stage=TuneStage.FETCHING)
    folder = settings.data_dir

    def told(done: int, total: int | None) -> None:
        board.set(bytes_done=done, bytes_total=total)

    if settings.data_image:
        folder = await registry.pull_data(
            settings.data_image,
            places.work / "image",
            registry.SecretFiles((*settings.pull_secrets, *settings.push_secrets)),
            most=settings.max_dataset_bytes,
            insecure=settings.insecure_registries,
            on_bytes=told,
        )
    elif folder is None:
        folder = places.work / "data"
        rules = fetch.FetchRules(private=settings.private_urls, most=settings.max_dataset_bytes)
        await fetch.fetch_all(settings.urls, folder, rules, sha256=settings.sha256, on_bytes=told)
    place = folder
    return await in_thread("find", lambda: files.find_files(place, config.dataset))


async def _train(
    settings: TuneSettings,
    config: TrainingConfig,
    places: Places,
    found: tuple[files.DataFile, ...],
    digest: str,
    mark: str,
    board: Board,
    stop: threading.Event,
) -> dict[str, Any] | None:
    from inference_server.tuning import corpus, encode, train
    from inference_server.tuning.model import model_name, prepare

    board.set(stage=TuneStage.LOADING, message=f"loading {model_name(settings, config)}")
    prepared: Prepared = await in_thread("load", lambda: prepare(settings, config))
    for note in (*config.notes, *prepared.notes):
        logger.warning("%s", note)
    encoding = encode.Encoding(
        prepared.tokenizer,
        train.longest(prepared, config),
        answers_only=config.arguments.get("completion_only_loss") is not False,
        chat=config.dataset.use_chat_template,
    )
    board.set(message="reading the dataset")
    data = await in_thread("read", lambda: corpus.build(found, config.dataset, encoding, places.work))
    logger.info("dataset rows=%s used=%s empty=%s cut=%s", data.rows, len(data.train), data.empty, data.cut)
    board.set(stage=TuneStage.TRAINING)
    outcome: Outcome = await in_thread(
        "train",
        lambda: train.train(
            prepared, data, config, settings, folder=places.checkpoints, mark=mark, board=board, stop=stop
        ),
    )
    if outcome.stopped:
        board.set(message=f"stopped by a signal; a checkpoint at step {outcome.saved} is saved: start it again")
        return None
    board.set(stage=TuneStage.SAVING)
    result = {
        "mark": mark,
        "base": prepared.base,
        "revision": prepared.revision,
        "dataset": digest,
        "steps": outcome.steps,
        "parameters": _parameters(config, prepared, outcome),
    }
    await in_thread("save", lambda: _save(prepared, places.output, result))
    return result


def _parameters(config: TrainingConfig, prepared: Prepared, outcome: Outcome) -> dict[str, Any]:
    """What an adapter's image tells of how it was made."""
    lora = prepared.model.peft_config["default"]
    return {
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "target_modules": sorted(lora.target_modules),
        "format": prepared.number_format.value,
        "steps": outcome.steps,
        "loss": outcome.loss,
        **{name: value for name, value in sorted(config.arguments.items()) if name in _TOLD},
    }


async def _push(
    image: str,
    settings: TuneSettings,
    config: TrainingConfig,
    places: Places,
    result: dict[str, Any],
    board: Board,
) -> str:
    board.set(stage=TuneStage.PUSHING)
    labels = {
        keys.IMAGE_TITLE: f"{config.method.value} adapter",
        keys.IMAGE_DESCRIPTION: f"LoRA adapter for {result['base']}, trained by kaito tune",
        keys.IMAGE_MODEL_NAME: str(result["base"]),
        keys.IMAGE_TUNING_METHOD: config.method.value,
        keys.IMAGE_TUNING_PARAMETERS: json.dumps(result["parameters"], sort_keys=True),
        keys.IMAGE_DATASET_DIGEST: str(result["dataset"]),
    }
    if result.get("revision"):
        labels[keys.IMAGE_MODEL_REVISION] = str(result["revision"])
    return await registry.push_adapter(
        image,
        {name: places.output / name for name in (adapter.CONFIG, adapter.WEIGHTS)},
        places.work / "push",
        registry.SecretFiles((*settings.push_secrets, *settings.pull_secrets)),
        labels=labels,
        base=settings.output_base_image,
        insecure=settings.insecure_registries,
        on_bytes=lambda done, total: board.set(bytes_done=done, bytes_total=total),
    )


def _save(prepared: Prepared, folder: Path, result: dict[str, Any]) -> None:
    adapter.save(prepared.model, folder, base=prepared.base, revision=prepared.revision)
    checkpoints.write_whole(folder / _RESULT, json.dumps(result, indent=2).encode())


def _finished(folder: Path, mark: str) -> dict[str, Any] | None:
    """What an earlier start of this same run finished, when only the push is missing."""
    try:
        result = json.loads((folder / _RESULT).read_bytes())
    except (OSError, ValueError):
        return None
    there = (folder / adapter.CONFIG).is_file() and (folder / adapter.WEIGHTS).is_file()
    return result if there and isinstance(result, dict) and result.get("mark") == mark else None


def _mark(settings: TuneSettings, config: TrainingConfig, digest: str) -> str:
    from inference_server.tuning.model import model_name

    return checkpoints.fingerprint(
        model=model_name(settings, config),
        revision=settings.revision,
        base=settings.base_name,
        config=repr(replace(config, notes=())),
        seed=settings.seed,
        max_steps=settings.max_steps,
        targets=os.environ.get("DEFAULT_TARGET_MODULES", ""),
        dataset=digest,
    )


def _make(places: Places) -> None:
    for folder in (places.output, places.checkpoints, places.work):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(f"{folder} cannot be made: {error.strerror}", "name another --output-dir") from error


def _watch_signals(task: asyncio.Future[int], board: Board, stop: threading.Event) -> list[signal.Signals]:
    def on_signal() -> None:
        # Training ends by itself after the step at hand, with a checkpoint; a second signal does not wait for it.
        if stop.is_set() or board.now.stage not in _SETTLED:
            stop.set()
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    watched = []
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, on_signal)
            watched.append(number)
        except (RuntimeError, ValueError):
            break  # not the main thread: whoever runs us there stops us by cancelling
    return watched
