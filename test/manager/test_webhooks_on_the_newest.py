"""Our webhooks called by a current API server: Kubernetes 1.36's server of custom resources, beside a real 1.20.

It keeps its objects in an etcd of its own and reads namespaces and webhook configurations from the older server.
It runs only where ``KUBEBUILDER_ASSETS`` has its binary, beside the real server.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manager.certs.injection import MUTATING, VALIDATING
from manager.client import Client
from manager.config import RestConfig
from manager.errors import ApiError, ConnectionFailed
from manager.resources import CRDS, NAMESPACES
from manager.testing.controlplane import ADMIN_TOKEN, ControlPlane, free_port
from manager.testing.webhooks import LocalWebhooks
from manager.types import Obj, Resource
from manager.webhooks.admission import Warnings
from manager.webhooks.conversion import Conversions
from manager.webhooks.review import AdmissionRequest, Denied


@pytest.fixture(scope="module")
def older() -> Iterator[ControlPlane]:
    """The real server of this machine."""
    with ControlPlane.start(controllers=False) as plane:
        yield plane


@pytest.fixture(scope="module")
def newest(older: ControlPlane) -> Iterator[RestConfig]:
    """The 1.36 server, running; its admission configuration is the older server's."""
    program = older.bin / "apiextensions-apiserver"
    folder = Path(tempfile.mkdtemp(prefix="newest-"))
    client, peer, port = free_port(), free_port(), free_port()
    etcd, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    kubeconfig = f"--kubeconfig={older.kubeconfig}"
    commands = [
        [
            str(program.with_name("etcd")),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        ],
        [
            str(program),
            f"--etcd-servers={etcd}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder / 'certs'}",
            kubeconfig,
            f"--authentication-{kubeconfig[2:]}",
            f"--authorization-{kubeconfig[2:]}",
            "--authentication-tolerate-lookup-failure",
            "--authentication-skip-lookup",
            "--enable-priority-and-fairness=false",
            "--disable-admission-plugins=MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
        ],
    ]
    with (folder / "log").open("wb") as log:
        start = functools.partial(subprocess.Popen, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        processes: list[subprocess.Popen[bytes]] = [start(command) for command in commands]
    try:
        yield RestConfig(server=f"https://127.0.0.1:{port}", token=ADMIN_TOKEN, verify=False)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(newest: RestConfig) -> AsyncIterator[Client]:
    async with Client(newest) as opened:
        yield opened


async def until(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a call until it gives something true: the server starts, and follows its configuration by watches."""
    async with asyncio.timeout(40):
        while True:
            try:
                if await call():
                    return
            except (ConnectionFailed, ApiError):
                pass  # not yet
            await asyncio.sleep(0.05)


def definition(group: str, hooks: LocalWebhooks) -> Obj:
    """Widgets in two versions that a webhook converts."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == "v2", "schema": schema} for v in ("v1", "v2")]
    webhook = {"conversionReviewVersions": ["v1"], "clientConfig": hooks.client_config("/convert")}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "versions": versions,
        "conversion": {"strategy": "Webhook", "webhook": webhook},
    }
    return {"metadata": {"name": f"widgets.{group}"}, "spec": spec}


class Sized:
    """Completes the colour, refuses size 0, warns of more than 100."""

    def default(self, obj: Obj, request: AdmissionRequest) -> Obj:
        obj["spec"].setdefault("a/b~colour", "blue")
        return obj

    def validate_create(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        if obj["spec"]["size"] == 0:
            raise Denied("spec.size: 0 is nothing", code=422)
        return None

    def validate_update(self, old: Obj, new: Obj, request: AdmissionRequest) -> Warnings:
        return self.validate_create(new, request)

    def validate_delete(self, obj: Obj, request: AdmissionRequest) -> Warnings:
        return None


@pytest.mark.acceptance("FW-H02", "FW-H06", "FW-H07", "FW-H08")
async def test_a_current_server_is_served(older: ControlPlane, client: Client) -> None:
    """Conversion both ways, in lists too; a defaulter's patch; a refusal with its code and words."""
    mark = uuid.uuid4().hex[:8]
    group, namespace = f"t{mark}.example.com", f"t-{mark}"
    v1, v2 = (Resource(group, version, "widgets", "Widget") for version in ("v1", "v2"))

    def renamed(old: str, new: str) -> Callable[[Obj], Obj]:
        def convert(obj: Obj) -> Obj:
            obj["spec"][new] = obj["spec"].pop(old)
            return obj

        return convert

    conversions = Conversions()
    conversions.hub(group, "Widget", "v2")
    to_hub, from_hub = renamed("length", "size"), renamed("size", "length")
    conversions.spoke(group, "Widget", "v1", to_hub=to_hub, from_hub=from_hub)
    async with LocalWebhooks() as hooks, Client(older.rest_config()) as old_client:
        hooks.server.convert(conversions)
        hooks.server.default(v2, Sized())
        hooks.server.validate(v2, Sized())
        await old_client.create(NAMESPACES, {"metadata": {"name": namespace}})
        kinds = ((MUTATING, "mutate"), (VALIDATING, "validate"))
        for kind, verb in kinds:
            path = f"/{verb}-{group.replace('.', '-')}-v2-widget"
            webhook = hooks.webhook(f"{verb}.test.io", path, v2)
            await old_client.create(kind, {"metadata": {"name": namespace}, "webhooks": [webhook]})
        crd = definition(group, hooks)

        async def defined() -> bool:
            return bool(await client.create(CRDS, crd))

        async def served() -> bool:
            meta = {"generateName": "probe-", "namespace": namespace}
            made = await client.create(v2, {"metadata": meta, "spec": {"size": 1}}, dry_run=True)
            return "a/b~colour" in made["spec"]

        await until(defined)
        await until(served)
        made = await client.create(v1, {"metadata": {"name": "w", "namespace": namespace}, "spec": {"length": 3}})
        read = await client.get(v2, "w", namespace)
        listed = (await client.list(v1, namespace)).items
        with pytest.raises(ApiError) as caught:
            await client.patch(v1, "w", {"spec": {"length": 0}}, namespace=namespace)
        await client.delete(v1, "w", namespace)
        for kind, _ in kinds:
            await old_client.delete(kind, namespace)

    assert made["spec"] == {"length": 3, "a/b~colour": "blue"}
    assert read["spec"] == {"size": 3, "a/b~colour": "blue"}
    assert [obj["spec"]["length"] for obj in listed] == [3]
    assert caught.value.status == 422
    said = 'admission webhook "validate.test.io" denied the request: spec.size: 0 is nothing'
    assert caught.value.message == said
