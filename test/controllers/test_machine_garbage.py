"""What the sweep finds, decided over simulated hours: a world in memory, a pass every two minutes, no server."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controllers.machine.garbage import Claim, Finding, SweepLimits, Watch, What, World, continued, gc_decide
from controllers.machine.kinds import KINDS, MACHINE, NODECLAIM, Kind
from provisioner import Instance, InstanceState, Owner

Json = dict[str, Any]
START = datetime(2026, 11, 26, 0, 0, tzinfo=UTC)
LIMITS = SweepLimits()
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Simulation:
    """Some claims with their instances and nodes, and a process that sweeps while it lives."""

    kind: Kind = MACHINE
    now: datetime = START
    claims: dict[str, Json] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    nodes: dict[str, Json] = field(default_factory=dict)
    watch: Watch | None = None
    reachable: bool = True
    kinds: frozenset[str] = frozenset({"Machine", "NodeClaim"})
    limits: SweepLimits = LIMITS
    log: list[tuple[int, str, str, str]] = field(default_factory=list)  # minute, what, name, held

    def add(self, *names: str) -> None:
        """Ready claims."""
        for name in names:
            conditions = [{"type": type_, "status": "True"} for type_ in (*self.kind.dependents, "Ready")]
            self.claims[name] = {
                "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"kaito.sh/workspace": "w"}},
                "status": {"conditions": conditions},
            }
            self.instances[name] = Instance(
                name,
                "sku",
                InstanceState.RUNNING,
                owner=Owner(name, f"uid-{name}", self.kind.name),
                created_at=self.now,
            )
            self.nodes[name] = {
                "metadata": {"name": name, "uid": f"n-{name}", "labels": {"kaito.sh/workspace": "w"}}
            }
            self.ready(name)

    def ready(self, name: str, status: str = "True") -> None:
        condition = {"type": "Ready", "status": status, "lastTransitionTime": stamp(self.now)}
        self.nodes[name]["status"] = {"conditions": [condition]}

    def restart(self) -> None:
        """Another process: nothing is remembered."""
        self.watch = None

    def sweep(self) -> list[Finding]:
        world = World(
            tuple(Claim(self.kind, obj, name) for name, obj in self.claims.items()),
            tuple(self.instances.values()) if self.reachable else None,
            tuple(self.nodes.items()),
            self.kinds,
            continued(self.watch, self.now, self.limits),
        )
        outcome = gc_decide(world, self.now, self.limits)
        self.watch = outcome.watch
        minute = int((self.now - START).total_seconds() // 60)
        for item in outcome.findings:
            self.log.append((minute, str(item.what), item.name, item.held))
            if not item.held:
                self.act(item)
        return list(outcome.findings)

    def act(self, item: Finding) -> None:
        if item.what is What.INSTANCE:
            self.instances.pop(item.name)
            self.nodes.pop(item.name, None)
        elif item.what is What.NODE:
            self.nodes.pop(item.name)
        else:  # the claim goes its way out, and takes instance and node with it
            self.claims.pop(item.name)
            self.instances.pop(item.name, None)
            self.nodes.pop(item.name, None)

    def pass_time(self, minutes: float) -> None:
        """Sweep every two minutes for so long."""
        end = self.now + timedelta(minutes=minutes)
        while self.now < end:
            self.sweep()
            self.now += timedelta(minutes=2)
        self.now = end

    @property
    def done(self) -> list[tuple[str, str]]:
        return [(what, name) for _, what, name, held in self.log if not held]


@pytest.mark.acceptance("PV-gc-quiet")
@both
def test_a_healthy_day_finds_nothing(kind: Kind) -> None:
    """Twenty-four hours of passes over a fleet that is well: no finding, held or not."""
    world = Simulation(kind)
    world.add("a", "b", "c")
    world.pass_time(24 * 60)

    assert world.log == []


@pytest.mark.acceptance("PV-gc-not-ready-9", "PV-gc-not-ready-11", "PV-repair-tolerates", "PV-repair-replaces")
@both
@pytest.mark.parametrize(("minutes", "replaced"), [(9, False), (11, True)])
def test_a_node_that_is_not_ready_is_replaced_after_ten_minutes(kind: Kind, minutes: int, replaced: bool) -> None:
    """Nine minutes are forgiven, eleven are not; the others are left alone."""
    world = Simulation(kind)
    world.add("a", "b", "c")
    world.pass_time(60)
    world.ready("a", "Unknown")
    world.pass_time(minutes)
    if "a" in world.nodes:
        world.ready("a")
    world.pass_time(60)

    assert world.done == ([("NodeNotReady", "a")] if replaced else [])
    assert {"b", "c"} <= set(world.claims)


@pytest.mark.acceptance("PV-gc-stop-start")
@both
@pytest.mark.parametrize("hours", [1, 14])
@pytest.mark.parametrize("forgets", [True, False], ids=["operator restarts", "operator sleeps through"])
def test_a_stopped_and_started_cluster_keeps_its_fleet(kind: Kind, hours: int, forgets: bool) -> None:
    """`az aks stop`, a night, `az aks start`: nodes come back after seven minutes, and nothing is replaced, though
    by their timestamps they were away for hours."""
    world = Simulation(kind)
    world.add("a", "b", "c")
    world.pass_time(30)
    for name in world.nodes:
        world.ready(name, "Unknown")
    world.instances = {
        name: Instance(
            name, "sku", InstanceState.RUNNING, owner=item.owner, created_at=item.created_at, stopped=True
        )
        for name, item in world.instances.items()
    }
    world.now += timedelta(hours=hours)
    if forgets:
        world.restart()
    missing = world.nodes.pop("a")
    world.pass_time(4)
    world.instances = {
        name: Instance(name, "sku", InstanceState.RUNNING, owner=item.owner, created_at=item.created_at)
        for name, item in world.instances.items()
    }
    world.pass_time(3)
    world.nodes["a"] = missing
    for name in world.nodes:
        world.ready(name)
    world.pass_time(120)

    assert world.done == []
    assert set(world.claims) == set(world.instances) == set(world.nodes) == {"a", "b", "c"}


@pytest.mark.acceptance("PV-gc-switched-off")
def test_a_node_that_is_switched_off_is_not_replaced() -> None:
    """A stopped pool costs nothing and comes back; that it is away is held, and told."""
    world = Simulation()
    world.add("a")
    world.pass_time(10)
    item = world.instances["a"]
    world.instances["a"] = Instance(
        "a", "sku", item.state, owner=item.owner, created_at=item.created_at, stopped=True
    )
    world.ready("a", "Unknown")
    world.pass_time(60)

    assert world.done == []
    assert {held for *_, held in world.log} == {"its instance is switched off"}


@pytest.mark.acceptance("PV-gc-outage")
@both
def test_an_outage_replaces_nothing(kind: Kind) -> None:
    """Six of ten nodes at once are no six broken nodes; one at a time is."""
    world = Simulation(kind)
    world.add(*"abcdefghij")
    world.pass_time(20)
    for name in "abcdef":
        world.ready(name, "Unknown")
    world.pass_time(60)
    assert world.done == []
    assert world.log[0][3] == "6 of 10 nodes are not ready together, which looks like an outage"

    for name in "abcde":
        world.ready(name)
    world.pass_time(4)
    assert world.done == [("NodeNotReady", "f")]


@pytest.mark.acceptance(
    "PV-instance-gc-with-provider-id", "PV-instance-gc-without-provider-id", "PV-gc-orphan-pools"
)
@both
@pytest.mark.parametrize("joined", [True, False], ids=["with a node", "without"])
def test_an_instance_without_a_claim_goes_after_the_grace(kind: Kind, joined: bool) -> None:
    """Whatever its age, it has to look left over for five minutes; then it goes, and its node with it."""
    world = Simulation(kind)
    world.add("a", "b")
    world.pass_time(60)
    del world.claims["a"]
    if not joined:
        del world.nodes["a"]
    world.pass_time(5)
    assert "a" in world.instances

    world.pass_time(3)
    assert world.done == [("OrphanInstance", "a")]
    assert set(world.instances) == {"b"}


@pytest.mark.acceptance("PV-gc-orphan-pools")
def test_a_young_instance_is_left_alone() -> None:
    """A pool that was made this moment may be of a claim that nobody has seen yet."""
    world = Simulation()
    world.pass_time(10)
    world.instances["y"] = Instance(
        "y", "sku", InstanceState.CREATING, owner=Owner("y", "uid-y"), created_at=world.now + timedelta(minutes=4)
    )
    world.pass_time(8)
    assert world.done == []
    world.pass_time(4)
    assert world.done == [("OrphanInstance", "y")]


@pytest.mark.acceptance("PV-gc-ownership", "PV-instance-gc-foreign")
@pytest.mark.parametrize(
    ("owner", "kinds", "foreign", "held"),
    [
        (None, {"Machine"}, True, "nothing tells whose it is"),
        (Owner("x", "u", "NodeClaim"), {"Machine"}, True, "the cluster does not serve NodeClaims"),
        (Owner("x", "", "Machine"), {"Machine"}, False, "another provisioner made it"),
        (Owner("x", "", "Machine"), {"Machine"}, True, ""),
        (Owner("x", "u", "Machine"), {"Machine"}, False, ""),
    ],
    ids=["of nobody", "of a kind that is not served", "upstream's", "upstream's, asked for", "ours"],
)
def test_only_what_is_certainly_ours_is_removed(
    owner: Owner | None, kinds: set[str], foreign: bool, held: str
) -> None:
    """Everything else is told of and kept."""
    world = Simulation(limits=SweepLimits(foreign=foreign), kinds=frozenset(kinds))
    world.instances["x"] = Instance("x", "sku", InstanceState.RUNNING, owner=owner, created_at=START)
    world.pass_time(8)

    (*_, why) = world.log[-1] if world.log else ("", "", "", "")
    assert ("x" in world.instances) == bool(held)
    assert why.startswith(held)


@pytest.mark.acceptance("PV-gc-pool-deleted")
@both
def test_a_pool_deleted_by_hand_costs_its_claim(kind: Kind) -> None:
    """Five minutes after the node has gone too; a node that is still well means that the list is wrong."""
    world = Simulation(kind)
    world.add("a", "b")
    world.pass_time(10)
    del world.instances["a"]
    world.pass_time(30)
    assert world.done == []

    world.ready("a", "Unknown")
    world.pass_time(4)
    assert world.done == []
    world.pass_time(6)
    assert world.done == [("InstanceGone", "a")]


@pytest.mark.acceptance("PV-gc-node-deleted")
@both
def test_a_node_that_vanished_costs_its_claim_after_ten_minutes(kind: Kind) -> None:
    """The instance runs and its node object is gone for good: the claim is replaced, the instance with it."""
    world = Simulation(kind)
    world.add("a", "b")
    world.pass_time(10)
    node = world.nodes.pop("a")
    world.pass_time(8)
    world.nodes["a"] = node
    world.pass_time(10)
    assert world.done == []

    del world.nodes["a"]
    world.pass_time(14)
    assert world.done == [("NodeNotReady", "a")]


@pytest.mark.acceptance("PV-gc-nodes")
def test_a_node_without_instance_and_claim_is_removed() -> None:
    """After the grace; one that is being deleted already and only waits for us, at once; another's node never."""
    world = Simulation()
    world.add("a")
    world.pass_time(10)
    labels = {"kaito.sh/workspace": "w"}
    world.nodes["left"] = {"metadata": {"name": "left", "uid": "1", "labels": labels}}
    world.nodes["going"] = {
        "metadata": {"name": "going", "uid": "2", "labels": labels, "deletionTimestamp": stamp(world.now)}
    }
    world.nodes["karpenters"] = {
        "metadata": {"name": "karpenters", "uid": "3", "labels": {"karpenter.sh/provisioner-name": "default"}}
    }
    world.pass_time(2)
    assert world.done == [("OrphanNode", "going")]
    world.pass_time(8)
    assert world.done == [("OrphanNode", "going"), ("OrphanNode", "left")]
    assert "karpenters" in world.nodes


@pytest.mark.acceptance("PV-instance-gc-failure")
def test_a_cloud_that_does_not_answer_says_nothing_about_instances() -> None:
    """Without a list there are no lost ones; a node's own health is still judged."""
    world = Simulation()
    world.add("a")
    world.pass_time(10)
    world.reachable = False
    world.ready("a", "Unknown")
    world.pass_time(8)
    assert world.done == []
    world.pass_time(4)
    assert world.done == [("NodeNotReady", "a")]


@pytest.mark.acceptance("PV-gc-random")
@both
def test_hours_of_accidents_leave_nothing_behind(kind: Kind, seed: int) -> None:
    """Two days of claims, pools and nodes that vanish, outages and restarts: the healthy stay, and an hour after
    the last accident no instance is without its claim and no claim without its instance."""
    dice = random.Random(seed)
    print(f"seed {seed}")
    world = Simulation(kind)
    world.add(*(f"m{number}" for number in range(10)))
    healthy = {"m0", "m1", "m2"}
    for _ in range(48):
        world.pass_time(dice.choice([2, 10, 30, 60]))
        accident = dice.choice(["claim", "instance", "node", "restart", "unreachable", "new", "outage"])
        victims = [name for name in sorted({*world.claims, *world.instances}) if name not in healthy]
        name = dice.choice(victims) if victims else ""
        if accident == "restart":
            world.restart()
        elif accident == "unreachable":
            world.reachable = False
            world.pass_time(6)
            world.reachable = True
        elif accident == "new":
            world.add(f"x{dice.randrange(10**6)}")
        elif accident == "outage":
            for node in world.nodes:
                world.ready(node, "Unknown")
            world.pass_time(dice.choice([4, 8]))
            for node in world.nodes:
                world.ready(node)
        else:
            {"claim": world.claims, "instance": world.instances, "node": world.nodes}[accident].pop(name, None)
            if accident == "instance":
                world.nodes.pop(name, None)
    world.pass_time(60)

    assert healthy <= set(world.claims)
    assert set(world.claims) == set(world.instances)
    assert set(world.nodes) <= set(world.instances)


def test_both_kinds_are_owners_of_instances() -> None:
    """A Machine's instance is no orphan because NodeClaims are listed too, and the other way round."""
    claims = tuple(
        Claim(kind, {"metadata": {"name": kind.name, "uid": kind.name}}, f"i-{kind.name}", served=False)
        for kind in (MACHINE, NODECLAIM)
    )
    items = tuple(
        Instance("other-name", "sku", InstanceState.RUNNING, owner=Owner(kind.name, kind.name, kind.name))
        for kind in (MACHINE, NODECLAIM)
    )
    world = World(claims, items, (), frozenset({"Machine", "NodeClaim"}), Watch(START, START))

    assert gc_decide(world, START + timedelta(days=1), LIMITS).watch.seen == {}
