"""What is left over, decided: instances, Machines and nodes that lost each other, and nodes that stay away.

In: everything of one pass (claims of both kinds, the cloud's list, nodes) and what the passes before handed on.
Out: what to remove, what is held back and why, and what to hand on. Pure. Nothing is removed at first sight: a
whole cluster that was stopped and started again looks like lost nodes for a while, a creation under way like an
orphan. So every window begins anew when the looking does.

Never touched: an instance that nothing says to be ours, or of a kind that the server cannot list at the moment;
and unless asked for, one that upstream's provisioner made, which may run beside us.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from api import keys
from api.conditions import conditions_of, is_true, parse_time
from controllers.machine.kinds import Kind
from controllers.machine.progress import spoken
from controllers.nodes import readiness
from manager.types import Obj
from provisioner import Instance, InstanceState


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """How the sweep works; times in seconds.

    Attributes:
        period: between two passes.
        grace: how long something has to look left over.
        not_ready: how long a node has to be not Ready, or missing, before its Machine is replaced.
        share: of the nodes that may be not Ready together; more is an outage, and replacing would make it worse.
            At least one always may.
        foreign: remove unclaimed instances that upstream's provisioner made, too.
    """

    period: float = 120.0
    grace: float = 300.0
    not_ready: float = 600.0
    share: float = 0.2
    foreign: bool = False


class What(StrEnum):
    """What a finding is about."""

    INSTANCE = "OrphanInstance"
    NODE = "OrphanNode"
    LOST = "InstanceGone"
    NOT_READY = "NodeNotReady"


@dataclass(frozen=True, slots=True)
class Claim:
    """A Machine or NodeClaim. ``served``: it is ours to act on; others only count as owners."""

    kind: Kind
    obj: Obj
    instance: str
    served: bool = True

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])

    def has(self, condition: str) -> bool:
        return is_true(conditions_of(self.obj), condition)


@dataclass(frozen=True, slots=True)
class Watch:
    """What one pass hands to the next.

    Attributes:
        since: since when passes have followed one another without a gap.
        last: when the last one began.
        seen: when each finding was first made.
    """

    since: datetime
    last: datetime
    seen: Mapping[str, datetime] = field(default_factory=dict)


def continued(before: Watch | None, now: datetime, limits: SweepLimits) -> Watch:
    """The watch of a pass that begins now. After a gap nothing that was seen before counts: a process that slept,
    and a cluster that was stopped, know nothing about the time in between."""
    if before is None or (now - before.last).total_seconds() > limits.period * _GAP:
        return Watch(now, now)
    return Watch(before.since, now, before.seen)


_GAP = 2.5  # periods


@dataclass(frozen=True, slots=True)
class World:
    """One pass. The instances were listed before the claims: an instance's claim is then among them.

    Attributes:
        instances: None when the cloud could not be asked.
        nodes: with the name of the instance that each is.
        kinds: names of the kinds whose objects could be listed.
    """

    claims: tuple[Claim, ...]
    instances: tuple[Instance, ...] | None
    nodes: tuple[tuple[str, Obj], ...]
    kinds: frozenset[str]
    watch: Watch


@dataclass(frozen=True, slots=True)
class Finding:
    """Something left over. ``held`` is why it stays; empty means that it is to be removed now.

    Attributes:
        claim: for ``LOST`` and ``NOT_READY``: the Machine to delete.
        node: for ``NODE``: the node to delete.
        why: the case, as the event says it.
    """

    what: What
    name: str
    why: str
    held: str = ""
    claim: Claim | None = None
    node: Obj | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """The outcome: findings that are ripe or held, and what to remember for the next pass."""

    findings: tuple[Finding, ...]
    watch: Watch


def gc_decide(world: World, now: datetime, limits: SweepLimits) -> Sweep:
    """Judge one pass."""
    judge = _Judge(world, now, limits)
    findings = [*judge.instances(), *judge.lost(), *judge.not_ready(), *judge.nodes()]
    return Sweep(tuple(findings), replace(world.watch, seen=judge.seen))


class _Judge:
    def __init__(self, world: World, now: datetime, limits: SweepLimits) -> None:
        self.world, self.now, self.limits = world, now, limits
        self.seen: dict[str, datetime] = {}
        self.listed = {item.name: item for item in world.instances or ()}
        self.claimed = {claim.instance for claim in world.claims}
        self.uids = {claim.uid for claim in world.claims}
        self.names = {(claim.kind.name, claim.name) for claim in world.claims}
        self.nodes_of: dict[str, list[Obj]] = {}
        for name, node in world.nodes:
            self.nodes_of.setdefault(name, []).append(node)

    # -------------------------------------------------------------- instances without a claim

    def instances(self) -> Iterator[Finding]:
        for item in self.listed.values():
            owner = item.owner
            if item.state is InstanceState.DELETING or item.name in self.claimed:
                continue
            if owner is not None and (owner.uid in self.uids or (owner.kind, owner.name) in self.names):
                continue
            since = self._since(f"instance/{item.name}")
            if item.created_at is not None:
                since = max(since, item.created_at)
            if self._seconds(since) < self.limits.grace:
                continue
            of = f"{owner.kind} {owner.name}" if owner is not None else "nobody"
            why = f"instance {item.name} ({item.instance_type}) was made for {of}, which does not exist"
            yield Finding(What.INSTANCE, item.name, why, self._hold(item))

    def _hold(self, item: Instance) -> str:
        owner = item.owner
        if owner is None:
            return "nothing tells whose it is"
        if owner.kind not in self.world.kinds:
            return f"the cluster does not serve {owner.kind}s, so whether it is wanted cannot be known"
        if not owner.uid and not self.limits.foreign:
            return "another provisioner made it; --delete-foreign-instances lets this one remove it"
        return ""

    # -------------------------------------------------------------- claims without an instance

    def lost(self) -> Iterator[Finding]:
        if self.world.instances is None:
            return
        for claim in self._served():
            if not claim.has(claim.kind.launched) or claim.instance in self.listed or self._healthy(claim):
                continue
            if self._seconds(self._since(f"lost/{claim.uid}")) >= self.limits.grace:
                why = f"instance {claim.instance} does not exist any more"
                yield Finding(What.LOST, claim.name, why, claim=claim)

    # -------------------------------------------------------------- nodes that do not come back

    def not_ready(self) -> Iterator[Finding]:
        judged = [claim for claim in self._served() if claim.has(claim.kind.initialized)]
        ill = [claim for claim in judged if not self._healthy(claim)]
        allowed = max(1, math.ceil(self.limits.share * len(judged)))
        for claim in ill:
            instance = self.listed.get(claim.instance)
            since, state = self._ill_since(claim)
            if self._seconds(since) < self.limits.not_ready or (
                instance is None and self.world.instances is not None
            ):
                continue  # not long enough, or its instance is gone, which is another finding
            why = f"the node has been {state} for {spoken(self._seconds(since) // 60 * 60)}; it is replaced"
            held = ""
            if instance is not None and instance.stopped:
                held = "its instance is switched off"
            elif len(ill) > allowed:
                held = f"{len(ill)} of {len(judged)} nodes are not ready together, which looks like an outage"
            yield Finding(What.NOT_READY, claim.name, why, held, claim=claim)

    def _ill_since(self, claim: Claim) -> tuple[datetime, str]:
        nodes = self.nodes_of.get(claim.instance) or []
        if not nodes:
            return max(self._since(f"missing/{claim.uid}"), self.world.watch.since), "missing"
        changed = [
            parse_time(item.get("lastTransitionTime"))
            for item in (nodes[0].get("status") or {}).get("conditions") or []
            if item.get("type") == "Ready"
        ]
        began = next((at for at in changed if at is not None), None) or self._since(f"ill/{claim.uid}")
        return max(began, self.world.watch.since), "not Ready"

    # -------------------------------------------------------------- nodes without an instance

    def nodes(self) -> Iterator[Finding]:
        if self.world.instances is None:
            return
        for instance, node in self.world.nodes:
            meta = node["metadata"]
            owners = {owner.get("uid") for owner in meta.get("ownerReferences") or []}
            if instance in self.listed or instance in self.claimed or owners & self.uids or not _is_ours(node):
                continue
            going = bool(meta.get("deletionTimestamp"))
            if going or self._seconds(self._since(f"node/{meta['uid']}")) >= self.limits.grace:
                why = f"node {meta['name']} has neither an instance nor a Machine"
                yield Finding(What.NODE, str(meta["name"]), why, node=node)

    # -------------------------------------------------------------- common

    def _served(self) -> Iterator[Claim]:
        for claim in self.world.claims:
            if claim.served and not claim.obj["metadata"].get("deletionTimestamp"):
                yield claim

    def _healthy(self, claim: Claim) -> bool:
        return any(readiness(node)[0] for node in self.nodes_of.get(claim.instance) or ())

    def _since(self, key: str) -> datetime:
        self.seen[key] = self.world.watch.seen.get(key, self.now)
        return self.seen[key]

    def _seconds(self, since: datetime) -> float:
        return (self.now - since).total_seconds()


def _is_ours(node: Obj) -> bool:
    """Nodes of other provisioners carry Karpenter's labels too; KAITO's are on ours alone."""
    return any(key.startswith(f"{keys.KAITO_GROUP}/") for key in node["metadata"].get("labels") or {})
