"""A small map that outlives the process: every change is one appended line, whatever the size of the map.

In: keys and JSON values. Out: the map as it was, after a restart. The file belongs to one process. A change is in
the file (not necessarily on the disk) when the call returns: killing the process loses nothing, and a last line
that a lost machine left torn is dropped. Lines that later ones have overtaken are swept out when they are most.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_SWEEP_AT_LEAST = 1000  # lines; below it nobody gains anything


class Journal:
    """See the module. ``items`` is the map; change it with :meth:`put` and :meth:`drop` alone.

    Raises:
        ValueError: the file is not such a journal.
        OSError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.items: dict[str, Any] = {}
        self._file = file
        self._lines = 0
        try:
            self._load(file.read_bytes())
        except FileNotFoundError:
            pass

    def __repr__(self) -> str:
        return f"<Journal {self._file} items={len(self.items)} lines={self._lines}>"

    def put(self, key: str, value: Any) -> None:
        """Set, or write down once more after a change in place. Raises `OSError`."""
        self.items[key] = value
        self._append([key, value])

    def drop(self, key: str) -> None:
        """Forget the key. Raises `OSError`."""
        del self.items[key]
        self._append([key])

    def _append(self, entry: list[Any]) -> None:
        if self._lines >= max(_SWEEP_AT_LEAST, 4 * len(self.items)):
            self._sweep()
            return
        with self._file.open("ab") as file:
            file.write(_line(entry))
        self._lines += 1

    def _sweep(self) -> None:
        fresh = self._file.with_suffix(".tmp")
        fresh.write_bytes(b"".join(_line([key, value]) for key, value in self.items.items()))
        fresh.replace(self._file)
        self._lines = len(self.items)

    def _load(self, data: bytes) -> None:
        whole, _, torn = data.rpartition(b"\n")
        if torn and not whole:
            raise ValueError("it does not begin with a whole line")
        for line in whole.splitlines():
            entry = json.loads(line)
            if not isinstance(entry, list) or len(entry) not in (1, 2) or not isinstance(entry[0], str):
                raise ValueError(f"not an entry: {line[:80]!r}")
            key, *value = entry
            if value:
                self.items[key] = value[0]
            else:
                self.items.pop(key, None)
            self._lines += 1
        if torn:
            self._sweep()  # or the next line would be appended to its rest


def _line(entry: list[Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
