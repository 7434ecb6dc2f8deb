"""Reading cloud and cluster for an audit: the cloud first, so that what is new in between has its Machine.

In: a provider and a client. Out: a ``World``. A kind that the cluster does not serve has no objects; a list that
is refused ends the audit, because an empty answer would make orphans of everything.
"""

from __future__ import annotations

from controllers.audit import World
from controllers.resources import MACHINES, NODECLAIMS
from kaito.errors import CliError
from manager.client import Client
from manager.errors import NotFound
from manager.resources import NODES
from manager.types import Obj, Resource
from provisioner import CloudProvider
from provisioner.errors import CloudError


async def gather(provider: CloudProvider, client: Client) -> World:
    """Both sides, as they are now.

    Raises:
        CliError: the cloud could not be asked (exit code 2).
        ApiError: the cluster refused.
    """
    try:
        instances = await provider.list()
    except CloudError as error:
        raise cannot_ask(error) from error
    machines = [*await _list(client, MACHINES), *await _list(client, NODECLAIMS)]
    return World(provider, instances, machines, await _list(client, NODES))


def cannot_ask(error: CloudError) -> CliError:
    """A cloud's refusal at the terminal."""
    return CliError(f"{error.reason}: {error.message}", error.next_step, exit_code=2, title="the cloud")


async def _list(client: Client, resource: Resource) -> list[Obj]:
    try:
        return (await client.list(resource)).items
    except NotFound:
        return []  # the kind is not served here
