"""The life of a Machine and of a NodeClaim: the controller, the real SDK, the stand-in for ARM, an API server.

Each test takes the time of a few round trips of three real programs; what needs none of them is decided in tables
(test/controllers).
"""

from __future__ import annotations

from typing import Any

import pytest

from controllers import Limits
from controllers.resources import NODECLAIMS
from kaito.local.fakearm import Fault, Rules
from manager.client import Client
from manager.errors import NotFound
from manager.resources import EVENTS_V1, NODES, PODS
from manager.types import Resource

pytestmark = pytest.mark.timeout(120)
SKU = "Standard_NC6s_v3"


async def events(client: Client, name: str) -> set[str]:
    """Reasons of the events about an object, wherever the server keeps those of cluster-scoped ones."""
    found: set[str] = set()
    for item in (await client.list(EVENTS_V1)).items:
        if item.get("regarding", {}).get("name") == name:
            found.add(str(item["reason"]))
    return found


@pytest.mark.acceptance(
    "PV-launch-creates",
    "PV-launch-condition",
    "PV-registration-matches",
    "PV-registration-owner",
    "PV-registration-label",
    "PV-registration-labels",
    "PV-registration-taints",
    "PV-initialization-all",
    "PV-initialization-label",
    "PV-finalizer-added",
    "PV-termination-both",
    "PV-e2e-one-gpu-node",
    "PV-e2e-delete-claim",
    "PV-e2e-node-terminates",
)
async def test_a_claim_becomes_a_node_and_goes_without_a_trace(fleet: Any) -> None:
    """One PUT and one pool; the node is owned, labelled and tainted; deletion takes pool, node and claim."""
    azure = await fleet.cloud()
    async with fleet.operator():
        name = await fleet.claim(startupTaints=[])
        ready = await fleet.becomes(name, "True")
        node = await fleet.client.get(NODES, ready["status"]["nodeName"])
        pool = fleet.pool(name, ready)

        assert list(azure.arm.pools.pools) == [pool]
        assert "karpenter.sh/termination" in ready["metadata"]["finalizers"]
        assert ready["status"]["providerID"] == node["spec"]["providerID"]
        kinds = {item["type"]: item["status"] for item in ready["status"]["conditions"]}
        assert kinds == {
            **{f"{fleet.short}{phase}": "True" for phase in ("Launched", "Registered", "Initialized")},
            "Ready": "True",
        }
        labels = (await initialized_node(fleet, node))["metadata"]["labels"]
        assert labels["karpenter.sh/registered"] == labels["karpenter.sh/initialized"] == "true"
        assert labels["kaito.sh/workspace"] == "w"
        assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
        (owner,) = node["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == (fleet.kind.kind, ready["metadata"]["uid"])
        assert owner["blockOwnerDeletion"] is True
        assert "kaito.sh/cloud-operation" not in ready["metadata"].get("annotations", {})

        await fleet.delete(name)
        await fleet.leaves(name)
        with pytest.raises(NotFound):
            await fleet.client.get(NODES, node["metadata"]["name"])

    counts = azure.arm.journal.counts()
    assert (counts["put 201"], counts["delete 202"], azure.arm.pools.pools) == (1, 1, {})
    assert {"Launched", "Registered", "Initialized"} <= await events(fleet.client, name)


async def initialized_node(fleet: Any, node: Any) -> Any:
    async def check() -> Any:
        seen = await fleet.client.get(NODES, node["metadata"]["name"])
        return seen if "karpenter.sh/initialized" in seen["metadata"]["labels"] else None

    return await fleet.eventually(check)


@pytest.mark.acceptance("PV-node-deletes-claims", "PV-node-deletes-nodes", "PV-e2e-delete-node")
async def test_deleting_the_node_takes_claim_and_pool_with_it(fleet: Any) -> None:
    """`kubectl delete node` gives up the whole: the node waits for its pool to be gone."""
    azure = await fleet.cloud()
    async with fleet.operator():
        name = await fleet.claim()
        ready = await fleet.becomes(name, "True")
        await fleet.client.delete(NODES, ready["status"]["nodeName"])
        await fleet.leaves(name)

    assert azure.arm.pools.pools == {}
    with pytest.raises(NotFound):
        await fleet.client.get(NODES, ready["status"]["nodeName"])


@pytest.mark.acceptance("PV-resume-no-second-put", "PV-wire-create")
async def test_a_restarted_operator_resumes_the_operation_by_its_token(fleet: Any) -> None:
    """The token is on the claim before the process dies; the next one polls it, and sends no PUT."""
    azure = await fleet.cloud(Rules())
    async with fleet.operator():
        name = await fleet.claim()
        waiting = await fleet.becomes(name, "Unknown", "InstanceCreating", "Launched")
        assert waiting["metadata"]["annotations"]["kaito.sh/cloud-operation"]
        assert await fleet.message(name, "Launched") == f"creating (instance {fleet.pool(name, waiting)}, {SKU})"

    pool = fleet.pool(name, waiting)
    azure.arm.journal.clear()
    async with fleet.operator():
        await fleet.eventually(lambda: polled(azure))
        await azure.arm.finish(pool)
        await fleet.becomes(name, "True")

    told = azure.transcript
    assert told[0] == f"poll {pool} 200" or told[0] == "list 200"
    assert not [line for line in told if line.startswith("put")]
    assert [line for line in told if line.startswith("get")] == [f"get {pool} 200"]  # the final one, of the SDK


async def polled(azure: Any) -> bool:
    return bool(azure.arm.journal.of("poll"))


@pytest.mark.acceptance("PV-resume-token-lost")
async def test_a_lost_token_costs_a_look_and_no_second_pool(fleet: Any) -> None:
    """Without the token, and with a cloud that hides the pool once, the create-only PUT is refused and the same
    pool found."""
    azure = await fleet.cloud(Rules())
    async with fleet.operator():
        name = await fleet.claim()
        waiting = await fleet.becomes(name, "Unknown", "InstanceCreating", "Launched")

    pool = fleet.pool(name, waiting)
    await fleet.client.patch(fleet.kind, name, {"metadata": {"annotations": {"kaito.sh/cloud-operation": None}}})
    azure.arm.journal.clear()
    azure.arm.rules.faults.append(Fault(verb="get", answer="no-pool", body="flat"))
    async with fleet.operator():
        await fleet.eventually(lambda: refused_once(azure))
        await azure.arm.finish(pool)
        await fleet.becomes(name, "True")

    assert list(azure.arm.pools.pools) == [pool]
    assert [line for line in azure.transcript if line.startswith("put")] == [f"put {pool} 412"]


async def refused_once(azure: Any) -> bool:
    return bool(azure.arm.journal.of("put", status=412)) and bool(azure.arm.journal.of("get", status=200))


@pytest.mark.acceptance("PV-wire-create", "PV-wire-delete", "PV-wire-list")
async def test_the_wire_of_a_whole_life(fleet_of: Any) -> None:
    """PUT, polls, the final GET; lists over pages by the sweep; DELETE and polls, and that it is gone is known."""
    fleet = fleet_of("Machine")
    azure = await fleet.cloud(Rules(page_size=1))
    async with fleet.operator():
        names = [await fleet.claim() for _ in range(2)]
        pools = [
            fleet.pool(name, await fleet.becomes(name, "Unknown", "InstanceCreating", "Launched"))
            for name in names
        ]
        for pool in pools:
            await azure.arm.finish(pool)
        for name in names:
            await fleet.becomes(name, "True")
    async with fleet.operator():
        await fleet.eventually(lambda: listed(azure))
        await fleet.delete(names[0])
        await fleet.becomes(names[0], "False", "InstanceDeleting")
        await azure.arm.finish(pools[0])
        await fleet.leaves(names[0])

    told = [str(item).replace(f" {pools[0]}", "") for item in azure.arm.journal.exchanges if item.pool == pools[0]]
    assert list(dict.fromkeys(told)) == ["get 404", "put 201", "poll 200", "get 200", "delete 202"]
    assert (told.count("put 201"), told.count("delete 202")) == (1, 1)
    created, deleted = told.index("get 200"), told.index("delete 202")
    assert set(told[2:created]) == {"poll 200"}  # then the SDK's final look, of the resource itself
    # A deletion has no final look; a reconcile whose cache is behind may find the pool gone once more.
    assert "poll 200" in told[deleted + 1 :]
    assert set(told[deleted + 1 :]) <= {"poll 200", "get 404"}
    pages = azure.arm.journal.of("list")
    assert [page.query.get("skip") for page in pages[-2:]] == [None, "1"]


async def listed(azure: Any) -> bool:
    return len(azure.arm.journal.of("list")) >= 2


@pytest.mark.acceptance(
    "PV-node-pdb",
    "PV-node-waits-for-all",
    "PV-node-lb-label",
    "PV-node-static-pods",
    "PV-node-terminal-pods",
    "PV-node-ownerless-pods",
    "PV-consistency-pdb",
    "PV-node-tolerating-pods",
)
async def test_a_drain_respects_budgets_and_says_what_holds_it(fleet: Any) -> None:
    """The pod behind a budget stays, with its pool; the condition names pod, budget and since when, and when the
    budget allows it all go."""
    azure = await fleet.cloud()
    async with fleet.operator():
        name = await fleet.claim()
        ready = await fleet.becomes(name, "True")
        node = ready["status"]["nodeName"]
        await fleet.pod(node, "held", metadata={"labels": {"app": "held"}})
        await fleet.pod(node, "free")
        stays = [
            {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"},
            {"key": "sku", "operator": "Exists"},
        ]
        await fleet.pod(node, "stays", tolerations=stays)
        budget = await budgets(fleet.client)
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}}
        await fleet.client.create(
            budget, {"metadata": {"name": "guard", "namespace": fleet.namespace}, "spec": spec}
        )
        await fleet.eventually(lambda: allows_nothing(fleet.client, budget, fleet.namespace))

        await fleet.delete(name)
        await fleet.becomes(name, "False", "Draining")
        message = await fleet.eventually(lambda: told_of_budget(fleet, name))
        assert f"Pod {fleet.namespace}/held is held since 20" in message
        assert "disruption budget guard" in message
        await fleet.eventually(lambda: gone(fleet, "free"))
        seen = await fleet.client.get(NODES, node)
        assert seen["spec"]["unschedulable"] is True
        assert {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"} in seen["spec"]["taints"]
        assert seen["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"] == "karpenter"
        assert azure.arm.journal.of("delete") == []

        await fleet.client.delete(budget, "guard", fleet.namespace)
        await fleet.leaves(name)

    assert azure.arm.pools.pools == {}
    assert "FailedDraining" in await events(fleet.client, node)


async def budgets(client: Client) -> Resource:
    """The API of disruption budgets, which moved."""
    found = await client.discover("policy", "PodDisruptionBudget", "v1", "v1beta1")
    assert found is not None
    return found


async def allows_nothing(client: Client, budget: Resource, namespace: str) -> bool:
    status = (await client.get(budget, "guard", namespace)).get("status") or {}
    return "disruptionsAllowed" in status and status["disruptionsAllowed"] == 0


async def told_of_budget(fleet: Any, name: str) -> str:
    message = str(await fleet.message(name))
    return message if "disruption budget guard" in message else ""


async def gone(fleet: Any, pod: str) -> bool:
    try:
        await fleet.client.get(PODS, pod, fleet.namespace)
    except NotFound:
        return True
    return False


@pytest.mark.acceptance("PV-termination-grace-period", "PV-node-not-drained")
async def test_a_protected_pod_goes_by_the_deadline(fleet: Any) -> None:
    """A pod that must not be disturbed is waited for; at the end of the time it goes with its node."""
    await fleet.cloud()
    async with fleet.operator(limits=Limits(drain=3600)):
        name = await fleet.claim(**({} if fleet.short else {"terminationGracePeriod": "1h"}))
        ready = await fleet.becomes(name, "True")
        key = "karpenter.sh/do-not-evict" if fleet.short else "karpenter.sh/do-not-disrupt"
        await fleet.pod(ready["status"]["nodeName"], "precious", metadata={"annotations": {key: "true"}})
        await fleet.delete(name)
        told = await fleet.becomes(name, "False", "Draining")
        message = await fleet.eventually(lambda: told_of(fleet, name, key))
        assert f"Pod {fleet.namespace}/precious is held since" in message
        if fleet.kind == NODECLAIMS:
            told = await fleet.get(name)
            assert told["metadata"]["annotations"]["karpenter.sh/nodeclaim-termination-timestamp"]
            drained = next(item for item in told["status"]["conditions"] if item["type"] == "Drained")
            assert drained["status"] == "Unknown"
        fleet.clock.forward(hours=1)
        await fleet.leaves(name)


async def told_of(fleet: Any, name: str, word: str) -> str:
    message = str(await fleet.message(name))
    return message if word in message else ""


@pytest.mark.acceptance(
    "PV-e2e-ragengine", "PV-e2e-nodeclass-without-labels", "PV-e2e-foreign-nodeclass", "PV-e2e-azure-linux"
)
async def test_which_claims_are_served_and_on_which_image(fleet_of: Any) -> None:
    """A RAG engine's label or our node class is enough; Azure Linux is asked for by annotation; another's claim
    gets no pool and no finalizer."""
    fleet = fleet_of("NodeClaim")
    azure = await fleet.cloud()
    foreign = {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}
    async with fleet.operator():
        others = await fleet.claim(metadata={"labels": {}}, nodeClassRef=foreign)
        rag = await fleet.claim(metadata={"labels": {"kaito.sh/ragengine": "r"}})
        plain = await fleet.claim(metadata={"labels": {}})
        linux = await fleet.claim(
            metadata={"labels": {}, "annotations": {"kaito.sh/node-image-family": "AzureLinux"}}
        )
        ready = {name: await fleet.becomes(name, "True") for name in (rag, plain, linux)}
        untouched = await fleet.get(others)

        pools = {name: azure.arm.pools.pools[fleet.pool(name, claim)] for name, claim in ready.items()}
        assert len(azure.arm.pools.pools) == 3
        assert pools[linux]["properties"]["osSKU"] == "AzureLinux"
        assert "finalizers" not in untouched["metadata"]
        assert not untouched.get("status")


@pytest.mark.acceptance("PV-node-metrics", "PV-metrics")
async def test_a_life_is_counted_under_karpenters_names(fleet: Any) -> None:
    """Creation, phases, termination and every call of the cloud; and what creations of the size usually take."""
    await fleet.cloud(Rules(create_seconds=0.3, delete_seconds=0.05))
    async with fleet.operator() as mgr:
        name = await fleet.claim()
        await fleet.becomes(name, "True")
        await fleet.delete(name)
        await fleet.leaves(name)

        def value(of: str, **labels: str) -> float:
            return float(mgr.metrics.get_sample_value(of, labels) or 0.0)

        if fleet.short:
            pool = {"provisioner": "default"}
            assert value("karpenter_machines_created", reason="provisioned", **pool) == 1
            assert {value(f"karpenter_machines_{what}", **pool) for what in PHASES} == {1.0}
            assert value("karpenter_nodes_terminated", **pool) == value("karpenter_nodes_created", **pool) == 1
            assert value("karpenter_nodes_termination_time_seconds_count", **pool) == 1
        else:
            pool = {"nodepool": "kaito", "capacity_type": "on-demand"}
            counted = ("created", *PHASES, "terminated")
            assert {value(f"karpenter_nodeclaims_{what}_total", **pool) for what in counted} == {1.0}
            assert value("karpenter_nodeclaims_termination_duration_seconds_count", nodepool="kaito") == 1
        calls = {"controller": "machine", "provider": "azure"}
        assert value("karpenter_cloudprovider_duration_seconds_count", method="Create", **calls) == 1
        assert value("karpenter_cloudprovider_errors_total", method="Get", error="InstanceNotFound", **calls) >= 1
        labels = {"kind": fleet.kind.kind, "phase": "launch", "instance_type": SKU}
        assert value("kaito_machine_phase_seconds_count", **labels) == 1
        assert value("kaito_machine_usual_creation_seconds", instance_type=SKU) > 0


PHASES = ("launched", "registered", "initialized")
