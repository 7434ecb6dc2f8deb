"""What garbage collection and namespaces believe to be all that a server has."""

from __future__ import annotations

from pathlib import Path

from api.crds import crds, nodeclaim_crd
from controllers.resources import MACHINES, NODECLAIMS, WORKSPACES
from kaito.local.apiserver.server import ApiServer
from kaito.local.cluster import put
from kaito.local.workloads.discovery import discover
from manager.client import Client
from manager.resources import CRDS


async def test_a_kind_that_only_an_older_version_of_its_group_has_is_found(tmp_path: Path) -> None:
    """Machines beside NodeClaims in one group, each in a version of its own; and a kind of two versions once."""
    async with ApiServer(tmp_path) as server, Client(server.rest_config()) as client:
        for crd in (*crds(), nodeclaim_crd()):
            await put(client, CRDS, crd)
        catalogue = await discover(client)

    found = [item.resource for item in catalogue.served]
    assert {MACHINES, NODECLAIMS} <= set(found)
    assert [item.version for item in found if item.kind == WORKSPACES.kind] == ["v1beta1"]
    assert len({(item.group, item.plural) for item in found}) == len(found)
