"""What a preset says to the engine.

In: a preset's name and where its model lies. Out: engine options. They belong to the model that the preset names:
weights of another architecture under its name (a stand-in) get none. Code that comes with a model is never trusted
on a preset's word, and a file that the preset names counts only where it exists.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from api.catalog import find_preset

# Of the older server's parameters only this one has a meaning for the engine.
_OLD = {"torch_dtype": "dtype"}
_NEVER = ("trust_remote_code", "pipeline")
_FILES = ("chat_template",)


def preset_options(name: str, model: str) -> dict[str, Any]:
    """Engine options by their names with underscores; none for an unknown preset."""
    preset = find_preset(name) if name else None
    if preset is None or not _fits(model, preset.architecture):
        return {}
    found: dict[str, Any] = {}
    for key, value in preset.run_params.items():
        option = key.replace("-", "_")
        if preset.era == "v0.3":
            if option not in _OLD:
                continue
            option = _OLD[option]
        if option in _NEVER or (option in _FILES and not Path(value).is_file()) or value == "auto":
            continue
        found[option] = value
    return found


def _fits(model: str, architecture: str) -> bool:
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except OSError:
        return not Path(model).exists()  # a name on the hub
    except ValueError:
        return False
    return isinstance(config, dict) and architecture in (config.get("architectures") or ())
