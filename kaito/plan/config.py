"""The context that a Workspace's own configuration asks for, where the ConfigMap is in the same files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.v1alpha1 import Workspace
from kaito.errors import CliError

_KEY = "inference_config.yaml"


def wanted_context(workspace: Workspace, beside: Iterable[dict[str, Any]]) -> int | None:
    """``max-model-len`` of the named ConfigMap; None where it is not given or the ConfigMap is elsewhere.

    Raises:
        CliError: the ConfigMap's text is not YAML (exit code 2).
    """
    name = workspace.inference.config if workspace.inference else None
    if not name:
        return None
    for obj in beside:
        if obj.get("kind") == "ConfigMap" and obj["metadata"].get("name") == name:
            return _max_model_len(name, str((obj.get("data") or {}).get(_KEY) or ""))
    return None


def _max_model_len(name: str, text: str) -> int | None:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CliError(f"{_KEY} in ConfigMap {name} is not YAML", "correct it", exit_code=2) from error
    section = found.get("vllm") if isinstance(found, dict) else None
    if not isinstance(section, dict):
        return None
    value = section.get("max-model-len", section.get("max_model_len"))
    return value if isinstance(value, int) and value > 0 else None
