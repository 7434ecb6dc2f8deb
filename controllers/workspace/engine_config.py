"""The user's settings of the engine: the ConfigMap that ``inference.config`` names.

In: an observation whose ``children.configs`` were looked up. Out: a hash of what the pods read, or why they could
not. Pure. Settings that are missing or cannot be read never reach a running pod: it keeps those that it has.
"""

from __future__ import annotations

from api import keys
from api.reasons import Cause, Reason
from api.validation.inference_config import rules
from controllers.workspace.model import Observation
from controllers.workspace.owned import digest
from controllers.workspace.target import Target
from manager.types import Obj


def config_hash(obs: Observation, target: Target) -> str | Cause:
    """The hash of the settings; empty without any, or where nobody looked."""
    name, configs = target.inference.config, obs.children.configs
    if not name or configs is None:
        return ""
    stored = configs.get(name)
    if stored is None:
        running = _running(obs.workload, name)
        # What is mounted lives on in the pods that run: nothing is to be done as long as nobody wants new ones.
        return running or Cause(Reason.CONFIG_MISSING, {"name": name})
    limit = target.preset.context_limit if target.preset else None
    found = list(rules(name, configs, limit))
    if found:
        return Cause(Reason.CONFIG_INVALID, {"problems": "; ".join(map(str, found))})
    return digest((stored.get("data") or {}).get(keys.INFERENCE_CONFIG_KEY))[:16]


def _running(workload: Obj | None, name: str) -> str:
    """The hash that the pods of a workload with this ConfigMap were made with."""
    template = ((workload or {}).get("spec") or {}).get("template") or {}
    for volume in (template.get("spec") or {}).get("volumes") or []:
        if (volume.get("configMap") or {}).get("name") == name:
            annotations = (template.get("metadata") or {}).get("annotations") or {}
            return str(annotations.get(keys.CONFIG_HASH) or "")
    return ""
