"""API servers that call our webhooks: what they send, and what becomes of what we answer."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

from manager.certs.injection import MUTATING, VALIDATING
from manager.client import Client, PatchType
from manager.errors import ApiError, Conflict, Forbidden, Invalid, ServerError
from manager.resources import (
    CONFIGMAPS,
    CRDS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    NAMESPACES,
    PODS,
    SERVICES,
)
from manager.testing.controlplane import free_port
from manager.testing.webhooks import LocalWebhooks
from manager.types import Obj, Resource
from manager.webhooks.admission import Warnings
from manager.webhooks.review import AdmissionRequest, Denied, Response, allowed, denied, patched

if TYPE_CHECKING:
    from conftest import Server


@pytest.fixture
async def client(api_server: Server) -> AsyncIterator[Client]:
    async with Client(api_server.config) as opened:
        yield opened


@pytest.fixture
async def hooks() -> AsyncIterator[LocalWebhooks]:
    async with LocalWebhooks() as running:
        yield running


Install = Callable[..., Awaitable[str]]


@pytest.fixture
async def install(client: Client, namespace: str) -> AsyncIterator[Install]:
    """Create a configuration whose webhooks concern the test's namespace, and wait until it is obeyed."""
    labels = {"test": namespace}
    await client.patch(NAMESPACES, namespace, {"metadata": {"labels": labels}})
    created: list[tuple[Resource, str]] = []

    async def create(kind: Resource, *webhooks: Obj) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        for webhook in webhooks:
            webhook.setdefault("namespaceSelector", {"matchLabels": labels})
        await client.create(kind, {"metadata": {"name": name}, "webhooks": list(webhooks)})
        created.append((kind, name))
        return name

    yield create
    for kind, name in created:
        await client.delete(kind, name)


def config_map(namespace: str, name: str, **data: str) -> Obj:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


async def refused(call: Callable[[], Awaitable[Any]]) -> ApiError:
    """The error that a call meets; repeated until the API server has taken the configuration up."""
    async with asyncio.timeout(10):
        while True:
            try:
                await call()
            except ApiError as error:
                return error
            await asyncio.sleep(0.02)  # the server follows its configuration by a watch


async def until(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a call until it gives something true; a server follows its configuration by a watch."""
    async with asyncio.timeout(10):
        while not await call():
            await asyncio.sleep(0.02)


class Short:
    """Refuses a value ``no``, warns of ``hm``."""

    def validate_create(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        return self._judge(obj)

    def validate_update(self, old: Obj, new: Obj, request: AdmissionRequest) -> Warnings:
        return self._judge(new)

    async def validate_delete(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        if (obj.get("data") or {}).get("keep"):
            raise Denied(f"{obj['metadata']['name']} is kept")
        return None

    def _judge(self, obj: Obj) -> Warnings:
        value = (obj.get("data") or {}).get("value")
        if value == "no":
            raise Denied('data.value: "no" is not an answer', warnings=["no is no better"])
        if value == "never":
            raise Invalid(
                422, "Invalid", "data.value: never", {"causes": [{"field": "data.value", "message": "x"}]}
            )
        return [f"hm is no good answer, {uuid.uuid4().hex}"] if value == "hm" else None


@pytest.mark.acceptance("FW-H06")
async def test_a_validator_refuses_writes_in_the_servers_words(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """Create, update, merge patch, JSON patch, apply and delete are refused with its message; the rest pass."""
    hooks.server.validate(CONFIGMAPS, Short())
    await install(VALIDATING, hooks.webhook("short.test.io", "/validate--v1-configmap", CONFIGMAPS))
    said = 'admission webhook "short.test.io" denied the request: data.value: "no" is not an answer'

    async def create() -> None:
        await client.create(CONFIGMAPS, config_map(namespace, f"a-{uuid.uuid4().hex[:6]}", value="no"))

    first = await refused(create)
    kept = await client.create(CONFIGMAPS, config_map(namespace, "b", value="yes", keep="me"))
    bad = {"data": {"value": "no"}}
    json_patch = [{"op": "replace", "path": "/data/value", "value": "no"}]
    where = {"namespace": namespace}
    attempts: list[Awaitable[Any]] = [
        client.replace(CONFIGMAPS, {**kept, "data": {"value": "no"}}),
        client.patch(CONFIGMAPS, "b", bad, **where),
        client.patch(CONFIGMAPS, "b", bad, type=PatchType.STRATEGIC, **where),
        client.patch(CONFIGMAPS, "b", json_patch, type=PatchType.JSON, **where),
        client.apply(CONFIGMAPS, config_map(namespace, "b", value="no")),
        client.apply(CONFIGMAPS, config_map(namespace, "new", value="no")),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden) as caught:
            await attempt
        assert caught.value.message == said
    with pytest.raises(Forbidden) as on_delete:
        await client.delete(CONFIGMAPS, "b", namespace)
    with pytest.raises(ApiError) as whole:
        await client.patch(CONFIGMAPS, "b", {"data": {"value": "never"}}, **where)
    with caplog.at_level(logging.WARNING, "kaito.manager.client"):
        await client.patch(CONFIGMAPS, "b", {"data": {"value": "hm", "keep": None}}, **where)
    await client.delete(CONFIGMAPS, "b", namespace)

    assert isinstance(first, Forbidden)
    assert first.message == said
    assert on_delete.value.message == 'admission webhook "short.test.io" denied the request: b is kept'
    assert (whole.value.status, whole.value.reason) == (422, "Invalid")
    assert whole.value.message == 'admission webhook "short.test.io" denied the request: data.value: never'
    assert whole.value.details is not None
    assert whole.value.details["causes"] == [{"field": "data.value", "message": "x"}]
    assert "hm is no good answer" in caplog.text


async def test_a_refusal_can_warn_too(
    api_server: Server, client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """The warnings of a webhook that refuses are in the headers of the refusal."""
    hooks.server.validate(CONFIGMAPS, Short())
    await install(VALIDATING, hooks.webhook("short.test.io", "/validate--v1-configmap", CONFIGMAPS))
    bad = config_map(namespace, "a", value="no")
    await refused(lambda: client.create(CONFIGMAPS, bad, dry_run=True))
    url = api_server.config.server + CONFIGMAPS.path(namespace)
    body = {"apiVersion": "v1", "kind": "ConfigMap", **bad}
    headers = {"Authorization": f"Bearer {api_server.config.token}"}
    connector = aiohttp.TCPConnector(ssl=False)
    session = aiohttp.ClientSession(connector=connector, headers=headers)
    async with session, session.post(url, json=body) as answer:
        status, warnings = answer.status, answer.headers.getall("Warning")
        await connector.close(abort_ssl=True)

    assert (status, warnings) == (403, ['299 - "no is no better"'])


class Adds:
    """Adds a key that says what was there before it."""

    def __init__(self, key: str) -> None:
        self.key = key

    def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
        data = obj.setdefault("data", {})
        data.setdefault(self.key, "+".join(sorted(data)))
        obj["metadata"].setdefault("annotations", {})["test.io/added"] = self.key
        return obj


@pytest.mark.acceptance("FW-H07")
async def test_defaulters_complete_objects_one_after_the_other(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Webhooks run by configuration name and then in order; each sees the last one's patch; what is stored has
    all of them, also after an update and an apply."""
    hooks.server.admission("/one", lambda r: allowed())
    from manager.webhooks.admission import mutating

    hooks.server.admission("/first", mutating(Adds("first")))
    hooks.server.admission("/second", mutating(Adds("second")))
    pairs = [hooks.webhook(f"{name}.test.io", f"/{name}", CONFIGMAPS) for name in ("first", "second")]
    await install(MUTATING, *pairs)

    async def seen() -> bool:
        made = await client.create(CONFIGMAPS, config_map(namespace, f"x-{uuid.uuid4().hex[:6]}", z=""))
        return "second" in made["data"]

    await until(seen)
    made = await client.create(CONFIGMAPS, config_map(namespace, "c", zero=""))
    applied = await client.apply(CONFIGMAPS, config_map(namespace, "d", zero=""))
    changed = await client.patch(CONFIGMAPS, "c", {"data": {"first": None}}, namespace=namespace)
    stored = await client.get(CONFIGMAPS, "c", namespace)

    whole = {"zero": "", "first": "zero", "second": "first+zero"}
    assert made["data"] == applied["data"] == whole
    assert made["metadata"]["annotations"]["test.io/added"] == "second"
    assert changed["data"] == stored["data"] == whole | {"first": "second+zero"}


@pytest.mark.acceptance("FW-H02")
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_both_versions_of_the_review_are_spoken(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install, version: str
) -> None:
    """The server asks in the version that the webhook prefers, and takes the answer."""
    versions: list[str] = []
    endpoint_body: list[Obj] = []

    class Recording:
        limit = 1 << 20

        async def answer(self, body: bytes, content_type: str) -> tuple[int, bytes]:
            from manager.webhooks.admission import AdmissionEndpoint

            versions.append(orjson.loads(body)["apiVersion"])
            endpoint_body.append(orjson.loads(body)["request"])
            return await AdmissionEndpoint(lambda _: denied("heard")).answer(body, content_type)

        def refuse(self, code: int, message: str) -> tuple[int, bytes]:
            raise AssertionError

    hooks.server.register("/rec", Recording())
    webhook = hooks.webhook("rec.test.io", "/rec", CONFIGMAPS, admissionReviewVersions=[version])
    await install(VALIDATING, webhook)
    numbers = iter(range(1000))

    error = await refused(lambda: client.create(CONFIGMAPS, config_map(namespace, f"r{next(numbers)}")))

    assert error.message == 'admission webhook "rec.test.io" denied the request: heard'
    assert versions == [f"admission.k8s.io/{version}"]
    request = endpoint_body[0]
    gvk, gvr = (
        {"group": "", "version": "v1", "kind": "ConfigMap"},
        {"group": "", "version": "v1", "resource": "configmaps"},
    )
    assert (request["kind"], request["requestKind"]) == (gvk, gvk)
    assert (request["resource"], request["requestResource"]) == (gvr, gvr)
    assert (request["operation"], request["namespace"], request["dryRun"]) == ("CREATE", namespace, False)
    assert request["name"] == request["object"]["metadata"]["name"]
    assert request["userInfo"]["username"] == "admin"
    assert request["options"]["kind"] == "CreateOptions"
    assert request["oldObject"] is None
    assert request["object"]["kind"] == "ConfigMap"


async def test_what_a_webhook_sees_of_each_operation(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Old and new objects, options, dry run, and the status subresource where a rule names it."""
    seen: list[AdmissionRequest] = []

    def record(request: AdmissionRequest) -> Response:
        seen.append(request)
        return allowed()

    hooks.server.admission("/see", record)
    any_of_them = hooks.webhook("see.test.io", "/see", SERVICES)
    status = hooks.webhook("status.test.io", "/see", SERVICES, subresource="status")
    await install(VALIDATING, any_of_them, status)
    service = {
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
    }

    async def noticed() -> bool:
        await client.create(SERVICES, service, dry_run=True)
        return bool(seen)

    await until(noticed)
    seen.clear()
    await client.create(SERVICES, service)
    await client.patch(SERVICES, "s", {"metadata": {"labels": {"a": "b"}}}, namespace=namespace, dry_run=True)
    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}
    await client.patch(SERVICES, "s", ingress, namespace=namespace, subresource="status")
    await client.delete(SERVICES, "s", namespace)

    told = [(r.operation, r.subresource, r.object is not None, r.old_object is not None, r.dry_run) for r in seen]
    assert told == [
        ("CREATE", "", True, False, False),
        ("UPDATE", "", True, True, True),
        ("UPDATE", "status", True, True, False),
        ("DELETE", "", False, True, False),
    ]
    assert [(r.options or {}).get("kind") for r in seen] == [
        "CreateOptions",
        "PatchOptions" if (seen[1].options or {}).get("kind") == "PatchOptions" else "UpdateOptions",
        (seen[1].options or {}).get("kind"),
        "DeleteOptions",
    ]
    assert seen[1].object is not None
    assert seen[1].old_object is not None
    assert seen[1].object["metadata"]["labels"] == {"a": "b"}
    assert "labels" not in seen[1].old_object["metadata"]
    assert (await client.list(SERVICES, namespace)).items == []


async def test_selectors_and_scope_narrow_a_webhook(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Objects by their labels, old or new; namespaces by theirs; a cluster scope passes namespaced objects by."""

    def refuse(request: AdmissionRequest) -> Response:
        return denied("caught")

    hooks.server.admission("/no", refuse)
    expression = {"matchExpressions": [{"key": "guard", "operator": "In", "values": ["yes"]}]}
    other = {"matchLabels": {"test": "somewhere-else"}}
    cluster = [
        {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"], "scope": "Cluster"}
    ]
    await install(
        VALIDATING,
        hooks.webhook("labels.test.io", "/no", CONFIGMAPS, objectSelector=expression),
        hooks.webhook("namespaces.test.io", "/no", CONFIGMAPS, namespaceSelector=other),
        hooks.webhook("cluster.test.io", "/no", CONFIGMAPS, rules=cluster),
    )
    guarded = config_map(namespace, "g")
    guarded["metadata"]["labels"] = {"guard": "yes"}

    error = await refused(lambda: client.create(CONFIGMAPS, guarded, dry_run=True))
    await client.create(CONFIGMAPS, config_map(namespace, "free"))
    into = await refused(
        lambda: client.patch(CONFIGMAPS, "free", {"metadata": {"labels": {"guard": "yes"}}}, namespace=namespace)
    )

    assert error.message == 'admission webhook "labels.test.io" denied the request: caught'
    assert into.message == error.message
    await client.delete(CONFIGMAPS, "free", namespace)


async def test_wildcards_and_equivalent_versions_match(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """``*`` in every place catches a Deployment, and so does its subresource's ``*/scale``."""
    seen: list[str] = []

    def record(request: AdmissionRequest) -> Response:
        seen.append(f"{request.resource['resource']}/{request.subresource} {request.kind['kind']}")
        return allowed()

    hooks.server.admission("/see", record)
    everything = [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]
    scales = [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*/scale"], "operations": ["UPDATE"]}]
    await install(
        VALIDATING,
        hooks.webhook("all.test.io", "/see", CONFIGMAPS, rules=everything),
        hooks.webhook("scale.test.io", "/see", CONFIGMAPS, rules=scales),
    )
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    deployment = {
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": pod},
    }

    async def noticed() -> bool:
        await client.create(CONFIGMAPS, config_map(namespace, "n"), dry_run=True)
        return bool(seen)

    await until(noticed)
    seen.clear()
    await client.create(DEPLOYMENTS, deployment)
    await client.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 0}}, namespace=namespace, subresource="scale")

    assert seen == ["deployments/ Deployment", "deployments/scale Scale"]


async def test_a_failure_policy_decides_about_webhooks_that_cannot_be_called(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Fail refuses with the reason, Ignore lets pass: for nobody listening, a wrong authority and a time-out."""
    reached: list[str] = []

    async def slow(request: AdmissionRequest) -> Response:
        reached.append(request.name)
        await asyncio.sleep(2)
        return allowed()

    hooks.server.admission("/slow", slow)
    nobody = {"url": f"https://127.0.0.1:{free_port()}/x"}
    stranger = {"url": hooks.url("/slow")}  # no caBundle: the system's authorities, which do not know ours

    def webhook(name: str, policy: str, client_config: Obj | None = None) -> Obj:
        made = hooks.webhook(f"{name}.test.io", "/slow", CONFIGMAPS, failurePolicy=policy, timeoutSeconds=1)
        made["objectSelector"] = {"matchLabels": {"case": name}}
        return made | ({"clientConfig": client_config} if client_config else {})

    await install(
        VALIDATING,
        webhook("gone", "Fail", nobody),
        webhook("gone-ignored", "Ignore", nobody),
        webhook("untrusted", "Fail", stranger),
        webhook("untrusted-ignored", "Ignore", stranger),
        webhook("late", "Fail"),
        webhook("late-ignored", "Ignore"),
    )

    def create(case: str) -> Awaitable[Obj]:
        obj = config_map(namespace, case)
        obj["metadata"]["labels"] = {"case": case}
        return client.create(CONFIGMAPS, obj, dry_run=True)

    for case in ("gone", "untrusted", "late"):
        error = await refused(lambda case=case: create(case))  # type: ignore[misc]
        assert isinstance(error, ServerError)
        assert error.message.startswith(f'Internal error occurred: failed calling webhook "{case}.test.io": ')
        passed = await create(f"{case}-ignored")
        assert passed["metadata"]["name"] == f"{case}-ignored"
    assert "certificate" not in reached


async def test_a_service_is_resolved_to_its_endpoints(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """A webhook named by its Service is refused while the Service has no address, with that reason."""
    service = {"namespace": namespace, "name": "hook", "port": 443, "path": "/x"}
    webhook = hooks.webhook("svc.test.io", "/x", CONFIGMAPS, clientConfig={"service": service})
    await install(VALIDATING, webhook)

    error = await refused(lambda: client.create(CONFIGMAPS, config_map(namespace, "s"), dry_run=True))

    assert error.message.startswith('Internal error occurred: failed calling webhook "svc.test.io": ')
    assert 'service "hook" not found' in error.message


@pytest.mark.embedded_only("a kube-apiserver calls Services by their cluster address, which needs a proxy")
@pytest.mark.parametrize("kind", ["EndpointSlice", "Endpoints"])
async def test_a_services_endpoint_is_called_under_its_name(
    client: Client, namespace: str, install: Install, kind: str
) -> None:
    """The port is the Service's by name, the certificate must be the Service's; another name is not trusted."""
    names = [f"hook.{namespace}.svc"]
    async with LocalWebhooks(names=names) as hooks:
        hooks.server.admission("/no", lambda _: denied("reached"))
        assert hooks.server.address is not None
        port = {"name": "web", "port": hooks.server.address[1], "protocol": "TCP"}
        for name in ("hook", "alias"):
            meta = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}}
            ports = [{"name": "web", "port": 443, "protocol": "TCP", "targetPort": 1}]
            await client.create(SERVICES, {"metadata": meta, "spec": {"ports": ports}})
            if kind == "EndpointSlice":
                endpoints = [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]
                made = {"metadata": meta, "addressType": "IPv4", "ports": [port], "endpoints": endpoints}
                await client.create(ENDPOINTSLICES, made)
            else:
                subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [port]}
                await client.create(ENDPOINTS, {"metadata": meta, "subsets": [subset]})
        webhooks = []
        for name in ("hook", "alias"):
            service = {"name": name, "namespace": namespace, "path": "/no"}
            config = {"service": service, "caBundle": hooks.client_config("/no")["caBundle"]}
            selector = {"matchLabels": {"case": name}}
            made = hooks.webhook(f"{name}.test.io", "/", CONFIGMAPS, clientConfig=config, objectSelector=selector)
            webhooks.append(made)
        await install(VALIDATING, *webhooks)
        errors = []
        for name in ("hook", "alias"):
            obj = config_map(namespace, name)
            obj["metadata"]["labels"] = {"case": name}
            errors.append(await refused(lambda obj=obj: client.create(CONFIGMAPS, obj)))  # type: ignore[misc]

    assert errors[0].message == 'admission webhook "hook.test.io" denied the request: reached'
    assert errors[1].message.startswith('Internal error occurred: failed calling webhook "alias.test.io": ')
    assert "x509" in errors[1].message


async def test_a_bad_patch_or_an_invalid_result_is_refused(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """A patch that does not fit is the webhook's failure; an object that it makes invalid is validated as any."""

    def spoil(request: AdmissionRequest) -> Response:
        return patched([{"op": "add", "path": "/metadata/labels", "value": {"-bad-": "x"}}])

    def misfit(request: AdmissionRequest) -> Response:
        return patched([{"op": "replace", "path": "/no/such/place", "value": 1}])

    hooks.server.admission("/spoil", spoil)
    hooks.server.admission("/misfit", misfit)
    await install(
        MUTATING,
        hooks.webhook("spoil.test.io", "/spoil", CONFIGMAPS, objectSelector={"matchLabels": {"case": "spoil"}}),
        hooks.webhook("misfit.test.io", "/misfit", CONFIGMAPS, objectSelector={"matchLabels": {"case": "misfit"}}),
    )
    spoilt, misfits = config_map(namespace, "spoil"), config_map(namespace, "misfit")
    spoilt["metadata"]["labels"] = {"case": "spoil"}
    misfits["metadata"]["labels"] = {"case": "misfit"}

    invalid = await refused(lambda: client.create(CONFIGMAPS, spoilt, dry_run=True))
    failed = await refused(lambda: client.create(CONFIGMAPS, misfits, dry_run=True))

    assert isinstance(invalid, Invalid)
    assert "metadata.labels" in invalid.message
    assert isinstance(failed, ServerError)


async def test_a_webhook_is_called_again_after_others_changed_the_object(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """With ``reinvocationPolicy: IfNeeded``, once; with Never, not."""
    calls: list[str] = []

    def watching(name: str) -> Callable[[AdmissionRequest], Response]:
        def handle(request: AdmissionRequest) -> Response:
            calls.append(name)
            return allowed()

        return handle

    def adds(request: AdmissionRequest) -> Response:
        assert request.object is not None
        if "added" in (request.object.get("data") or {}):
            return allowed()
        return patched([{"op": "add", "path": "/data/added", "value": "x"}])

    hooks.server.admission("/again", watching("again"))
    hooks.server.admission("/once", watching("once"))
    hooks.server.admission("/adds", adds)
    await install(
        MUTATING,
        hooks.webhook("again.test.io", "/again", CONFIGMAPS, reinvocationPolicy="IfNeeded"),
        hooks.webhook("once.test.io", "/once", CONFIGMAPS, reinvocationPolicy="Never"),
        hooks.webhook("adds.test.io", "/adds", CONFIGMAPS),
    )

    async def added() -> bool:
        calls.clear()
        made = await client.create(CONFIGMAPS, config_map(namespace, f"r-{uuid.uuid4().hex[:6]}", zero="0"))
        return "added" in made["data"]

    await until(added)

    assert calls == ["again", "once", "again"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "short"}, "webhooks[0].name"),
        ({"admissionReviewVersions": ["v9"]}, "webhooks[0].admissionReviewVersions"),
        ({"sideEffects": "Some"}, "webhooks[0].sideEffects"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds"),
        ({"failurePolicy": "Perhaps"}, "webhooks[0].failurePolicy"),
        ({"matchPolicy": "Roughly"}, "webhooks[0].matchPolicy"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig"),
        ({"clientConfig": {"url": "http://x.io/"}}, "webhooks[0].clientConfig.url"),
        (
            {"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"]}]},
            "webhooks[0].rules[0].resources",
        ),
        (
            {"rules": [{"operations": ["GET"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "webhooks[0].rules[0].operations[0]",
        ),
    ],
)
async def test_a_configuration_that_cannot_work_is_refused(
    client: Client, hooks: LocalWebhooks, change: Obj, field: str
) -> None:
    """With the field that is wrong, and nothing else."""
    webhook = hooks.webhook("good.test.io", "/x", CONFIGMAPS) | change
    body = {"metadata": {"name": f"t-{uuid.uuid4().hex[:8]}"}, "webhooks": [webhook]}

    with pytest.raises(Invalid) as caught:
        await client.create(VALIDATING, body, dry_run=True)

    assert caught.value.details is not None
    assert {cause["field"] for cause in caught.value.details["causes"]} == {field}


async def test_a_webhook_cannot_guard_webhook_configurations(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """One that refuses everything everywhere can still be removed, and does not concern its own kind."""
    hooks.server.admission("/no", lambda _: denied("everything"))
    everything = [
        {
            "apiGroups": ["admissionregistration.k8s.io", ""],
            "apiVersions": ["*"],
            "resources": ["*"],
            "operations": ["*"],
        }
    ]
    only_this = {"matchLabels": {"test": namespace}}
    webhook = hooks.webhook("all.test.io", "/no", CONFIGMAPS, rules=everything, objectSelector=only_this)
    name = await install(VALIDATING, webhook | {"namespaceSelector": {}})
    guarded = config_map(namespace, "g")
    guarded["metadata"]["labels"] = {"test": namespace}

    await refused(lambda: client.create(CONFIGMAPS, guarded, dry_run=True))
    changed = await client.patch(VALIDATING, name, {"metadata": {"labels": {"test": namespace}}})

    assert changed["metadata"]["labels"] == {"test": namespace}


async def test_a_collection_is_deleted_object_by_object(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Each deletion of a collection is judged; one refusal fails the request and keeps its object."""
    judged: list[str] = []
    keep = {"probe"}

    def judge(request: AdmissionRequest) -> Response:
        name = (request.old_object or request.object or {})["metadata"]["name"]  # 1.20 names no object here
        judged.append(name)
        return denied(f"{name} stays") if name in keep else allowed()

    hooks.server.admission("/judge", judge)
    await install(VALIDATING, hooks.webhook("del.test.io", "/judge", CONFIGMAPS))
    await refused(lambda: client.create(CONFIGMAPS, config_map(namespace, "probe"), dry_run=True))
    for name in ("a", "keep", "z"):
        await client.create(CONFIGMAPS, config_map(namespace, name))

    keep.add("keep")
    with pytest.raises(Forbidden) as caught:
        await client.request("DELETE", CONFIGMAPS.path(namespace))
    left = {obj["metadata"]["name"] for obj in (await client.list(CONFIGMAPS, namespace)).items}

    assert caught.value.message == 'admission webhook "del.test.io" denied the request: keep stays'
    assert "keep" in left
    assert "keep" in judged


async def test_evictions_bindings_and_connections_are_judged(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Each as its own kind: CREATE of an Eviction and a Binding, CONNECT with the options of an exec."""
    seen: list[AdmissionRequest] = []

    def refuse(request: AdmissionRequest) -> Response:
        seen.append(request)
        return denied(f"no {request.subresource}")

    hooks.server.admission("/no", refuse)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "CONNECT"]}
    rules = [{**rule, "resources": ["pods/eviction", "pods/binding", "pods/exec"]}]
    await install(VALIDATING, hooks.webhook("sub.test.io", "/no", PODS, rules=rules))
    pod = {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "nowhere"},
    }
    await client.create(PODS, pod)
    path = PODS.path(namespace, "p")
    meta = {"name": "p", "namespace": namespace}
    eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": meta}
    if client.config.ca_data is not None:  # the embedded server serves the newer version only
        eviction["apiVersion"] = "policy/v1"
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p", "namespace": namespace},
        "target": {"kind": "Node", "name": "n"},
    }

    first = await refused(lambda: client.request("POST", f"{path}/eviction", body=eviction))
    with pytest.raises(ApiError) as bound:
        await client.request("POST", f"{path}/binding", body=binding)
    query = {"command": "ls", "container": "c", "stdout": True}
    with pytest.raises(ApiError) as connected:
        await client.request("POST", f"{path}/exec", query=query)
    await client.delete(PODS, "p", namespace, grace_seconds=0)

    said = 'admission webhook "sub.test.io" denied the request: no '
    errors = [first.message, bound.value.message, connected.value.message]
    assert errors == [f"{said}{name}" for name in ("eviction", "binding", "exec")]
    told = [(r.operation, r.kind["kind"], r.resource["resource"], r.subresource, r.name) for r in seen[-3:]]
    assert told == [
        ("CREATE", "Eviction", "pods", "eviction", "p"),
        ("CREATE", "Binding", "pods", "binding", "p"),
        ("CONNECT", "PodExecOptions", "pods", "exec", "p"),
    ]
    assert seen[-1].object is not None
    assert (seen[-1].object["command"], seen[-1].object["container"]) == (["ls"], "c")


async def test_writes_that_race_with_a_slow_webhook_are_retried(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """Patches that name no version all arrive, although the object changes while a webhook thinks."""
    asked = 0

    async def slow(request: AdmissionRequest) -> Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.02)
        return allowed()

    hooks.server.admission("/slow", slow)
    await install(VALIDATING, hooks.webhook("slow.test.io", "/slow", CONFIGMAPS, operations=["UPDATE"]))
    await client.create(CONFIGMAPS, config_map(namespace, "r"))

    async def noticed() -> bool:
        await client.patch(CONFIGMAPS, "r", {"data": {"warm": uuid.uuid4().hex}}, namespace=namespace)
        return asked > 0

    await until(noticed)
    writes = (
        client.patch(CONFIGMAPS, "r", {"data": {f"k{number}": "v"}}, namespace=namespace) for number in range(4)
    )
    await asyncio.gather(*writes)
    stored = await client.get(CONFIGMAPS, "r", namespace)
    with pytest.raises(Conflict):
        await client.replace(CONFIGMAPS, {**stored, "metadata": {**stored["metadata"], "resourceVersion": "1"}})

    assert {f"k{number}" for number in range(4)} <= stored["data"].keys()


async def test_a_rule_for_another_version_matches_too_unless_it_is_exact(
    client: Client, namespace: str, hooks: LocalWebhooks, install: Install
) -> None:
    """A rule for v1 hears of a write to v2, in v1; one with ``matchPolicy: Exact`` does not."""
    group = f"{namespace}.example.com"
    v1, v2 = (Resource(group, version, "gadgets", "Gadget") for version in ("v1", "v2"))
    open_schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": name, "served": True, "storage": name == "v2", "schema": open_schema} for name in ("v1", "v2")
    ]
    names = {"plural": "gadgets", "kind": "Gadget", "singular": "gadget", "listKind": "GadgetList"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions}
    await client.create(CRDS, {"metadata": {"name": f"gadgets.{group}"}, "spec": spec})
    seen: list[AdmissionRequest] = []

    def adds(request: AdmissionRequest) -> Response:
        seen.append(request)
        return patched([{"op": "add", "path": "/spec/added", "value": True}])

    hooks.server.admission("/adds", adds)
    hooks.server.admission("/no", lambda _: denied("exact"))
    await install(MUTATING, hooks.webhook("eq.test.io", "/adds", v1))
    await install(VALIDATING, hooks.webhook("ex.test.io", "/no", v1, matchPolicy="Exact"))
    gadget = {"metadata": {"namespace": namespace}, "spec": {}}

    async def noticed() -> bool:
        try:
            made = await client.create(v2, {**gadget, "metadata": {"generateName": "g-", "namespace": namespace}})
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return bool(seen) and made["spec"].get("added") is True

    await until(noticed)
    exact = await refused(lambda: client.create(v1, {**gadget, "metadata": {"name": "x", "namespace": namespace}}))
    await client.delete(CRDS, f"gadgets.{group}")

    request = seen[0]
    assert (request.kind["version"], request.resource["version"]) == ("v1", "v1")
    assert (request.request_kind["version"], request.request_resource["version"]) == ("v2", "v2")
    assert request.object is not None
    assert request.object["apiVersion"] == f"{group}/v1"
    assert exact.message == 'admission webhook "ex.test.io" denied the request: exact'
