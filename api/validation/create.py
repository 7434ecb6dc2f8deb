"""The rules for a new Workspace. All that is wrong is told at once.

An object whose shape is wrong (a missing required field, a number where text is meant) gets those findings
only: the later rules could not read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from api import keys
from api.errors import InvalidSpec
from api.model import Obj
from api.v1alpha1 import Workspace
from api.v1beta1 import API_VERSION as BETA
from api.validation import inference, metadata, nodes, resource, tuning
from api.validation.rules import unknown_fields
from api.validation.switches import DEFAULT, Switches
from api.validation.violation import Violation
from api.validation.world import UNSEEN, World

_CSI_DRIVER = "blob.csi.azure.com"


def validate_create(obj: Obj, *, switches: Switches = DEFAULT, world: World = UNSEEN) -> list[Violation]:
    """What is wrong with a new Workspace, given as plain JSON; nothing is an empty list."""
    found = list(_fields(obj))
    try:
        ws = Workspace.parse(obj)
    except InvalidSpec as error:
        return found + [Violation(path, what, _explain(path)) for path, what in error.problems]
    found += _kind(ws)
    found += metadata.rules(ws, switches)
    found += _halves(ws)
    found += resource.rules(ws, switches)
    found += _cluster(ws, switches, world)
    if ws.inference is not None:
        found += inference.rules(ws, ws.inference, switches, world)
    if ws.tuning is not None:
        found += tuning.rules(ws, ws.tuning, switches, world)
    return found


def _explain(path: str) -> str:
    fields = re.sub(r"\[[^\]]*\]", "", path)
    return f"see `kubectl explain {'.'.join(filter(None, ('workspace', fields)))}`"


def _fields(obj: Obj) -> Iterator[Violation]:
    for path, name, meant in unknown_fields(Workspace, obj):
        hint = f"did you mean {meant}?" if meant else "`kubectl explain workspace --recursive` lists the fields"
        yield Violation(path, f'unknown field "{name}"', hint)


def _kind(ws: Workspace) -> Iterator[Violation]:
    if ws.kind and ws.kind != Workspace.KIND:
        yield Violation("kind", f"this is a {ws.kind}", f"write {Workspace.KIND}")
    if ws.api_version and ws.api_version not in (Workspace.API_VERSION, BETA):
        yield Violation("apiVersion", f"{ws.api_version[:60]} is not served", f"write {Workspace.API_VERSION}")


def _halves(ws: Workspace) -> Iterator[Violation]:
    if ws.inference is None and ws.tuning is None:
        yield Violation(
            "inference", "Either Inference or Tuning must be specified, not neither", "add an inference block"
        )
    if ws.inference is not None and ws.tuning is not None:
        yield Violation(
            "tuning", "Either Inference or Tuning must be specified, but not both", "use two workspaces"
        )


def _cluster(ws: Workspace, switches: Switches, world: World) -> Iterator[Violation]:
    if not switches.node_auto_provisioning and world.nodes is not None:
        yield from nodes.rules(world.nodes)
    streams = switches.model_streaming and ws.metadata.annotations.get(keys.MODEL_STREAMING) != "disabled"
    if streams and world.csi_drivers is not None and _CSI_DRIVER not in world.csi_drivers:
        yield Violation(
            f"metadata.annotations[{keys.MODEL_STREAMING}]",
            f"model streaming needs the CSI driver {_CSI_DRIVER}",
            'install it, or write "disabled"',
        )
