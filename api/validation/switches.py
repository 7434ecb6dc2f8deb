"""Where upstream's releases contradict each other, or ask for a decision: one documented switch each.

In: text as in ``kaito manager --admission-rules=v0.3,volumes=true``. Out: a frozen :class:`Switches`. The defaults
admit what either era admits; ``V03`` and ``V012`` are the eras as they were. Webhook, controller and command line
must be given the same ones, or they disagree.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from api.errors import SpecError


class UnknownSwitch(SpecError, ValueError):
    """There is no such switch, or it does not take this value."""


@dataclass(frozen=True, slots=True)
class Switches:
    """What is admitted. In text, names have hyphens: ``hub-models=false``.

    Attributes:
        cloud: whose instance types are plausible where the catalogue does not know them: for azure those that
            begin with Standard_N or Standard_D, for other clouds none (v0.12).
        node_auto_provisioning: the operator makes nodes. Off, nodes are brought along: instanceType must be empty
            and the label selector must find nodes with NVIDIA's labels (v0.12).
        require_instance_type: instanceType must be written where nodes are made (v0.12); otherwise the cheapest
            type that fits is chosen.
        exact_case: an instance type in another spelling of upper and lower case is refused (v0.3); otherwise the
            cloud's spelling is used.
        require_own_label: a label selector of nothing but KAITO's own labels is refused (v0.12); otherwise warned
            of.
        hub_models: any org/model of the Hugging Face hub is a preset (v0.12).
        retired_presets: presets that upstream has retired (phi-2) are admitted, with a warning (v0.3).
        volumes: data may come from volumes and go to them (v0.12).
        adapter_strength: an adapter's strength is accepted whatever the runtime (v0.3); v0.12 refused it for vLLM.
        output_both: the result of tuning may go to a volume and an image (v0.3); v0.12 wanted exactly one.
        private_urls: data sets may be fetched from this machine, the cluster's network and the cloud's metadata
            service. v0.3 did not look; off is the safe choice, because the fetching pod has the node's identity.
        fixed_tuning_data: input and output of a tuning workspace cannot be changed (v0.3.0 only).
        access_secret: a token for the hub is required for gated models and refused where weights are in the image;
            otherwise either is warned of.
        mig, accelerator: GPUs may be partitioned, by MIG or by count (v0.12's gates, off there too).
        model_streaming: weights are streamed from blob storage, which needs a CSI driver (v0.12's gate, off).
        node_classes: the values that the annotation kaito.sh/node-class-name may have; empty allows any.
    """

    cloud: str = "azure"
    node_auto_provisioning: bool = True
    require_instance_type: bool = False
    exact_case: bool = False
    require_own_label: bool = False
    hub_models: bool = True
    retired_presets: bool = True
    volumes: bool = True
    adapter_strength: bool = True
    output_both: bool = True
    private_urls: bool = False
    fixed_tuning_data: bool = False
    access_secret: bool = False
    mig: bool = False
    accelerator: bool = False
    model_streaming: bool = False
    node_classes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``era,name=value,...``, all of it optional.

        Raises:
            UnknownSwitch: a name or a value is not one.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        base: Any = cls()
        if parts and parts[0] in _ERAS:
            base = _ERAS[parts.pop(0)]
        known = {field.name.replace("_", "-"): field for field in dataclasses.fields(cls)}
        changes: dict[str, Any] = {}
        for part in parts:
            name, sign, value = part.partition("=")
            field = known.get(name)
            if field is None or not sign:
                listed = ", ".join([*_ERAS, *(f"{item}=" for item in known)])
                raise UnknownSwitch(f"{part!r} is no admission rule", next_step=f"These are: {listed}")
            changes[field.name] = _value(name, value, field.default)
        result: Self = replace(base, **changes)
        return result


def _value(name: str, value: str, default: object) -> object:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise UnknownSwitch(
                f"{name}={value}: not true or false", next_step=f"Write {name}=true or {name}=false"
            )
        return value.lower() == "true"
    if isinstance(default, tuple):
        return tuple(item for item in value.split("|") if item)
    if value not in _CLOUDS:
        raise UnknownSwitch(f"{name}={value}: unknown cloud", next_step=f"Choose of {', '.join(_CLOUDS)}")
    return value


_CLOUDS: Final = ("azure", "aws", "arc")

DEFAULT: Final = Switches()

LENIENT: Final = Switches(private_urls=True, mig=True, accelerator=True)
"""What some operator admits: for who does not know how the operator at hand was started."""

V03: Final = Switches(
    exact_case=True,
    hub_models=False,
    volumes=False,
    private_urls=True,
)
"""v0.2 to v0.3, as they were."""

V012: Final = Switches(
    require_instance_type=True,
    require_own_label=True,
    retired_presets=False,
    adapter_strength=False,
    output_both=False,
    access_secret=True,
)
"""v0.12, as it is."""

_ERAS: Final = {"v0.3": V03, "v0.12": V012}
