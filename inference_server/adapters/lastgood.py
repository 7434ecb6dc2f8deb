"""The last set that was in force, kept on the disk so that a restart can return to it.

In: a set that has come into force. Out: a small JSON file, replaced by rename; at the next start the same set,
as far as its files are still in the store. A file that cannot be read is no last good set, and never an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from api.adapters import WantedAdapter
from inference_server.adapters.decide import Planned
from inference_server.adapters.wanted import Source, source_of

logger = logging.getLogger("kaito.inference_server.adapters.lastgood")

Record = list[tuple[WantedAdapter, str, str]]  # with digest and key


class LastGood:
    """One server's record in ``folder``; ``identity`` tells servers apart that share it."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._file = folder / f"{identity.replace('/', '_') or 'server'}.json"

    def write(self, planned: Planned) -> None:
        """Remember a set. A disk that refuses costs the memory, not the service."""
        entries = [
            {"wanted": wanted.model_dump(by_alias=True), "digest": artifact.digest, "key": artifact.key}
            for wanted, artifact in planned.adapters
        ]
        draft = self._file.with_suffix(".new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"revision": planned.revision, "adapters": entries}), encoding="utf-8")
            draft.replace(self._file)
        except OSError as error:
            logger.warning("last good adapters not remembered error=%s", error.strerror or error)

    def read(self) -> tuple[str, Record] | None:
        """Revision and adapters of the last good set."""
        try:
            fields = json.loads(self._file.read_text(encoding="utf-8"))
            return str(fields["revision"]), _record(fields["adapters"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            logger.warning("last good adapters cannot be read file=%s", self._file)
            return None

    def keys_of_all(self) -> set[str]:
        """What the records of all servers that share the folder name; their files must stay."""
        keys: set[str] = set()
        for file in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                keys |= {key for _, _, key in _record(json.loads(file.read_text(encoding="utf-8"))["adapters"])}
            except (OSError, ValueError, KeyError, TypeError, ValidationError):
                continue
        return keys


def by_source(record: Record) -> dict[Source, tuple[str, str]]:
    """Digest and key by source."""
    return {source_of(wanted): (digest, key) for wanted, digest, key in record}


def _record(entries: Iterable[dict[str, object]]) -> Record:
    return [
        (WantedAdapter.model_validate(entry["wanted"]), str(entry["digest"]), str(entry["key"]))
        for entry in entries
    ]
