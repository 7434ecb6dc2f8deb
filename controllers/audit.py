"""Cloud against cluster: which instances, Machines and Nodes have lost what they belong to, and what that costs.

In: what the cloud lists as ours, and the Machines and Nodes of the cluster, read after it. Out: findings as
values, with age, GPU-hours and money where those are known. Pure: `kaito audit` and the operator's gauges call
the same function, so they cannot disagree. Nothing is judged that is younger than the grace: a Machine and its
instance never appear in the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from api import keys
from api.conditions import Status, conditions_of, find
from controllers.machine.kinds import KINDS
from manager.types import Obj
from provisioner import SPOT, CloudProvider, Instance, InstanceState
from provisioner.errors import CloudError

GRACE = 300.0  # seconds


class Leak(StrEnum):
    """What has lost what."""

    INSTANCE_WITHOUT_MACHINE = "InstanceWithoutMachine"  # costs money, and nobody uses it
    MACHINE_WITHOUT_INSTANCE = "MachineWithoutInstance"
    NODE_WITHOUT_MACHINE = "NodeWithoutMachine"


@dataclass(frozen=True, slots=True)
class Rates:
    """What instances are made of and cost.

    Attributes:
        gpus_of: GPUs of an instance type; None where that is not known.
        per_hour: price and currency of an instance type, spot or not; None where nobody can cite one.
    """

    gpus_of: Callable[[str], int | None] = lambda _: None
    per_hour: Callable[[str, bool], tuple[float, str] | None] = lambda _type, _spot: None


@dataclass(frozen=True, slots=True)
class World:
    """What was read: the cloud first, then the cluster, so that what is new in between has its Machine."""

    provider: CloudProvider
    instances: Sequence[Instance] = ()
    machines: Sequence[Obj] = ()
    nodes: Sequence[Obj] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that should not be.

    Attributes:
        name: of the instance, Machine or Node.
        detail: one sentence about it.
        next_step: what to do.
        owner: the object that an instance was made for, as ``Machine/name``; empty where the cloud does not know.
        age: seconds since it was made; None where nobody knows.
        gpu_hours: GPUs times age; None where one of them is not known.
        per_hour: what it costs, in ``currency``; None where nobody can cite a price.
    """

    leak: Leak
    name: str
    detail: str
    next_step: str
    instance_type: str = ""
    owner: str = ""
    age: float | None = None
    gpus: int | None = None
    gpu_hours: float | None = None
    per_hour: float | None = None
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found. ``young`` instances have no Machine and are within the grace."""

    findings: tuple[Finding, ...] = ()
    instances: int = 0
    machines: int = 0
    nodes: int = 0
    young: int = 0
    deleting: int = 0

    @property
    def orphans(self) -> tuple[Finding, ...]:
        """The findings that cost money."""
        return tuple(item for item in self.findings if item.leak is Leak.INSTANCE_WITHOUT_MACHINE)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all orphans so far, where they are known."""
        return sum(item.gpu_hours or 0.0 for item in self.orphans)

    @property
    def per_hour(self) -> Mapping[str, float]:
        """What the orphans cost per hour, by currency, where a price is known."""
        found: dict[str, float] = {}
        for item in self.orphans:
            if item.per_hour is not None:
                found[item.currency] = found.get(item.currency, 0.0) + item.per_hour
        return found


def audit(world: World, now: datetime, rates: Rates | None = None, *, grace: float = GRACE) -> Audit:
    """Compare the two. The order is: what costs money first, then by name."""
    names = {name: machine for machine in world.machines if (name := _instance_name(world, machine))}
    case = _Case(world, now, rates or Rates(), timedelta(seconds=grace), names)
    orphans, young, deleting = case.orphans()
    findings = (*orphans, *case.lost_machines(), *case.lone_nodes())
    return Audit(findings, len(world.instances), len(world.machines), len(world.nodes), young, deleting)


@dataclass(frozen=True, slots=True)
class _Case:
    world: World
    now: datetime
    rates: Rates
    grace: timedelta
    names: Mapping[str, Obj]  # Machines by what their instances are called

    def orphans(self) -> tuple[list[Finding], int, int]:
        """The orphans, and how many others have no Machine: too young to judge, and on their way out."""
        found: list[Finding] = []
        young = deleting = 0
        for instance in sorted(self.world.instances, key=lambda item: item.name):
            if instance.name in self.names:
                continue
            if instance.state is InstanceState.DELETING:
                deleting += 1
            elif instance.created_at is not None and self.now - instance.created_at < self.grace:
                young += 1
            else:
                found.append(self._orphan(instance))
        return found, young, deleting

    def lost_machines(self) -> list[Finding]:
        """Machines that were launched and whose instance the cloud does not have any more."""
        there = {instance.name for instance in self.world.instances}
        return [
            Finding(
                Leak.MACHINE_WITHOUT_INSTANCE,
                str(machine["metadata"]["name"]),
                f"it was launched, and the cloud has no instance {name} any more",
                "nothing; the operator replaces it, and `kubectl describe machine` says when",
                age=self._age(machine),
            )
            for name, machine in sorted(self.names.items(), key=lambda item: item[1]["metadata"]["name"])
            if name not in there and self._settled(machine) and any(kind.serves(machine) for kind in KINDS)
        ]

    def lone_nodes(self) -> list[Finding]:
        """Nodes that carry our marks, and whose Machine is gone."""
        there = {instance.name for instance in self.world.instances}
        found = []
        for node in sorted(self.world.nodes, key=lambda item: str(item["metadata"]["name"])):
            name = self.world.provider.instance_of(node)
            if not _made_by_us(node) or not name or name in self.names:
                continue
            age = self._age(node)
            if age is not None and age < self.grace.total_seconds():
                continue
            what = f"its instance {name} is in the cloud" if name in there else f"the cloud has no instance {name}"
            found.append(
                Finding(
                    Leak.NODE_WITHOUT_MACHINE,
                    str(node["metadata"]["name"]),
                    f"no Machine has this node; {what}",
                    "delete the instance (--delete)" if name in there else "delete the Node object",
                    str((node["metadata"].get("labels") or {}).get(keys.INSTANCE_TYPE_LABEL) or ""),
                    age=age,
                )
            )
        return found

    def _orphan(self, instance: Instance) -> Finding:
        owner = f"{instance.owner.kind}/{instance.owner.name}" if instance.owner and instance.owner.name else ""
        age = None if instance.created_at is None else (self.now - instance.created_at).total_seconds()
        gpus = self.rates.gpus_of(instance.instance_type)
        price = self.rates.per_hour(instance.instance_type, instance.capacity_type == SPOT)
        return Finding(
            Leak.INSTANCE_WITHOUT_MACHINE,
            instance.name,
            f"it is {instance.state} and was made for {owner}, which does not exist"
            if owner
            else "nobody owns it",
            "delete it: kaito audit --delete",
            instance.instance_type,
            owner,
            age,
            gpus,
            gpus * age / 3600 if gpus is not None and age is not None else None,
            price[0] if price else None,
            price[1] if price else "",
        )

    def _settled(self, machine: Obj) -> bool:
        """Whether the operator says that it is launched, long enough ago for the cloud's list to know it too."""
        conditions = conditions_of(machine)
        launched = next((item for kind in KINDS if (item := find(conditions, kind.launched)) is not None), None)
        if machine["metadata"].get("deletionTimestamp") or launched is None or launched.status != Status.TRUE:
            return False
        since = launched.last_transition_time
        return since is None or self.now - since >= self.grace

    def _age(self, obj: Obj) -> float | None:
        created = obj["metadata"].get("creationTimestamp")
        return (self.now - datetime.fromisoformat(created)).total_seconds() if created else None


def _instance_name(world: World, machine: Obj) -> str:
    meta, status = machine["metadata"], machine.get("status") or {}
    try:
        return world.provider.instance_name(
            str(meta["name"]), str(meta["uid"]), str(status.get("providerID") or "")
        )
    except CloudError:
        return ""  # another cloud's


def _made_by_us(node: Obj) -> bool:
    labels: Iterable[str] = node["metadata"].get("labels") or {}
    owned = any(key in labels for key in (keys.WORKSPACE_LABEL, keys.RAGENGINE_LABEL))
    return owned and any(key in labels for key in (keys.PROVISIONER_NAME_LABEL, keys.NODEPOOL_LABEL))
