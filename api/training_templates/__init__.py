"""The training settings that a tuning Workspace has when it names no ConfigMap of its own.

In: the method. Out: the text of ``training_config.yaml``, as it ships beside this module. The operator copies it
into the Workspace's namespace as a ConfigMap of the name below; the tuning program takes it when it is given no
file. Both read the same text, so that what ``kubectl get configmap`` shows is what is trained with.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from api.v1alpha1.tuning import TuningMethod

TEMPLATE_CONFIG_MAPS: Final = {
    TuningMethod.LORA: "lora-params-template",
    TuningMethod.QLORA: "qlora-params-template",
}


def training_template(method: TuningMethod) -> str:
    """The text of the method's ``training_config.yaml``."""
    return files(__name__).joinpath(f"{method.value}.yaml").read_text(encoding="utf-8")
