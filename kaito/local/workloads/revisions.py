"""Carrying out the history of a StatefulSet or DaemonSet: writes its ControllerRevisions.

In: an owner and its present revisions. Out: the revision of its present template, made or renumbered where the
plan of ``history`` asks for it. Names follow from the template, so a stale cache cannot make one twice; a name
that is taken by something else raises the owner's collision count, which changes the hash.
"""

from __future__ import annotations

from collections.abc import Collection

from manager.client import Client
from manager.errors import AlreadyExists, Conflict, NotFound
from manager.resources import CONTROLLERREVISIONS
from manager.types import Obj

from . import history
from . import pods as p
from .acting import Owners
from .templates import same_template


async def sync(client: Client, owners: Owners, owner: Obj, present: list[Obj], in_use: Collection[str]) -> Obj:
    """The revision of the owner's present template, as the server has it.

    Raises:
        Conflict: the name was taken; the collision count has been raised, try again.
    """
    plan = history.plan(owner, present, in_use)
    update = plan.update
    if plan.create:
        update = await _create(client, owners, owner, update)
    elif plan.renumber:
        patch: Obj = {"revision": history.number_of(update)}
        update = await client.patch(CONTROLLERREVISIONS, p.name_of(update), patch, namespace=p.namespace_of(owner))
    for old in plan.delete:
        try:
            await client.delete(CONTROLLERREVISIONS, p.name_of(old), p.namespace_of(old), uid=p.uid_of(old))
        except (NotFound, Conflict):
            pass  # gone already
    return update


async def _create(client: Client, owners: Owners, owner: Obj, wanted: Obj) -> Obj:
    try:
        return await client.create(CONTROLLERREVISIONS, wanted)
    except AlreadyExists:
        present = await client.get(CONTROLLERREVISIONS, p.name_of(wanted), p.namespace_of(owner))
        if same_template(history.template_of(present), history.template_of(wanted)):
            return present
        count = int(p.status_of(owner).get("collisionCount") or 0) + 1
        await owners.report(owner, {**p.status_of(owner), "collisionCount": count})
        raise Conflict(409, "Conflict", f"the name {p.name_of(wanted)} is taken by another revision") from None
