"""The Workspace's admission webhook: the rules of ``api.validation``, with what they may look at fetched for them.

In: requests of the API server, through ``manager.webhooks``. Out: a refusal that names every mistake, its field
and what to do instead, as a Status with one cause each; or warnings. Nothing is changed and nothing is remembered:
every replica answers. What cannot be fetched in time is left unchecked, and said: a slow API server must not keep
people from a Workspace, and the reconciler judges again. Deletions and status are never held up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from api.validation import UNSEEN, Switches, Verdict, Wanted, World, judge, shortened, wanted
from api.webhook import PATH
from manager.client import Client
from manager.errors import Invalid, ManagerError, NotFound
from manager.resources import CONFIGMAPS, NODES
from manager.types import Obj, Resource
from manager.webhooks.admission import validating
from manager.webhooks.review import AdmissionRequest
from manager.webhooks.server import WebhookServer

log = logging.getLogger("kaito.controllers.workspace.admission")

CSI_DRIVERS: Final = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
_LOOK_SECONDS: Final = 3.0  # the API server waits 10

Look = Callable[[Wanted, str], Awaitable[World]]
"""Fetches what rules want to look at, for an object of this namespace."""


def add_workspace_webhook(server: WebhookServer, client: Client, switches: Switches) -> None:
    """Have the server answer for Workspaces of every version."""

    async def look(what: Wanted, namespace: str) -> World:
        return await fetch(client, what, namespace)

    server.admission(PATH, validating(WorkspaceValidator(look, switches)))


class WorkspaceValidator:
    """See the module; a ``manager.webhooks.admission.Validator``."""

    def __init__(self, look: Look, switches: Switches) -> None:
        self._look = look
        self._switches = switches

    async def validate_create(self, obj: Obj, request: AdmissionRequest) -> Sequence[str]:
        """Raises ``Invalid`` for what must not be created; else warnings."""
        return await self._judged(obj, None, request)

    async def validate_update(self, old: Obj, new: Obj, request: AdmissionRequest) -> Sequence[str]:
        """Raises ``Invalid`` for what must not become; else warnings."""
        return () if request.subresource else await self._judged(new, old, request)

    def validate_delete(self, obj: Obj, request: AdmissionRequest) -> None:
        """Anything may be deleted."""

    async def _judged(self, new: Obj, old: Obj | None, request: AdmissionRequest) -> Sequence[str]:
        world, unseen = UNSEEN, ""
        what = wanted(new, self._switches)
        if what:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    world = await self._look(what, request.namespace)
            except (ManagerError, TimeoutError) as error:
                unseen = f"what it refers to was not checked: {error or 'the API server is slow'}"
                log.warning("workspace %s/%s: %s", request.namespace, request.name, unseen)
        verdict = judge(new, old, switches=self._switches, world=world)
        if not verdict.admitted:
            raise refusal(request.name or name_of(new), verdict)
        return [*verdict.warnings, unseen] if unseen else verdict.warnings


def refusal(name: str, verdict: Verdict) -> Invalid:
    """The violations as an API server's own validation would tell them: kubectl prints a line for each cause."""
    found = shortened(verdict.violations)
    causes = [
        {"reason": "FieldValueInvalid", "field": item.path or "workspace", "message": item.text} for item in found
    ]
    details = {"name": name, "group": "kaito.sh", "kind": "Workspace", "causes": causes}
    message = "; ".join(map(str, found))
    return Invalid(422, "Invalid", f"validation failed: {message}", details)


def name_of(obj: Obj) -> str:
    """The name, or the beginning of one that the API server completes."""
    metadata = obj.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("name") or found.get("generateName") or "")


async def fetch(client: Client, what: Wanted, namespace: str) -> World:
    """What the rules want to look at, read from the API server, not from a cache: it was perhaps just applied.

    Raises:
        ManagerError: the API server refused or could not be asked.
    """
    maps: dict[str, Obj | None] = {}
    for name in what.config_maps:
        try:
            maps[name] = await client.get(CONFIGMAPS, name, namespace)
        except NotFound:
            maps[name] = None
    nodes = None
    if what.node_labels is not None:
        selector = ",".join(f"{key}={value}" for key, value in what.node_labels.items())
        nodes = tuple((await client.list(NODES, label_selector=selector)).items)
    drivers = None
    if what.csi_drivers:
        listed = (await client.list(CSI_DRIVERS)).items
        drivers = frozenset(str(item["metadata"]["name"]) for item in listed)
    return World(config_maps=maps if what.config_maps else None, nodes=nodes, csi_drivers=drivers)
