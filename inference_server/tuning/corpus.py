"""The dataset as tokens on disk, shuffled and split, in the form that the trainer reads.

In: the dataset's files, the configuration, an encoding. Out: a ``Corpus`` of two memory-mapped tables, so that a
dataset needs no memory of its own size. Rows with nothing to learn are counted and left out; a row that is not
what the layout says is an error with its number. The order follows from the seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa

from api.progress import TuneFailure
from inference_server.tuning.columns import BadRow, Layout, choose_layout, example_of
from inference_server.tuning.config import DatasetConfig
from inference_server.tuning.encode import Encoded, Encoding
from inference_server.tuning.errors import TuneError
from inference_server.tuning.files import DataFile, columns_of, rows_of

_SCHEMA: Final = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on. ``empty`` rows had nothing to learn, ``cut`` ones were longer than allowed."""

    train: Any
    evaluation: Any | None
    layout: Layout
    rows: int
    empty: int
    cut: int


def build(
    files: Sequence[DataFile],
    config: DatasetConfig,
    encoding: Encoding,
    folder: Path,
    told: Callable[[int], None] = lambda _: None,
) -> Corpus:
    """Reads and encodes everything into ``folder``; ``told`` is called with the rows so far. Raises TuneError."""
    layout = choose_layout(columns_of(files), config)
    counts = {"rows": 0, "empty": 0, "cut": 0}
    path = folder / "tokens.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        batch: list[Encoded] = []
        for encoded in _encoded(files, layout, encoding, counts):
            batch.append(encoded)
            if len(batch) == _BATCH:
                writer.write_batch(_as_batch(batch))
                batch.clear()
                told(counts["rows"])
        if batch:
            writer.write_batch(_as_batch(batch))
    whole: Any = datasets.Dataset.from_file(str(path))
    if len(whole) == 0:
        text = f"none of the {counts['rows']} rows has anything to learn"
        raise TuneError(TuneFailure.DATASET_INVALID, text, "check which columns hold the answers, and max_length")
    train, evaluation = _split(whole, config)
    return Corpus(train, evaluation, layout, **counts)


def _encoded(
    files: Sequence[DataFile], layout: Layout, encoding: Encoding, counts: dict[str, int]
) -> Iterator[Encoded]:
    for item in files:
        for number, row in enumerate(rows_of(item), 1):
            counts["rows"] += 1
            try:
                example = example_of(row, layout)
                encoded = encoding(example) if example else None
            except (BadRow, ValueError) as error:
                raise TuneError(
                    TuneFailure.DATASET_INVALID,
                    f"{item.path.name}, row {number}: {error}",
                    "mend or remove the row, or name other columns in DatasetConfig",
                ) from error
            if encoded is None or not encoded.learns:
                counts["empty"] += 1
                continue
            counts["cut"] += encoded.cut
            yield encoded


def _as_batch(batch: Sequence[Encoded]) -> Any:
    columns = [pa.array([item.ids for item in batch], _SCHEMA.field(0).type)]
    columns.append(pa.array([item.labels for item in batch], _SCHEMA.field(1).type))
    return pa.record_batch(columns, schema=_SCHEMA)


def _split(whole: Any, config: DatasetConfig) -> tuple[Any, Any | None]:
    order = list(range(len(whole)))
    if config.shuffle_dataset:
        random.Random(config.shuffle_seed).shuffle(order)  # noqa: S311  an order, not a secret
    count = max(1, round(len(order) * config.train_test_split))
    train = whole.select(order[:count])
    return train, whole.select(order[count:]) if count < len(order) else None
