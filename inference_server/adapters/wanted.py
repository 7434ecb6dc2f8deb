"""The wanted list: where it is, when it has changed, what it says.

In: a file, or the folder of a mounted ConfigMap. Out: an `AdapterList` whenever its content is another one. A
ConfigMap's folder is swapped by a symbolic link, so the file is looked at anew by path each time; it is taken
when it has looked the same twice, which leaves out a file that is being written. A list that cannot be read
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from api.adapters import AdapterList, WantedAdapter
from api.keys import ADAPTERS_CONFIG_KEY

_LIST_BYTES = 1 << 20  # a ConfigMap's own limit


class ListInvalid(Exception):
    """The list cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an adapter comes from; adapters that differ in name or strength alone share it."""

    image: str | None
    path: str | None
    secrets: tuple[str, ...] = ()


def source_of(wanted: WantedAdapter) -> Source:
    """Where a wanted adapter comes from."""
    return Source(wanted.image, wanted.path, tuple(wanted.pull_secrets))


def parse_list(raw: bytes) -> AdapterList:
    """The list in a file's bytes. Raises ListInvalid."""
    try:
        wanted = AdapterList.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ListInvalid(
            f"the list of adapters is invalid: {where + ': ' if where else ''}{first['msg']}"
        ) from None
    seen: set[str] = set()
    for adapter in wanted.adapters:
        if adapter.name in seen:
            raise ListInvalid(f"the list of adapters names {adapter.name!r} twice")
        if (adapter.image is None) == (adapter.path is None):
            raise ListInvalid(f"the adapter {adapter.name!r} needs an image or a path, and not both")
        seen.add(adapter.name)
    return wanted


class ListFile:
    """Watches the file by looking at it. A file that is not there is an empty list: nothing is wanted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[object, ...] | None = None  # at the last look
        self._taken: tuple[object, ...] | None = None

    def read_now(self) -> AdapterList:
        """The list, whatever was seen before. Raises ListInvalid."""
        self._seen = self._taken = self._signature()
        return self._read()

    def read_if_settled(self) -> AdapterList | None:
        """The list if it has changed since it was last read and not since the last look. Raises ListInvalid."""
        before, self._seen = self._seen, self._signature()
        if self._seen == self._taken or self._seen != before:
            return None
        self._taken = self._seen
        return self._read()

    def _file(self) -> Path:
        return self._path / ADAPTERS_CONFIG_KEY if self._path.is_dir() else self._path

    def _signature(self) -> tuple[object, ...]:
        try:
            status = self._file().stat()
        except OSError:
            return ()
        return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)

    def _read(self) -> AdapterList:
        try:
            with self._file().open("rb") as file:
                raw = file.read(_LIST_BYTES + 1)
        except FileNotFoundError:
            return AdapterList()
        except OSError as error:
            raise ListInvalid(f"the list of adapters cannot be read: {error.strerror}") from error
        if len(raw) > _LIST_BYTES:
            raise ListInvalid(f"the list of adapters is larger than {_LIST_BYTES} bytes")
        return parse_list(raw)
