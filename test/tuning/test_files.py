"""Which files are the dataset, what sort they are, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, ipc, parquet

from api.progress import TuneFailure
from inference_server.tuning.config import DatasetConfig
from inference_server.tuning.errors import TuneError
from inference_server.tuning.files import Sort, columns_of, digest_of, find_files, rows_of, sort_of

ROWS: list[dict[str, Any]] = [
    {"prompt": "What, exactly?", "completion": 'A "quoted"\nanswer'},
    {"prompt": "Größe?", "completion": "42"},
]


def _stream(path: Path, opener: Callable[..., Any]) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, opener(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], object]] = {
    "d.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "d.arrow": lambda path: _stream(path, ipc.new_file),
    "stream.arrow": lambda path: _stream(path, ipc.new_stream),
    "d.csv": lambda path: csv.write_csv(pa.Table.from_pylist(ROWS), path),
    "d.tsv": lambda path: path.write_text(
        'prompt\tcompletion\n"What, exactly?"\t"A ""quoted""\nanswer"\nGröße?\t42\n'
    ),
    "d.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n"),
    "lines.json": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "d.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "nested.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "no-extension": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "export.csv.2024": lambda path: csv.write_csv(pa.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    """parquet, both kinds of arrow, csv, tsv, json lines, json arrays, and names without a hint."""
    WRITERS[name](tmp_path / name)

    (file,) = find_files(tmp_path, DatasetConfig())

    assert list(rows_of(file)) == ROWS
    assert columns_of([file]) == ["prompt", "completion"]


def test_all_files_of_one_sort_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    """The files of the sort that is there, in nested folders too; cards and hidden files are no data."""
    (tmp_path / "b").mkdir()
    for name in ("b/1.jsonl", "a.jsonl", "README.json", ".hidden.jsonl", "dataset_infos.json"):
        (tmp_path / name).write_text('{"text": "x"}\n')

    found = find_files(tmp_path, DatasetConfig())

    assert [item.path.relative_to(tmp_path).as_posix() for item in found] == ["a.jsonl", "b/1.jsonl"]


def test_the_configuration_chooses_a_file_or_a_format(tmp_path: Path) -> None:
    """dataset_path takes one file, dataset_extension one format; json means lines, too."""
    WRITERS["d.parquet"](tmp_path / "d.parquet")
    WRITERS["d.jsonl"](tmp_path / "d.jsonl")

    by_path = find_files(tmp_path, DatasetConfig(dataset_path="d.jsonl"))
    by_format = find_files(tmp_path, DatasetConfig(dataset_extension="json"))

    assert [item.path.name for item in by_path] == ["d.jsonl"]
    assert [(item.path.name, item.sort) for item in by_format] == [("d.jsonl", Sort.JSONL)]


@pytest.mark.parametrize(
    "settings", [{"dataset_path": "../secret.jsonl"}, {"dataset_path": "none.csv"}, {"dataset_extension": "xls"}]
)
def test_a_file_that_is_not_there_or_not_allowed_is_an_error(tmp_path: Path, settings: dict[str, str]) -> None:
    """Nothing outside the dataset is read, and an unknown format is named with those that are known."""
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "x"}')

    with pytest.raises(TuneError):
        find_files(tmp_path / "data", DatasetConfig(**settings))


def test_a_name_that_merely_contains_a_format_does_not_count_against_the_bytes(tmp_path: Path) -> None:
    """my-json-notes.csv is a table, whatever its name contains; upstream would read it as json."""
    file = tmp_path / "my-json-notes.csv"
    file.write_text("text\nhello\n")

    assert sort_of(file) is Sort.CSV


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "line 2"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', "line 2 is no object"),
        ("a.json", '[{"text": "x"}, 3]', "item 2"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "csv"),
        ("a.arrow", "nonsense" * 100, "cannot be read as arrow"),
    ],
    ids=["cut line", "no object", "no object in a list", "ragged table", "no table"],
)
def test_a_damaged_file_says_where(tmp_path: Path, name: str, content: str, says: str) -> None:
    """The error names the file, the format and the place."""
    (tmp_path / name).write_text(content)

    with pytest.raises(TuneError) as caught:
        list(rows_of(find_files(tmp_path, DatasetConfig())[0]))

    assert caught.value.reason is TuneFailure.DATASET_INVALID
    assert name in caught.value.message
    assert says in caught.value.message


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    """Renaming a file changes nothing, a changed byte does."""
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    one = digest_of(find_files(tmp_path, DatasetConfig()))
    (tmp_path / "a.jsonl").rename(tmp_path / "b.jsonl")
    same = digest_of(find_files(tmp_path, DatasetConfig()))
    (tmp_path / "b.jsonl").write_text('{"text": "y"}')

    assert one == same
    assert digest_of(find_files(tmp_path, DatasetConfig())) != one
