"""Volumes at work: binds claims, makes folders for them, releases and removes what nobody claims.

Two reconcilers share this file because they are two views of one bond: the claim's, which makes it, and the
volume's, which ends it. The protection finalizers that the API server adds are taken off here, when no pod uses
the claim and no claim the volume.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.builder import ControllerBuilder
from manager.client import Client
from manager.errors import AlreadyExists, NotFound
from manager.events import EventRecorder
from manager.finalizers import has_finalizer, without_finalizer
from manager.informer import Event, Updated
from manager.manager import Manager
from manager.meta import finalizers_of
from manager.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from manager.types import Obj, Request, Result

from .. import pods as p
from ..acting import Owners
from ..world import World, request_for
from .decide import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    CLAIM_PROTECTION,
    VOLUME_PROTECTION,
    choose,
    is_for,
    may_provision,
    new_volume,
    reference,
)


class ClaimReconciler:
    """Gives each claim its volume."""

    def __init__(self, manager: Manager, world: World, events: EventRecorder) -> None:
        self._client: Client = manager.live
        self._world = world
        self._events = events
        self._owners = Owners(manager.live, PERSISTENTVOLUMECLAIMS, world.claims)

    async def reconcile(self, request: Request) -> Result:
        """Bind the claim, or let it go."""
        claim = self._owners.get(request)
        if claim is None:
            return Result()
        if p.is_terminating(claim):
            if has_finalizer(claim, CLAIM_PROTECTION) and not self._in_use(claim):
                rest = finalizers_of(without_finalizer(claim, CLAIM_PROTECTION))
                await self._owners.patch(claim, {"metadata": {"finalizers": rest or None}})
            return Result()
        if p.status_of(claim).get("phase") == "Bound":
            return Result()
        volume = choose(claim, self._world.volumes.list()) or await self._provision(claim)
        if volume is not None:
            await self._bind(claim, volume)
        return Result()

    def _in_use(self, claim: Obj) -> bool:
        return any(
            not p.is_finished(pod) and request_for(claim) in claims_of(pod)
            for pod in self._world.pods.list(p.namespace_of(claim))
        )

    async def _provision(self, claim: Obj) -> Obj | None:
        if not may_provision(claim):
            note = "no persistent volumes available for this claim and no storage class is set"
            self._events.event(claim, "Normal", "FailedBinding", note)
            return None
        volume = new_volume(claim)
        try:
            made = await self._client.create(PERSISTENTVOLUMES, volume)
        except AlreadyExists:
            return await self._client.get(PERSISTENTVOLUMES, p.name_of(volume))
        note = f"Successfully provisioned volume {p.name_of(made)}"
        self._events.event(claim, "Normal", "ProvisioningSucceeded", note)
        return made

    async def _bind(self, claim: Obj, volume: Obj) -> None:
        name = p.name_of(volume)
        if (p.spec_of(volume).get("claimRef") or {}).get("uid") != p.uid_of(claim):
            version = p.meta_of(volume).get("resourceVersion")
            bond: Obj = {
                "metadata": {"resourceVersion": version, "annotations": {BOUND_BY_CONTROLLER: "yes"}},
                "spec": {"claimRef": reference(claim)},
            }
            volume = await self._client.patch(PERSISTENTVOLUMES, name, bond)
        if p.status_of(volume).get("phase") != "Bound":
            bound: Obj = {"status": {"phase": "Bound"}}
            await self._client.patch(PERSISTENTVOLUMES, name, bound, subresource="status")
        spec = p.spec_of(volume)
        if p.spec_of(claim).get("volumeName") != name:
            notes = {BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"}
            await self._owners.patch(claim, {"metadata": {"annotations": notes}, "spec": {"volumeName": name}})
        await self._owners.report(
            claim,
            {
                "phase": "Bound",
                "accessModes": spec.get("accessModes"),
                "capacity": spec.get("capacity"),
            },
        )


class VolumeReconciler:
    """Frees each volume when its claim is gone."""

    def __init__(self, manager: Manager, world: World) -> None:
        self._client: Client = manager.live
        self._world = world
        self._owners = Owners(manager.live, PERSISTENTVOLUMES, world.volumes)

    async def reconcile(self, request: Request) -> Result:
        """Offer, release or remove one volume."""
        volume = self._owners.get(request)
        if volume is None:
            return Result()
        claimed = p.spec_of(volume).get("claimRef") or {}
        bound = bool(claimed.get("uid")) and await self._claim_exists(volume, claimed)
        if p.is_terminating(volume):
            if has_finalizer(volume, VOLUME_PROTECTION) and not bound:
                rest = finalizers_of(without_finalizer(volume, VOLUME_PROTECTION))
                await self._owners.patch(volume, {"metadata": {"finalizers": rest or None}})
        elif claimed.get("uid") and not bound:
            if p.spec_of(volume).get("persistentVolumeReclaimPolicy") == "Delete":
                await self._remove(volume)
            else:
                await self._owners.report(volume, {**p.status_of(volume), "phase": "Released"})
        elif not claimed and p.status_of(volume).get("phase") != "Available":
            await self._owners.report(volume, {**p.status_of(volume), "phase": "Available"})
        return Result()

    async def _claim_exists(self, volume: Obj, claimed: Obj) -> bool:
        cached = self._world.claims.get(str(claimed["name"]), str(claimed.get("namespace")))
        if cached is not None and is_for(volume, cached):
            return True
        # A volume is only given up on the server's word.
        try:
            live = await self._client.get(
                PERSISTENTVOLUMECLAIMS, str(claimed["name"]), str(claimed.get("namespace"))
            )
        except NotFound:
            return False
        return is_for(volume, live)

    async def _remove(self, volume: Obj) -> None:
        try:
            await self._client.delete(PERSISTENTVOLUMES, p.name_of(volume), uid=p.uid_of(volume))
        except NotFound:
            return


def claims_of(pod: Obj) -> list[Request]:
    """The claims that the pod names."""
    return [
        Request(p.namespace_of(pod), str(name))
        for volume in p.spec_of(pod).get("volumes") or ()
        if (name := (volume.get("persistentVolumeClaim") or {}).get("claimName"))
    ]


def _volume_of(claim: Obj) -> Iterable[Request]:
    names = {p.spec_of(claim).get("volumeName"), f"pvc-{p.uid_of(claim)}"}
    return [Request("", str(name)) for name in names if name]


def _ends(event: Event) -> bool:
    """A pod that stops using its claims."""
    if isinstance(event, Updated):
        return p.is_finished(event.new) and not p.is_finished(event.old)
    return True


def add(manager: Manager, world: World) -> None:
    """Register both controllers."""
    claims = ClaimReconciler(manager, world, manager.events("persistentvolume-controller"))

    def unbound(_: Obj) -> Iterable[Request]:
        """Every claim that still waits: a volume has come or changed."""
        return [request_for(c) for c in world.claims.list() if p.status_of(c).get("phase") != "Bound"]

    builder = ControllerBuilder(manager, "persistentvolumeclaim").for_(PERSISTENTVOLUMECLAIMS)
    builder.watches(PERSISTENTVOLUMES, unbound).watches(PODS, claims_of, _ends).build(claims)
    builder = ControllerBuilder(manager, "persistentvolume").for_(PERSISTENTVOLUMES)
    builder.watches(PERSISTENTVOLUMECLAIMS, _volume_of).build(VolumeReconciler(manager, world))
