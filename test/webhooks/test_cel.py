"""The CRDs' own rules: on a current server they refuse what the webhook refuses, where no webhook is installed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from api.crds import crds, nodeclaim_crd
from api.testing import adapter, annotated, changed, inference, tuning, with_resource
from api.validation import judge
from controllers.resources import WORKSPACES
from kaito.local.cluster import put
from manager.client import Client
from manager.errors import ApiError, Invalid
from manager.resources import CRDS
from manager.types import Resource

if TYPE_CHECKING:
    from conftest import Server

Obj = dict[str, Any]
CLAIMS = Resource("karpenter.sh", "v1", "nodeclaims", "NodeClaim", namespaced=False)
TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}
pytestmark = [pytest.mark.timeout(120), pytest.mark.acceptance("KS-A11", "KS-A12")]


@pytest.fixture
async def client(crd_server: Server) -> AsyncIterator[Client]:
    """The server with all CRDs, the NodeClaim's too, and no webhook."""
    definitions = [*crds(), nodeclaim_crd()]
    async with Client(crd_server.config) as opened:
        for crd in definitions:
            await put(opened, CRDS, crd)
        async with asyncio.timeout(60):
            for crd in definitions:
                for version in crd["spec"]["versions"]:
                    spec = crd["spec"]
                    await _served(opened, f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}")
        yield opened


async def _served(client: Client, path: str) -> None:
    while True:
        try:
            await client.text(path)
        except ApiError:
            await asyncio.sleep(0.02)
        else:
            return


def knows_cel(server: Server) -> bool:
    """kube-apiserver 1.20 drops the rules, and the embedded server evaluates none: the webhook does."""
    return server.kind == "current"


CREATE = [
    (
        "neither",
        changed(inference(), "inference", None),
        "Either Inference or Tuning must be specified, not neither",
    ),
    ("both", inference() | {"tuning": tuning()["tuning"]}, "but not both"),
    ("no preset", inference() | {"inference": {}}, "Preset or Template must be specified"),
    ("preset and template", inference(template=TEMPLATE), "Preset and Template cannot be set at the same time"),
    (
        "eleven adapters",
        inference(adapters=[adapter(name=f"a{n}") for n in range(11)]),
        "Number of Adapters exceeds",
    ),
]

CHANGES = [
    ("inference goes", inference(), lambda o: tuning(), "Inference field cannot be toggled once set"),
    ("count", with_resource(inference(), count=1), "resource.count=2", "field is immutable"),
    ("count goes", with_resource(inference(), count=1), "resource.count", "field is immutable"),
    ("instanceType", inference(), "resource.instanceType=Standard_ND96isr_H200_v5", "field is immutable"),
    (
        "labelSelector",
        inference(),
        lambda o: changed(o, "resource.labelSelector", {"matchLabels": {"a": "b"}}),
        "field is immutable",
    ),
    ("preset", inference(), "inference.preset.name=phi-2", "field is immutable"),
    (
        "preset options",
        inference(),
        lambda o: changed(o, "inference.preset.presetOptions", {"image": "a/b:1"}),
        "field is immutable",
    ),
    (
        "template",
        inference() | {"inference": {"template": TEMPLATE}},
        lambda o: inference(),
        "field cannot be unset/set",
    ),
    ("tuning preset", tuning(), "tuning.preset.name=phi-2", "Preset cannot be changed"),
    ("method", tuning(), "tuning.method=lora", "Method cannot be changed"),
    ("input name", tuning(), "tuning.input.name=x", "field is immutable"),
]

ALLOWED = [
    ("adapters", inference(), lambda o: changed(o, "inference.adapters", [adapter()])),
    ("access mode spelled", inference(), "inference.preset.accessMode=public"),
    ("method in another case", tuning(), "tuning.method=QLORA"),
    ("output", tuning(), "tuning.output.image=example.com/a:2"),
    ("template content", inference() | {"inference": {"template": TEMPLATE}}, "inference.template.more=1"),
    ("annotations", inference(), lambda o: annotated(o, runtime="vllm")),
]


def edited(obj: Obj, how: Any) -> Obj:
    """The object after an edit: a function, ``path=value``, or a path to remove."""
    if callable(how):
        return dict(how(obj))
    path, sign, value = how.partition("=")
    return changed(obj, path, (int(value) if value.isdigit() else value) if sign else None)


async def stored(client: Client, obj: Obj, namespace: str) -> Obj:
    return await client.create(WORKSPACES, renamed(obj, f"w-{uuid.uuid4().hex[:8]}", namespace))


def renamed(obj: Obj, name: str, namespace: str) -> Obj:
    return obj | {"metadata": {**obj["metadata"], "name": name, "namespace": namespace}}


async def test_rules_bite_on_creation_where_cel_is_known(
    crd_server: Server, client: Client, namespace: str
) -> None:
    """What the schema's rules refuse has upstream's words, and the webhook's function refuses the same."""
    for what, obj, fragment in CREATE:
        assert fragment in "\n".join(map(str, judge(obj).violations)), what
        if knows_cel(crd_server):
            with pytest.raises(Invalid) as caught:
                await stored(client, obj, namespace)
            assert fragment in caught.value.message, what
        else:
            await stored(client, obj, namespace)


async def test_rules_bite_on_changes_where_cel_is_known(
    crd_server: Server, client: Client, namespace: str
) -> None:
    """What may not change is refused by the server alone, and by the webhook's function alike."""
    for what, old, how, fragment in CHANGES:
        before = await stored(client, old, namespace)
        new = edited(before, how)
        new["metadata"] = before["metadata"]
        assert fragment in "\n".join(map(str, judge(new, before).violations)), what
        if knows_cel(crd_server):
            with pytest.raises(Invalid) as caught:
                await client.replace(WORKSPACES, new)
            assert fragment in caught.value.message, what
        else:
            await client.replace(WORKSPACES, new)


async def test_rules_let_pass_what_may_change(client: Client, namespace: str) -> None:
    """Adapters, data, output, the template's content and spelled-out defaults change on every server."""
    for what, old, how in ALLOWED:
        before = await stored(client, old, namespace)
        new = edited(before, how)
        new["metadata"] = {**new["metadata"], **before["metadata"]}
        assert judge(new, before).violations == (), what
        await client.replace(WORKSPACES, new)


async def test_status_and_finalizers_of_any_object_can_be_written(client: Client, namespace: str) -> None:
    """The rules about changes hold nothing up that is no change."""
    before = await stored(client, with_resource(inference(), count=2), namespace)
    name = before["metadata"]["name"]

    await client.patch(WORKSPACES, name, {"metadata": {"finalizers": ["a.b/c"]}}, namespace=namespace)
    status = {"status": {"workerNodes": ["n"], "targetNodeCount": 2, "state": "Pending"}}
    await client.patch(WORKSPACES, name, status, namespace=namespace, subresource="status")
    after = await client.patch(WORKSPACES, name, {"metadata": {"finalizers": None}}, namespace=namespace)

    assert after["status"]["workerNodes"] == ["n"]


async def test_types_and_enums_are_the_schemas(client: Client, namespace: str) -> None:
    """Every server refuses a wrong type, a wrong enum, a missing requirement and a count below one."""
    wrong = [
        with_resource(inference(), count="two"),
        with_resource(inference(), count=0),
        with_resource(inference(), labelSelector=None),
        changed(inference(), "inference.preset.accessMode", "secret"),
        with_resource(inference(), partition={"mode": "half"}),
        changed(inference(), "inference.preset", {}),
    ]
    for obj in wrong:
        with pytest.raises(Invalid):
            await stored(client, obj, namespace)


def claim(**spec: Any) -> Obj:
    """A NodeClaim as KAITO makes them."""
    needed = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["Standard_NC24ads_A100_v4"]}
    return {
        "metadata": {"name": f"ws{uuid.uuid4().hex[:9]}"},
        "spec": {
            "nodeClassRef": {"group": "kaito.sh", "kind": "KaitoNodeClass", "name": "default"},
            "requirements": [needed, {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["kaito"]}],
            "resources": {"requests": {"storage": "1024Gi"}},
            "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
            **spec,
        },
    }


def requirement(key: str, operator: str, *values: str, **more: Any) -> list[Obj]:
    return [{"key": key, "operator": operator, "values": list(values), **more}]


async def test_node_claims(crd_server: Server, client: Client) -> None:
    """A NodeClaim lives 720h unless it says otherwise, never changes, and keeps Karpenter's rules."""
    made = await client.create(CLAIMS, claim())
    assert made["spec"]["expireAfter"] == "720h"
    by_schema = [
        claim(nodeClassRef={"group": "kaito.sh", "kind": "K"}),
        claim(expireAfter="soon"),
        claim(taints=[{"key": "sku", "effect": "Never"}]),
        claim(requirements=requirement("a", "Near", "b")),
        claim(requirements=requirement("a", "In", "b", minValues=51)),
    ]
    by_rules = [
        (claim(nodeClassRef={"group": "", "kind": "K", "name": "n"}), "may not be empty"),
        (claim(requirements=requirement("kubernetes.io/hostname", "In", "n")), "is restricted"),
        (
            claim(requirements=requirement("x.kubernetes.io/y", "In", "n")),
            'label domain "kubernetes.io" is restricted',
        ),
        (
            claim(requirements=requirement("karpenter.sh/x", "In", "n")),
            'label domain "karpenter.sh" is restricted',
        ),
        (claim(requirements=requirement("a", "In")), "must have a value defined"),
        (claim(requirements=requirement("a", "Gt", "x")), "single non-negative integer"),
        (claim(requirements=requirement("a", "In", "b", minValues=2)), "at least that many values"),
    ]

    for wrong in by_schema:
        with pytest.raises(Invalid):
            await client.create(CLAIMS, wrong)
    if knows_cel(crd_server):
        for wrong, fragment in by_rules:
            with pytest.raises(Invalid) as caught:
                await client.create(CLAIMS, wrong)
            assert fragment in caught.value.message
        with pytest.raises(Invalid, match="spec is immutable"):
            await client.patch(CLAIMS, made["metadata"]["name"], {"spec": {"expireAfter": "Never"}})
    await client.delete(CLAIMS, made["metadata"]["name"])
