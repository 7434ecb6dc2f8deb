"""What a pod needs from the agent: the one object that is handed to every worker.

It carries references, not behaviour: the API client, the recorder of events, the image table, folders and
clocks. The agent makes it once; tests make it with what they need. Nothing in it belongs to a single pod.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kaito.local.node.addresses import Addresses
from kaito.local.node.images import ImageTable
from kaito.local.node.names import Known
from kaito.local.node.prober import Prober
from manager.client import Client
from manager.types import Obj


class Recorder(Protocol):
    """The part of the manager's event recorder that the agent uses."""

    def event(self, regarding: Obj, type: str, reason: str, note: str, *, action: str = "Reconcile") -> None: ...


# (kind, namespace, name) → the ConfigMap or Secret, None when it does not exist
ReadObject = Callable[[str, str, str], Awaitable[Obj | None]]


@dataclass(frozen=True, slots=True)
class Host:
    """What all pods of this agent share."""

    client: Client
    recorder: Recorder
    images: ImageTable
    prober: Prober
    addresses: Addresses
    pods: Path
    claims: Path
    read_object: ReadObject
    allocatable: Callable[[str], Mapping[str, str]]
    known: Known
    clock: Callable[[], float]
    host_ip: str = "127.0.0.1"
    orphan_seconds: float = 30.0
