"""What can be wrong with a run from outside: one clear reason each, an exit code, and nothing half pushed."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Case:
    """Arguments beside the usual ones, and what they lead to."""

    argv: tuple[str, ...]
    reason: str
    says: str
    code: int = 1


CASES = {
    "corrupt parquet": Case(
        ("--data-dir", "{corrupt}"), "DatasetInvalid", "torn.parquet cannot be read as parquet"
    ),
    "not the parquet it is called": Case(("--data-dir", "{page}"), "DatasetInvalid", "holds text"),
    "empty file": Case(("--data-dir", "{empty}"), "DatasetInvalid", "the dataset is empty: train.jsonl"),
    "no folder": Case(("--data-dir", "/nowhere"), "DatasetNotFound", "no folder /nowhere"),
    "no dataset in the folder": Case(("--data-dir", "{pictures}"), "DatasetInvalid", "it holds cat.png"),
    "unknown columns": Case(("--data-dir", "{columns}"), "DatasetColumnMissing", "the dataset has alpha, beta"),
    "a column that is not there": Case(
        ("-f", "{column_config}", "--data-dir", "{columns}"),
        "DatasetColumnMissing",
        "response_column is 'gamma', and the dataset has the columns alpha, beta",
    ),
    "a row of another shape": Case(("--data-dir", "{row}"), "DatasetInvalid", "row 2: column messages holds str"),
    "not there": Case(
        ("--data-url", "http://{host}/missing.csv", "--allow-private-dataset-urls"),
        "DatasetNotFound",
        "the server answers 404",
    ),
    "a private address": Case(("--data-url", "http://{host}/a.csv"), "DatasetAddressRefused", "is the pod itself"),
    "no model": Case(("--data-dir", "{good}", "--model", "/nowhere"), "BaseModelNotFound", "no model at /nowhere"),
    "an empty model folder": Case(
        ("--data-dir", "{good}", "--model", "{pictures}"), "BaseModelNotFound", "holds no config.json"
    ),
    "no permission": Case(
        ("--data-dir", "{good}", "--output-image", "{guarded}/a/b:1"), "OutputPushDenied", "no push secret fits"
    ),
    "a placeholder for an image": Case(
        ("--data-dir", "{good}", "--output-image", "ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1"),
        "TuningConfigInvalid",
        "is not an image reference",
        2,
    ),
    "two sources": Case(
        ("--data-dir", "{good}", "--data-image", "a/b:1"), "TuningConfigInvalid", "exactly one place", 2
    ),
    "an unknown setting": Case(
        ("-f", "{setting_config}", "--data-dir", "{good}"),
        "TuningConfigInvalid",
        "TrainingArguments has no setting learning_rat",
        2,
    ),
    "an unknown section": Case(
        ("-f", "{section_config}", "--data-dir", "{good}"),
        "TuningConfigInvalid",
        "unknown section LoraConfg",
        2,
    ),
    "a value that the trainer refuses": Case(
        ("-f", "{value_config}", "--data-dir", "{good}"), "TuningConfigInvalid", "TrainingArguments:", 2
    ),
    "layers that the model has not": Case(
        ("-f", "{target_config}", "--data-dir", "{good}"),
        "TuningConfigInvalid",
        "no linear module is called xyz",
        2,
    ),
    "an image that is not there": Case(("--data-image", "{open}/no/such:1"), "DatasetNotFound", "does not exist"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_config: Any, lesson: Any) -> dict[str, str]:
    """Folders and files that cases name."""
    base = tmp_path_factory.mktemp("bad")
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    folders = {name: base / name for name in ("corrupt", "page", "empty", "pictures", "columns", "row", "good")}
    for folder in folders.values():
        folder.mkdir()
    (base / "few").mkdir()
    (base / "few" / "train.jsonl").write_text(f"{json.dumps(good)}\n" * 4)
    whole = base / "whole.parquet"
    parquet.write_table(pa.table({"text": ["a long text to learn"] * 1000}), whole)
    (folders["corrupt"] / "torn.parquet").write_bytes(whole.read_bytes()[:-40])
    (folders["page"] / "train.parquet").write_text("<html>Sign in</html>")
    (folders["empty"] / "train.jsonl").touch()
    (folders["pictures"] / "cat.png").write_bytes(b"\x89PNG\x00")
    (folders["columns"] / "train.csv").write_text("alpha,beta\n1,2\n")
    (folders["row"] / "train.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps({'messages': 'text'})}\n")
    shutil.copy(lesson.file, folders["good"])
    configs = {
        "column_config": make_config(DatasetConfig={"response_column": "gamma"}),
        "setting_config": make_config(learning_rat=1),
        "section_config": make_config(LoraConfg={}),
        "value_config": make_config(lr_scheduler_type="wavy"),
        "target_config": make_config(LoraConfig={"target_modules": ["xyz"]}),
    }
    for name, text in configs.items():
        (base / name).write_text(text)
    return {name: str(base / name) for name in (*folders, *configs, "few")}


@pytest.fixture(scope="module")
def web_host() -> Iterator[str]:
    """A web server that has nothing."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_has_one_reason(
    zygote: Any,
    world: dict[str, str],
    web_host: str,
    registry: Any,
    guarded_registry: Any,
    model_path: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """The termination message has reason, sentence and next step; the code says that repeating is no use."""
    case = CASES[name]
    hosts = {"host": web_host, "guarded": guarded_registry.host, "open": registry.host}
    argv = [word.format(**world, **hosts) for word in case.argv]
    if "--model" not in argv:
        argv += ["--model", str(model_path)]

    run = zygote.run(*argv, "--max-steps", 1, "--output-dir", tmp_path)

    assert run.last["reason"] == case.reason, run.text
    assert case.says in run.last["message"]
    assert run.last["nextStep"]
    assert run.last["stage"] == "Failed"
    assert run.code == case.code
    assert run.last["message"] in run.text
    assert "Traceback" not in run.text
    assert guarded_registry.tags("a/b") == []


def test_a_full_disk_is_a_full_disk(
    zygote: Any, world: dict[str, str], registry: Any, model_path: Path, tmp_path: Path, make_config: Any
) -> None:
    """Where a checkpoint does not fit any more, the reason says so, and nothing is pushed."""
    config = tmp_path / "training_config.yaml"
    config.write_text(make_config(max_steps=2, save_strategy="steps", save_steps=1))

    run = zygote.run(
        *("-f", config, "--data-dir", world["few"], "--model", model_path, "--output-dir", tmp_path / "out"),
        *("--output-image", f"{registry.host}/full/disk:1"),
        fsize=150_000,
    )

    assert run.last["reason"] == "TuningDiskFull", run.text
    assert (run.last["stage"], run.code) == ("Failed", 1)
    assert "while training" in run.last["message"]
    assert "volume" in run.last["nextStep"]
    assert registry.tags("full/disk") == []
    assert not (tmp_path / "out" / "fine_tuning_completed.txt").exists()
