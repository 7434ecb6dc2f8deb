"""Machine or NodeClaim: which kind of object the operator creates for a missing node, and in which words it tells.

In: nothing. Out: two constant vocabularies, of which ``kaito manager --node-api`` chooses one. A decision that
depends on the kind reads it from here; an ``if`` on the kind elsewhere is a mistake, except where the bodies of
the objects are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.conditions import (
    MACHINE_INITIALIZED,
    MACHINE_LAUNCHED,
    MACHINE_READY,
    MACHINE_REGISTERED,
    NODECLAIM_INITIALIZED,
    NODECLAIM_LAUNCHED,
    NODECLAIM_READY,
    NODECLAIM_REGISTERED,
    conditions_of,
    find,
)
from api.reasons import Reason
from controllers.resources import MACHINES, NODECLAIMS
from manager.types import Obj, Resource


@dataclass(frozen=True, slots=True)
class NodeApi:
    """One kind of object that becomes a node.

    Attributes:
        name: as ``--node-api`` names it.
        resource: the kind.
        condition: the Workspace's condition about its nodes, upstream's name for this kind.
        launched, registered, initialized: the object's own conditions, in the order of events.
        pending, refused, missing: why nodes are not there: being created; the API server refuses; no such kind.
        created: the event's reason when one was created.
    """

    name: str
    resource: Resource
    condition: str
    launched: str
    registered: str
    initialized: str
    pending: Reason
    refused: Reason
    missing: Reason
    created: str

    @property
    def kind(self) -> str:
        """For sentences."""
        return self.resource.kind


MACHINE_API: Final = NodeApi(
    name="machine",
    resource=MACHINES,
    condition=MACHINE_READY,
    launched=MACHINE_LAUNCHED,
    registered=MACHINE_REGISTERED,
    initialized=MACHINE_INITIALIZED,
    pending=Reason.CREATE_MACHINE_PENDING,
    refused=Reason.MACHINE_CREATION_FAILED,
    missing=Reason.MACHINE_API_MISSING,
    created="MachineCreated",
)

NODECLAIM_API: Final = NodeApi(
    name="nodeclaim",
    resource=NODECLAIMS,
    condition=NODECLAIM_READY,
    launched=NODECLAIM_LAUNCHED,
    registered=NODECLAIM_REGISTERED,
    initialized=NODECLAIM_INITIALIZED,
    pending=Reason.CREATE_NODECLAIM_PENDING,
    refused=Reason.NODECLAIM_CREATION_FAILED,
    missing=Reason.NODECLAIM_API_MISSING,
    created="NodeClaimCreated",
)

NODE_APIS: Final[Mapping[str, NodeApi]] = {api.name: api for api in (MACHINE_API, NODECLAIM_API)}
"""By the values of ``--node-api``."""


def api_of(obj: Obj) -> NodeApi:
    """The vocabulary of a Machine or NodeClaim, or of a Workspace by the condition that it bears."""
    if obj.get("kind") == NODECLAIMS.kind or find(conditions_of(obj), NODECLAIM_READY):
        return NODECLAIM_API
    return MACHINE_API
