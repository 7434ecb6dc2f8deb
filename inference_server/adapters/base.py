"""What the base model has that an adapter can be about: its layers' names and sizes.

In: the model's folder. Out: `BaseModel`, from the headers of its weights; empty where they are not on this
machine or of another format, and then nothing is refused on its account (the engine still will).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from inference_server.adapters.safetensors import NotSafetensors, contents

logger = logging.getLogger("kaito.inference_server.adapters.base")

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """``shapes``: outputs and inputs of a linear layer by the end of its name; ``words``: all parts of names."""

    names: frozenset[str] = frozenset()  # what the model is called, in lower case
    shapes: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    layers: int = 0


def tail(module: str) -> str:
    """The end of a module's name that checkpoints and libraries agree on: from its layer's number on."""
    found = _LAYER.search(module)
    return module[found.start(1) :] if found else module.rpartition(".")[2]


def layer_of(module: str) -> int | None:
    """The number of the layer that a module belongs to."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def read_base(folder: Path, names: Iterable[str] = ()) -> BaseModel:
    """What is known of the model in a folder. ``names`` are those that users know it by."""
    known = {name.rpartition("/")[2].lower() for name in names if name}
    shapes: dict[str, set[tuple[int, int]]] = {}
    words: set[str] = set()
    layers = 0
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(config.get("_name_or_path"), str):
            known.add(config["_name_or_path"].rpartition("/")[2].lower())
        for file in sorted(folder.glob("*.safetensors")):
            for name, tensor in contents(file).items():
                module = name.removesuffix(".weight")
                words.update(module.split("."))
                layers = max(layers, (layer_of(name) or 0) + 1)
                if len(tensor.shape) == 2 and tensor.dtype in _FLOATS and name.endswith(".weight"):
                    shapes.setdefault(tail(module), set()).add((tensor.shape[0], tensor.shape[1]))
    except (OSError, ValueError, AttributeError, NotSafetensors):
        logger.info("the base model's layers are not known; adapters are checked by the engine alone")
        return BaseModel(frozenset(known - {""}))
    return BaseModel(frozenset(known - {""}), shapes, frozenset(words), layers)
