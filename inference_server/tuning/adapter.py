"""The result as files: adapter_config.json and adapter_model.safetensors, and nothing else.

In: the trained model. Out: the two files in a folder, then the marker that upstream's programs look for. Each
appears under its name when it is whole. The configuration is written in one canonical form, so that equal runs
have equal bytes; what it names as its base is the model, not the folder that the pod had it in.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inference_server.tuning.checkpoints import write_whole

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
MARKER: Final = "fine_tuning_completed.txt"


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A finished adapter."""

    config: Path
    weights: Path


def save(model: Any, folder: Path, *, base: str, revision: str | None) -> AdapterFiles:
    """Writes the adapter of a PEFT model. OSErrors are the caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".adapter"
    shutil.rmtree(draft, ignore_errors=True)
    # Without the embeddings: finding out whether they changed would ask the model hub.
    model.save_pretrained(str(draft), safe_serialization=True, save_embedding_layers=False)
    fields: dict[str, Any] = json.loads((draft / CONFIG).read_text(encoding="utf-8"))
    fields |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    fields["target_modules"] = sorted(fields["target_modules"])
    (folder / MARKER).unlink(missing_ok=True)
    (draft / WEIGHTS).replace(folder / WEIGHTS)
    write_whole(folder / CONFIG, json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n")
    shutil.rmtree(draft)
    return AdapterFiles(folder / CONFIG, folder / WEIGHTS)


def mark_done(folder: Path) -> None:
    """The file that says that the results are complete (upstream's contract)."""
    write_whole(folder / MARKER, b"")
