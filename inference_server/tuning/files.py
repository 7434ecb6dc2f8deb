"""Which files of a folder are the dataset, of what sort they are, and their rows.

In: a folder, the configuration. Out: ``DataFile``s, and rows as plain dicts, read in batches. The sort comes from
the name's extension and is checked against the first bytes; a name without a known extension goes by its bytes,
and only then by upstream's rule, a sort's name anywhere in the file's. All files of the chosen sort are read, in
the order of their names (upstream takes the first of a walk, which depends on the file system). Nothing here
executes a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from api.progress import TuneFailure
from inference_server.tuning.config import DatasetConfig
from inference_server.tuning.errors import TuneError, one_line

_BATCH: Final = 1024  # rows
_BLOCK: Final = 1 << 20
_LONGEST_JSON: Final = 2 << 30  # a JSON array is read whole; lines are not
_WRAPPERS: Final = ("data", "rows", "train", "examples", "instances")
_CARDS: Final = ("readme", "dataset_infos.json", "dataset_info.json", "state.json", "license")


class Sort(StrEnum):
    """File formats, by the names that DatasetConfig.dataset_extension takes."""

    PARQUET = "parquet"
    ARROW = "arrow"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"


_EXTENSIONS: Final = {
    ".parquet": Sort.PARQUET,
    ".arrow": Sort.ARROW,
    ".feather": Sort.ARROW,
    ".jsonl": Sort.JSONL,
    ".ndjson": Sort.JSONL,
    ".json": Sort.JSON,
    ".csv": Sort.CSV,
    ".tsv": Sort.CSV,
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file and its sort."""

    path: Path
    sort: Sort


def find_files(folder: Path, config: DatasetConfig) -> tuple[DataFile, ...]:
    """The files to read, all of one sort. Raises TuneError."""
    candidates = _named(folder, config.dataset_path) if config.dataset_path else _walk(folder)
    wanted = _wanted(config.dataset_extension)
    found: dict[Sort, list[DataFile]] = {}
    empty: list[Path] = []
    for path in candidates:
        if path.stat().st_size == 0:
            empty.append(path)
            continue
        sort = sort_of(path, wanted)
        if sort is not None and wanted in (None, sort, _twin(sort)):
            found.setdefault(sort, []).append(DataFile(path, sort))
    for sort in Sort:
        if sort in found:
            return tuple(sorted(found[sort], key=lambda item: item.path.relative_to(folder).as_posix()))
    raise _nothing(folder, candidates, empty, config)


def sort_of(path: Path, wanted: Sort | None = None) -> Sort | None:
    """What a file is, by its name and its first bytes. Raises TuneError where the two disagree."""
    with path.open("rb") as file:
        head = file.read(4096)
    by_bytes = _sniff(head)
    by_name = _EXTENSIONS.get(path.suffix.lower())
    if by_name is None:
        if by_bytes is not None:
            return by_bytes
        lower = path.name.lower()
        named = next((sort for sort in Sort if sort.value in lower), None)
        return named if named in (Sort.CSV, None) and _is_text(head) else None
    binary = (Sort.PARQUET, Sort.ARROW)
    if by_name in binary and by_bytes is not by_name:
        if by_name is Sort.ARROW and by_bytes is None:
            return Sort.ARROW  # the stream format has no magic of its own; reading it decides
        what = "text" if _is_text(head) else "something else"
        text = f"{path.name} is called a {by_name} file and holds {by_bytes.value if by_bytes else what}"
        raise TuneError(TuneFailure.DATASET_INVALID, text, "is the address that of the file itself?")
    if by_name not in binary and by_bytes in binary:
        return by_bytes
    if by_name in (Sort.JSON, Sort.JSONL):
        return by_bytes if by_bytes in (Sort.JSON, Sort.JSONL) else by_name
    return by_name


def digest_of(files: Sequence[DataFile]) -> str:
    """A digest of the files' content, whatever their names: ``sha256:...``."""
    whole = hashlib.sha256()
    for item in files:
        with item.path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{whole.hexdigest()}"


def columns_of(files: Sequence[DataFile]) -> list[str]:
    """The columns of the first file with a row. Raises TuneError where there is none."""
    for item in files:
        for row in rows_of(item):
            return list(row)
    names = ", ".join(item.path.name for item in files)
    raise TuneError(TuneFailure.DATASET_INVALID, f"the dataset has no rows ({names})", "give one with rows")


def rows_of(item: DataFile) -> Iterator[dict[str, Any]]:
    """The rows of a file, in order. Raises TuneError."""
    import pyarrow

    try:
        if item.sort is Sort.JSON:
            yield from _json_array(item.path)
        elif item.sort is Sort.JSONL:
            yield from _json_lines(item.path)
        else:
            yield from _tables(item)
    except (pyarrow.ArrowException, pyarrow.ArrowInvalid, ValueError, TypeError, KeyError) as error:
        raise TuneError(
            TuneFailure.DATASET_INVALID,
            f"{item.path.name} cannot be read as {item.sort}: {one_line(str(error), 200)}",
            "check the file: it may be cut short, or of another format (set DatasetConfig.dataset_extension)",
        ) from error
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise TuneError(  # pyarrow raises bare ones for damaged files
            TuneFailure.DATASET_INVALID,
            f"{item.path.name} cannot be read as {item.sort}: {one_line(str(error), 200)}",
            "check the file: it may be damaged or cut short",
        ) from error


def _tables(item: DataFile) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import csv, ipc, parquet

    if item.sort is Sort.PARQUET:
        with parquet.ParquetFile(item.path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
        return
    if item.sort is Sort.CSV:
        options = csv.ParseOptions(delimiter=_delimiter(item.path), newlines_in_values=True)
        with csv.open_csv(
            item.path, parse_options=options, convert_options=_all_text(item.path, options)
        ) as reader:
            for batch in reader:
                yield from batch.to_pylist()
        return
    with pa.memory_map(str(item.path)) as source:
        try:
            table = ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = ipc.open_stream(source).read_all()
        for batch in table.to_batches(max_chunksize=_BATCH):
            yield from batch.to_pylist()


def _all_text(path: Path, options: Any) -> Any:
    """Every column as text: a completion may be a number in the first rows and a sentence later."""
    import pyarrow as pa
    from pyarrow import csv

    with csv.open_csv(path, parse_options=options) as reader:
        names = reader.schema.names
    return csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)


def _delimiter(path: Path) -> str:
    with path.open("rb") as file:
        first = file.readline(_BLOCK)
    return max(",\t;", key=lambda char: first.count(char.encode()))


def _json_array(path: Path) -> Iterator[dict[str, Any]]:
    if path.stat().st_size > _LONGEST_JSON:
        raise ValueError("a JSON array of more than 2 GiB: write one object a line (jsonl)")
    document = json.loads(path.read_bytes())
    if isinstance(document, dict):
        document = _wrapped(document) or [document]
    for number, row in enumerate(document, 1):
        if not isinstance(row, dict):
            raise TypeError(f"item {number} of the list is no object")
        yield row


def _wrapped(document: dict[str, Any]) -> list[Any] | None:
    """The rows of ``{"data": [...]}``, as several tools export them."""
    found = [value for name, value in document.items() if name in _WRAPPERS and isinstance(value, list)]
    return found[0] if len(found) == 1 else None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
            if not isinstance(row, dict):
                raise TypeError(f"line {number} is no object")
            rows = _wrapped(row) if path.suffix.lower() == ".json" else None
            yield from rows or [row]


def _sniff(head: bytes) -> Sort | None:
    if head.startswith(b"PAR1"):
        return Sort.PARQUET
    if head.startswith((b"ARROW1", b"FEA1")):
        return Sort.ARROW
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        return Sort.JSON
    if text.startswith(b"{"):
        return Sort.JSONL if _is_lines(text) else Sort.JSON
    return None


def _is_lines(text: bytes) -> bool:
    """Whether the first line is an object by itself. One that is longer than what was read is taken for one."""
    first, newline, _ = text.partition(b"\n")
    if not newline:
        return True
    try:
        return isinstance(json.loads(first), dict)
    except ValueError:
        return False


def _is_text(head: bytes) -> bool:
    return b"\x00" not in head


def _walk(folder: Path) -> list[Path]:
    if not folder.is_dir():
        text = f"there is no folder {folder}"
        raise TuneError(TuneFailure.DATASET_NOT_FOUND, text, "mount the dataset there, or name another --data-dir")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    hidden = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return [path for path in hidden if not path.name.lower().startswith(_CARDS)]


def _named(folder: Path, name: str) -> list[Path]:
    """DatasetConfig.dataset_path: in the dataset's folder, or below /mnt as upstream reads it."""
    for base in (folder, Path("/mnt")):
        path = (base / name.lstrip("/")).resolve()
        if path.is_relative_to(base.resolve()) and path.exists():
            return _walk(path) if path.is_dir() else [path]
    there = ", ".join(path.name for path in _walk(folder)[:10]) or "nothing"
    text = f"DatasetConfig.dataset_path {name!r} is not in the dataset, which has {there}"
    raise TuneError(TuneFailure.DATASET_NOT_FOUND, text, "write one of its files, or leave dataset_path out")


def _wanted(extension: str | None) -> Sort | None:
    if extension is None:
        return None
    try:
        return Sort(extension.lower().lstrip("."))
    except ValueError:
        text = f"DatasetConfig.dataset_extension {extension!r} is no format that is read"
        raise TuneError(TuneFailure.CONFIG_INVALID, text, f"write one of {', '.join(Sort)}") from None


def _twin(sort: Sort) -> Sort:
    """json and jsonl are told apart by content, so asking for one takes the other."""
    return {Sort.JSON: Sort.JSONL, Sort.JSONL: Sort.JSON}.get(sort, sort)


def _nothing(folder: Path, paths: Sequence[Path], empty: Sequence[Path], config: DatasetConfig) -> TuneError:
    kind = f"{config.dataset_extension} files" if config.dataset_extension else "files"
    if empty:
        names = ", ".join(path.name for path in empty[:5])
        return TuneError(
            TuneFailure.DATASET_INVALID, f"the dataset is empty: {names} has no bytes", "give one with rows"
        )
    there = ", ".join(path.name for path in paths[:10]) or "nothing"
    text = f"no {kind} of a dataset in {folder}; it holds {there}"
    return TuneError(TuneFailure.DATASET_INVALID, text, f"these formats are read: {', '.join(Sort)}")
