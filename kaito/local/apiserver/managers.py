"""The managers of an object's fields: decoding, bookkeeping and encoding of ``metadata.managedFields``.

In: the list as objects carry it. Out: :class:`Managers`, a mapping from a manager's identity to the fields it
owns and the time of its last change, and the list again in the order of a real server. An entry that cannot be
read is dropped, never kept half-read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from manager.types import Obj

from .fieldpath import EMPTY, FieldSet, decode, encode

Operation = Literal["Apply", "Update"]
MAX_UPDATE_MANAGERS = 10  # the real server folds older ones into one entry
_ANCIENT = "ancient-changes"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who changed fields, how, at which version and through which subresource."""

    name: str
    operation: Operation
    api_version: str
    subresource: str = ""

    def shown(self) -> str:
        """The spelling of conflict messages."""
        spelled = json.dumps(self.name, ensure_ascii=False)
        if self.subresource:
            spelled += f' with subresource "{self.subresource}"'
        return f"{spelled} using {self.api_version}" if self.operation == "Update" else spelled


@dataclass
class Managers:
    """Fields and times by manager. Owned by one request; never shared."""

    fields: dict[Identity, FieldSet] = field(default_factory=dict)
    times: dict[Identity, str] = field(default_factory=dict)

    @classmethod
    def of(cls, obj: Obj | None) -> Managers:
        """The managers that an object's metadata lists."""
        found = cls()
        metadata = (obj or {}).get("metadata") or {}
        for entry in metadata.get("managedFields") or ():
            if not entry or entry.get("operation") not in ("Apply", "Update"):
                continue
            identity = Identity(
                str(entry.get("manager", "")),
                entry["operation"],
                str(entry.get("apiVersion", "")),
                str(entry.get("subresource", "")),
            )
            found.fields[identity] = found.fields.get(identity, EMPTY) | decode(entry.get("fieldsV1") or {})
            if entry.get("time"):
                found.times[identity] = str(entry["time"])
        return found

    def copy(self) -> Managers:
        """An independent copy."""
        return Managers(dict(self.fields), dict(self.times))

    def others(self, identity: Identity | None) -> Iterator[tuple[Identity, FieldSet]]:
        """Every manager but one."""
        return ((other, owned) for other, owned in list(self.fields.items()) if other != identity)

    def lose(self, gone: FieldSet, *, keep: Identity | None = None) -> None:
        """Take fields from every manager but ``keep``; who owns nothing any more is forgotten."""
        for other, owned in self.others(keep):
            rest = owned - gone
            if rest:
                self.fields[other] = rest
            else:
                self.forget(other)

    def forget(self, identity: Identity) -> None:
        """Drop a manager."""
        self.fields.pop(identity, None)
        self.times.pop(identity, None)

    def cap(self) -> None:
        """Fold the oldest updaters into one, so that objects written by many do not grow without bound."""
        updaters = sorted(
            (identity for identity in self.fields if identity.operation == "Update"),
            key=lambda identity: self.times.get(identity, ""),
        )
        for oldest in updaters[: max(0, len(updaters) - MAX_UPDATE_MANAGERS)]:
            if oldest.name == _ANCIENT:
                continue
            bucket = Identity(_ANCIENT, "Update", oldest.api_version)
            self.fields[bucket] = self.fields.get(bucket, EMPTY) | self.fields[oldest]
            self.times[bucket] = max(self.times.get(bucket, ""), self.times.get(oldest, ""))
            self.forget(oldest)

    def encode(self) -> list[Obj]:
        """The entries of ``managedFields``: appliers first, then by time, name and version."""
        order = sorted(
            self.fields,
            key=lambda one: (one.operation, self.times.get(one, ""), one.name, one.api_version, one.subresource),
        )
        return [self._entry(identity) for identity in order]

    def _entry(self, identity: Identity) -> Obj:
        entry: dict[str, Any] = {
            "manager": identity.name,
            "operation": identity.operation,
            "apiVersion": identity.api_version,
        }
        if identity in self.times:
            entry["time"] = self.times[identity]
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = encode(self.fields[identity])
        if identity.subresource:
            entry["subresource"] = identity.subresource
        return entry
