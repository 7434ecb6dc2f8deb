"""The training configuration of a Workspace: its own ConfigMap, or a copy of the method's template.

In: an observation whose ``children.configs`` were looked up. Out: the text that the run reads, what is to be
created for it, or why there is none. Pure. The copy is made once for a namespace, and belongs to its users from
then on: what is there is used as it is, edited or not, and neither a newer operator nor the end of a Workspace
touches it. Deleted, it is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from api import keys
from api.reasons import Cause, Reason
from api.training_templates import TEMPLATE_CONFIG_MAPS, training_template
from api.v1alpha1 import TuningSpec
from api.v1alpha1.tuning import TuningMethod
from api.validation.training_config import rules
from controllers.workspace.model import Action, CreateOnce, Observation
from manager.resources import CONFIGMAPS
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is to read. ``text`` None: nobody knows; ``problem`` says why where that is a fault."""

    name: str
    text: str | None = None
    actions: tuple[Action, ...] = ()
    problem: Cause | None = None


def name_of(config: object, method: object) -> str:
    """The ConfigMap of a tuning specification that may be broken; empty where there can be none."""
    if config and isinstance(config, str):
        return config
    try:
        return TEMPLATE_CONFIG_MAPS[TuningMethod(str(method).lower())]
    except ValueError:
        return ""


def config_name(spec: TuningSpec) -> str:
    """The ConfigMap with the settings of this specification."""
    return name_of(spec.config, spec.method)


def settings_of(obs: Observation, spec: TuningSpec, method: TuningMethod) -> Settings:
    """The settings of the next run."""
    name, configs = config_name(spec), obs.children.configs
    stored = (configs or {}).get(name)
    if stored is not None:
        found = list(rules(name, {name: stored}, method))
        if found:
            # The ConfigMap is named in front: it may be the copy, which no field names.
            problems = "; ".join(f"{item.message} ({item.hint})" if item.hint else item.message for item in found)
            cause = Cause(
                Reason.TUNING_CONFIG_INVALID,
                {"message": f"ConfigMap {name}: {problems}"},
                f"`kubectl edit configmap {name} -n {obs.namespace}`; the run starts once it is right",
            )
            return Settings(name, problem=cause)
        return Settings(name, str((stored.get("data") or {}).get(keys.TRAINING_CONFIG_KEY) or ""))
    if not spec.config:
        body = template_copy(method, obs.namespace)
        return Settings(name, body["data"][keys.TRAINING_CONFIG_KEY], (CreateOnce(CONFIGMAPS, body),))
    if configs is None:
        return Settings(name, "")
    step = f"Create it with the key {keys.TRAINING_CONFIG_KEY}, or remove tuning.config"
    return Settings(name, problem=Cause(Reason.CONFIG_MISSING, {"name": name}, step))


def template_copy(method: TuningMethod, namespace: str) -> Obj:
    """The ConfigMap with the method's template, for all Workspaces of the namespace."""
    return {
        "apiVersion": CONFIGMAPS.api_version,
        "kind": CONFIGMAPS.kind,
        "metadata": {"name": TEMPLATE_CONFIG_MAPS[method], "namespace": namespace},
        "data": {keys.TRAINING_CONFIG_KEY: training_template(method)},
    }
