"""Certificates in a Secret of an API server: first start, injection, several replicas, a roll-over in traffic."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from manager.certs.injection import (
    MUTATING,
    VALIDATING,
    bundles,
    crd_conversion,
    injection,
    mutating,
    trusts,
    validating,
)
from manager.certs.pems import certificates
from manager.certs.rotation import Policy, read_secret
from manager.certs.rotator import Rotator
from manager.client import Client
from manager.errors import ApiError
from manager.leader import LeaderElection
from manager.manager import Manager
from manager.resources import CONFIGMAPS, CRDS, LEASES, NAMESPACES, SECRETS
from manager.testing.webhooks import LocalWebhooks
from manager.types import Obj
from manager.webhooks.review import AdmissionRequest, Response, allowed, denied
from manager.webhooks.server import WebhookServer

if TYPE_CHECKING:
    from conftest import Server

NAMES = ("127.0.0.1", "hook.test.svc")
QUICK = Policy(settle=dt.timedelta(seconds=0.5), overlap=dt.timedelta(seconds=1.5))


@pytest.fixture
async def client(api_server: Server) -> AsyncIterator[Client]:
    async with Client(api_server.config) as opened:
        yield opened


@pytest.fixture
async def configuration(client: Client, namespace: str) -> AsyncIterator[str]:
    """A ValidatingWebhookConfiguration with two webhooks that concern nobody, and no bundle yet."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await client.create(VALIDATING, {"metadata": {"name": name}, "webhooks": [_webhook("a"), _webhook("b")]})
    yield name
    await client.delete(VALIDATING, name)


def _webhook(name: str) -> Obj:
    return {
        "name": f"{name}.test.io",
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "rules": [
            {"apiGroups": ["nobody.io"], "apiVersions": ["v1"], "resources": ["x"], "operations": ["CREATE"]}
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }


@asynccontextmanager
async def running(*rotators: Rotator) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(rotator.run()) for rotator in rotators]
    try:
        async with asyncio.timeout(20):
            for rotator in rotators:
                await rotator.ready()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def rotator(client: Client, namespace: str, configuration: str, policy: Policy | None = None) -> Rotator:
    return Rotator(
        client,
        namespace=namespace,
        secret="hook-certs",
        dns_names=NAMES,
        targets=[validating(configuration)],
        policy=policy,
    )


async def trusted(client: Client, configuration: str) -> set[bytes]:
    return set(bundles(await client.get(VALIDATING, configuration)).values())


async def test_a_first_start_makes_the_secret_and_the_trust(
    client: Client, namespace: str, configuration: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The Secret is there, every webhook of the configuration trusts it, it is served; no key is logged."""
    first = rotator(client, namespace, configuration)
    before = first.check()
    with caplog.at_level(logging.DEBUG):
        async with running(first):
            secret = await client.get(SECRETS, "hook-certs", namespace)
            found = await trusted(client, configuration)
            after = first.check()

    material = read_secret(secret)
    assert secret["type"] == "kubernetes.io/tls"
    assert found == {material.bundle_pem}
    assert first.serving.certificate == material.serving.cert
    assert (before, after) == ("certificates have not been checked yet", None)
    assert "PRIVATE KEY" not in caplog.text
    assert secret["data"]["ca.key"] not in caplog.text


async def test_every_kind_of_target_gets_the_bundle(client: Client, namespace: str) -> None:
    """A mutating configuration and the conversion of a CRD."""
    group = f"{namespace}.example.com"
    name, crd_name = f"t-{uuid.uuid4().hex[:8]}", f"things.{group}"
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    config = {"clientConfig": {"url": "https://127.0.0.1:1/convert"}, "conversionReviewVersions": ["v1"]}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"},
        "versions": versions,
        "conversion": {"strategy": "Webhook", "webhook": config},
    }
    await client.create(CRDS, {"metadata": {"name": crd_name}, "spec": spec})
    await client.create(MUTATING, {"metadata": {"name": name}, "webhooks": [_webhook("m")]})
    both = Rotator(
        client,
        namespace=namespace,
        secret="hook-certs",
        dns_names=NAMES,
        targets=[mutating(name), crd_conversion(crd_name)],
    )
    async with running(both):
        material = read_secret(await client.get(SECRETS, "hook-certs", namespace))
        found = [await client.get(MUTATING, name), await client.get(CRDS, crd_name)]
    await client.delete(MUTATING, name)
    await client.delete(CRDS, crd_name)

    assert [set(bundles(obj).values()) for obj in found] == [{material.bundle_pem}] * 2


async def test_replicas_agree_on_one_secret(client: Client, namespace: str, configuration: str) -> None:
    """Four that start at once serve the same certificate, and then leave the server alone."""
    replicas = [rotator(client, namespace, configuration) for _ in range(4)]
    async with running(*replicas):
        secret = await client.get(SECRETS, "hook-certs", namespace)
        target = await client.get(VALIDATING, configuration)
        for replica in replicas:
            await replica.reconcile()
        again = await client.get(SECRETS, "hook-certs", namespace)
        target_again = await client.get(VALIDATING, configuration)

    assert {replica.serving.certificate for replica in replicas} == {read_secret(secret).serving.cert}
    assert again["metadata"]["resourceVersion"] == secret["metadata"]["resourceVersion"]
    assert target_again["metadata"]["resourceVersion"] == target["metadata"]["resourceVersion"]


async def test_a_bundle_that_somebody_overwrote_comes_back(
    client: Client, namespace: str, configuration: str
) -> None:
    """As after ``kubectl apply`` of a manifest with an empty bundle; other fields stay as they were written."""
    async with running(rotator(client, namespace, configuration)):
        wanted = await trusted(client, configuration)
        other = {"name": "a.test.io", "clientConfig": {"url": "https://127.0.0.1:2/y"}}
        patch = {"webhooks": [{**_webhook("a"), **other}]}
        await client.patch(VALIDATING, configuration, patch)
        async with asyncio.timeout(10):
            while await trusted(client, configuration) != wanted:
                await asyncio.sleep(0.02)  # the rotator hears of it by its watch
        target = await client.get(VALIDATING, configuration)

    assert [webhook["clientConfig"]["url"] for webhook in target["webhooks"]] == ["https://127.0.0.1:2/y"]


async def test_a_target_that_comes_late_gets_its_bundle(client: Client, namespace: str) -> None:
    """The rotator is ready without it, and injects when it is created."""
    name = f"late-{uuid.uuid4().hex[:8]}"
    async with running(rotator(client, namespace, name)):
        await client.create(VALIDATING, {"metadata": {"name": name}, "webhooks": [_webhook("a")]})
        async with asyncio.timeout(10):
            while b"" in await trusted(client, name):
                await asyncio.sleep(0.02)  # the rotator hears of it by its watch
    await client.delete(VALIDATING, name)


async def test_a_broken_secret_is_repaired_and_served(client: Client, namespace: str, configuration: str) -> None:
    """Rubbish in ``tls.crt`` never reaches a handshake; a new certificate of the same authority does."""
    replica = rotator(client, namespace, configuration)
    async with running(replica):
        before = read_secret(await client.get(SECRETS, "hook-certs", namespace))
        rubbish = {"tls.crt": base64.b64encode(b"rubbish").decode(), "foreign": base64.b64encode(b"kept").decode()}
        await client.patch(SECRETS, "hook-certs", {"data": rubbish}, namespace=namespace)
        async with asyncio.timeout(10):
            while replica.serving.certificate == before.serving.cert:
                await asyncio.sleep(0.02)  # the rotator hears of it by its watch
        secret = await client.get(SECRETS, "hook-certs", namespace)

    after = read_secret(secret)
    assert after.bundle == before.bundle
    assert replica.serving.certificate == after.serving.cert
    assert secret["data"]["foreign"] == rubbish["foreign"]


@pytest.mark.acceptance("FW-H10")
async def test_a_standby_of_a_manager_serves_webhooks_with_certificates_of_its_own(
    api_server: Server, client: Client, namespace: str
) -> None:
    """Rotator and server need no leader: the API server trusts and reaches a manager that cannot get its lease."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    lease = {"holderIdentity": "other", "leaseDurationSeconds": 3600, "leaseTransitions": 0}
    meta = {"name": "taken", "namespace": namespace}
    await client.create(LEASES, {"metadata": meta, "spec": lease})
    await client.patch(NAMESPACES, namespace, {"metadata": {"labels": {"test": namespace}}})
    election = LeaderElection(lease_name="taken", namespace=namespace, identity="me")
    manager = Manager(api_server.config, leader_election=election, metrics_bind="0", graceful_timeout=5)
    certificates_of = rotator(manager.live, namespace, name)
    server = WebhookServer(host="127.0.0.1", port=0, certificate=certificates_of.serving, registry=manager.metrics)
    server.admission("/judge", lambda _: denied("judged"))
    manager.add(certificates_of.run, name="certificates", needs_leader=False)
    manager.add(server.run, name="webhooks", needs_leader=False)
    stop = asyncio.Event()
    running_manager = asyncio.create_task(manager.run(stop))
    async with asyncio.timeout(20):
        await server.ready()
        assert server.address is not None
        webhook = _webhook("judge") | {
            "clientConfig": {"url": f"https://127.0.0.1:{server.address[1]}/judge"},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
            ],
            "namespaceSelector": {"matchLabels": {"test": namespace}},
            "failurePolicy": "Ignore",
        }
        await client.create(VALIDATING, {"metadata": {"name": name}, "webhooks": [webhook]})
        obj = {"metadata": {"generateName": "x-", "namespace": namespace}}
        message = ""
        while not message:
            try:
                await client.create(CONFIGMAPS, obj, dry_run=True)
            except ApiError as error:
                message = error.message
            await asyncio.sleep(0.02)  # the bundle is injected, and the server follows its configuration
    ready = (certificates_of.check(), server.started(), manager.elected.is_set())
    stop.set()
    await running_manager
    await client.delete(VALIDATING, name)

    assert message == 'admission webhook "judge.test.io" denied the request: judged'
    assert ready == (None, None, False)


@pytest.mark.parametrize("how", ["key removed", "secret deleted"])
async def test_an_authority_rolls_over_in_traffic_without_one_failure(
    api_server: Server, client: Client, namespace: str, how: str
) -> None:
    """Admission requests without a pause, through announcement, publication, use and retirement: each is answered
    by the webhook, whose failure policy is Fail."""
    replicas: list[Rotator] = []
    name = f"t-{uuid.uuid4().hex[:8]}"
    replicas += [rotator(client, namespace, name, QUICK) for _ in range(2)]
    asked = 0

    def judge(request: AdmissionRequest) -> Response:
        nonlocal asked
        asked += 1
        assert request.object is not None
        return denied("x") if (request.object.get("data") or {}).get("bad") else allowed()

    await client.patch(NAMESPACES, namespace, {"metadata": {"labels": {"test": namespace}}})
    async with (
        running(*replicas),
        LocalWebhooks(replicas[0].serving) as one,
        LocalWebhooks(replicas[1].serving) as two,
    ):
        for hooks in (one, two):
            hooks.server.admission("/judge", judge)
        selector = {"matchLabels": {"test": namespace}}
        webhooks = [
            hooks.webhook(
                f"{number}.test.io", "/judge", CONFIGMAPS, operations=["CREATE"], namespaceSelector=selector
            )
            for number, hooks in enumerate((one, two))
        ]
        ready = asyncio.Event()
        await client.create(VALIDATING, {"metadata": {"name": name}, "webhooks": webhooks})
        failures: list[str] = []
        sent = 0

        async def traffic() -> None:
            nonlocal sent
            while True:
                obj = {"metadata": {"generateName": "x-", "namespace": namespace}, "data": {"bad": "1"}}
                try:
                    await client.create(CONFIGMAPS, obj, dry_run=True)
                    failures.append("passed")
                except ApiError as error:
                    if "denied the request" not in error.message:
                        failures.append(error.message)
                    else:
                        ready.set()
                if not ready.is_set():
                    failures.clear()  # the server has not taken the first configuration up
                sent += 1
                # The API server keeps its connections to webhooks; a new bundle makes it dial anew.
                await asyncio.sleep(0.005)

        stream = asyncio.create_task(traffic())
        async with asyncio.timeout(40):
            await ready.wait()
            before = read_secret(await client.get(SECRETS, "hook-certs", namespace))
            if how == "key removed":
                await client.patch(SECRETS, "hook-certs", {"data": {"ca.key": None}}, namespace=namespace)
            else:
                await client.delete(SECRETS, "hook-certs", namespace)
            stages: list[tuple[int, bool]] = []
            while True:
                try:
                    now = read_secret(await client.get(SECRETS, "hook-certs", namespace))
                except ApiError:
                    continue
                stage = (len(now.bundle), now.serving == before.serving)
                if not stages or stages[-1] != stage:
                    stages.append(stage)
                if stage == (1, False):
                    break
                await asyncio.sleep(0.02)  # the states of the Secret are looked at as they pass
            target = await client.get(VALIDATING, name)
            while not (trusts(target, now.bundle_pem) and injection(target, now.bundle_pem) == []):
                await asyncio.sleep(0.02)  # the last injection follows the Secret
                target = await client.get(VALIDATING, name)
            calm = asked
            while asked < calm + 20:
                await asyncio.sleep(0.02)  # traffic after the roll-over
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)
    await client.delete(VALIDATING, name)

    assert [stage for stage in stages if stage != (1, True)] == [(2, True), (2, False), (1, False)]
    assert now.bundle[0] not in before.bundle
    assert certificates(now.serving.cert)[0].issued_by(now.bundle[0])
    assert {replica.serving.certificate for replica in replicas} == {now.serving.cert}
    assert sent > 20
    assert failures == []


def test_injection_changes_bundles_and_nothing_else() -> None:
    """Only what differs, bound to the version that was read; a CRD without a conversion webhook has no place."""
    meta = {"name": "x", "resourceVersion": "7"}
    good = {"clientConfig": {"url": "u", "caBundle": base64.b64encode(b"ca").decode()}}
    spoilt = {"clientConfig": {"url": "u", "caBundle": "%%%"}}
    both = {"metadata": meta, "webhooks": [good, spoilt]}
    client_config = {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "u"}}}
    crd = {"metadata": meta, "spec": {"conversion": client_config}}

    assert injection({"metadata": meta, "webhooks": [good]}, b"ca") == []
    assert injection(both, b"ca") == [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "Y2E="},
    ]
    assert injection(crd, b"ca")[1]["path"] == "/spec/conversion/webhook/clientConfig/caBundle"
    assert injection({"metadata": meta, "spec": {"conversion": {"strategy": "None"}}}, b"ca") == []
    assert trusts(both, b"ca") is False
    assert [str(target) for target in (mutating("m"), crd_conversion("c"))] == [
        "mutatingwebhookconfigurations/m",
        "customresourcedefinitions/c",
    ]
