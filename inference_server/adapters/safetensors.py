"""The table of contents of a safetensors file, read without its library and without its tensors.

In: a file. Out: names, types and shapes. The file comes from strangers: every length is checked against the
file's own before anything is read.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES = 64 << 20


class NotSafetensors(Exception):
    """The file is not one. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry. ``dtype`` as the format writes it: BF16, F32, ..."""

    dtype: str
    shape: tuple[int, ...]


def contents(path: Path) -> dict[str, Tensor]:
    """All tensors by name. Raises NotSafetensors, or OSError when the file cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise NotSafetensors(f"{path.name} is too short")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _HEADER_BYTES):
            raise NotSafetensors(f"{path.name} is not a safetensors file, or was cut off")
        raw = file.read(length)
    try:
        fields = json.loads(raw)
        tensors = {
            name: (Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"]))), entry["data_offsets"])
            for name, entry in fields.items()
            if name != "__metadata__"
        }
        end = max((int(offsets[1]) for _, offsets in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise NotSafetensors(f"{path.name} has a damaged header") from error
    if end != size - 8 - length:
        raise NotSafetensors(f"{path.name} has {size} bytes and should have {end + 8 + length}: it was cut off")
    return {name: tensor for name, (tensor, _) in tensors.items()}
