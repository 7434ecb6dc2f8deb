"""What a rule may look at besides the object: ConfigMaps that it names, nodes that it would use, CSI drivers.

The rules are pure, so somebody else fetches: ``wanted`` says what is worth fetching for an object, and the answer
is a :class:`World`. What was not looked at is None, and the rules that need it say nothing then: the command line
without a cluster, the webhook and the controller ask the same function and differ only in what they know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api import keys
from api.errors import InvalidSpec
from api.model import Obj
from api.v1alpha1 import Workspace
from api.validation.switches import DEFAULT, Switches


@dataclass(frozen=True, slots=True)
class World:
    """What is known of the cluster; None where nobody looked.

    Attributes:
        config_maps: ConfigMaps of the workspace's namespace by name; a value of None means that it is not there.
        nodes: the nodes that the label selector matches.
        csi_drivers: the names of all CSI drivers.
    """

    config_maps: Mapping[str, Obj | None] | None = None
    nodes: tuple[Obj, ...] | None = None
    csi_drivers: frozenset[str] | None = None


UNSEEN: Final = World()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the rules for one object would look at."""

    config_maps: tuple[str, ...] = ()
    node_labels: Mapping[str, str] | None = None
    csi_drivers: bool = False

    def __bool__(self) -> bool:
        return bool(self.config_maps or self.node_labels or self.csi_drivers)


def wanted(obj: Obj, switches: Switches = DEFAULT) -> Wanted:
    """What to fetch for this object; nothing for one that cannot be read."""
    try:
        ws = Workspace.parse(obj)
    except InvalidSpec:
        return Wanted()
    names = [half.config for half in (ws.inference, ws.tuning) if half is not None and half.config]
    labels = None if switches.node_auto_provisioning else ws.resource.label_selector.as_labels()
    streaming = switches.model_streaming and ws.metadata.annotations.get(keys.MODEL_STREAMING) != "disabled"
    return Wanted(tuple(names), labels, streaming)
