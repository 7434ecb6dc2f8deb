"""Real kubectl against both API servers: the commands people type."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from manager.client import Client
from manager.resources import CRDS
from manager.types import Obj


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl in one namespace of one server."""

    program: str
    kubeconfig: str
    namespace: str
    cache: str

    async def __call__(self, *arguments: str, stdin: Obj | None = None) -> Result:
        process = await asyncio.create_subprocess_exec(
            self.program,
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={self.cache}",
            f"--namespace={self.namespace}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(yaml.safe_dump(stdin).encode() if stdin else b"")
        return Result(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *arguments: str, stdin: Obj | None = None) -> str:
        result = await self(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out.strip()


@pytest.fixture
async def kubectl(api_server: Any, namespace: str, tmp_path: Any) -> Kubectl:
    if api_server.kubectl is None:
        pytest.skip("kubectl is not installed")
    return Kubectl(api_server.kubectl, str(api_server.kubeconfig), namespace, str(tmp_path))


async def test_generators(kubectl: Kubectl) -> None:
    """`kubectl create` and `run` make what they say (since 1.32 they send protobuf)."""
    await kubectl.ok("create", "configmap", "c", "--from-literal=a=b")
    await kubectl.ok("create", "secret", "generic", "s", "--from-literal=a=b")
    await kubectl.ok("create", "deployment", "d", "--image=nginx", "--replicas=2", "--port=80")
    await kubectl.ok("create", "job", "j", "--image=busybox", "--", "true")
    await kubectl.ok("create", "serviceaccount", "sa")
    await kubectl.ok("create", "role", "r", "--verb=get", "--resource=pods")
    await kubectl.ok("create", "rolebinding", "rb", "--role=r", "--serviceaccount=x:sa")
    await kubectl.ok("run", "p", "--image=busybox", "--restart=Never", "--", "sleep", "1")
    await kubectl.ok("expose", "deployment", "d")

    assert await kubectl.ok("get", "configmap", "c", "-o", "jsonpath={.data.a}") == "b"
    assert await kubectl.ok("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    deployment = json.loads(await kubectl.ok("get", "deployment", "d", "-o", "json"))
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "protocol": "TCP"}
    ]
    assert await kubectl.ok("get", "service", "d", "-o", "jsonpath={.spec.ports[0].targetPort}") == "80"
    assert await kubectl.ok("get", "pod", "p", "-o", "jsonpath={.spec.restartPolicy}") == "Never"
    assert await kubectl.ok("get", "rolebinding", "rb", "-o", "jsonpath={.roleRef.apiGroup}") == (
        "rbac.authorization.k8s.io"
    )


async def test_editing(kubectl: Kubectl) -> None:
    """label, annotate, scale, set image, patch, replace and delete change what they name."""
    await kubectl.ok("create", "deployment", "d", "--image=nginx:1")
    await kubectl.ok("label", "deployment", "d", "a=b")
    await kubectl.ok("annotate", "deployment", "d", "c=d")
    await kubectl.ok("scale", "deployment", "d", "--replicas=3")
    await kubectl.ok("set", "image", "deployment/d", "nginx=nginx:2")
    await kubectl.ok("patch", "deployment", "d", "-p", '{"spec":{"minReadySeconds":5}}')
    found = json.loads(await kubectl.ok("get", "deployment", "d", "-o", "json"))

    assert found["metadata"]["labels"] == {"app": "d", "a": "b"}
    assert found["metadata"]["annotations"]["c"] == "d"
    assert found["spec"]["replicas"] == 3
    assert found["spec"]["minReadySeconds"] == 5
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"
    assert "deleted" in await kubectl.ok("delete", "deployment", "d")
    gone = await kubectl("get", "deployment", "d")
    assert gone.code == 1
    assert gone.err.strip() == 'Error from server (NotFound): deployments.apps "d" not found'


@pytest.fixture
async def gadgets(api_server: Any) -> AsyncIterator[str]:
    """The group of a custom resource Gadget."""
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    crd = {
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [version],
        },
    }
    async with Client(api_server.config) as client:
        await client.create(CRDS, crd)
        yield group
        await client.delete(CRDS, f"gadgets.{group}")


@pytest.mark.parametrize("flags", [("--server-side",), ()])
async def test_apply_again_and_again(kubectl: Kubectl, gadgets: str, flags: tuple[str, ...]) -> None:
    """apply creates, leaves alone what is the same, and changes what is not; for built-in and custom kinds."""
    await kubectl.ok("wait", "--for=condition=Established", f"crd/gadgets.{gadgets}", "--timeout=20s")
    config: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    gadget: Obj = {"apiVersion": f"{gadgets}/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {"size": 1}}
    for step in ("1", "1", "2"):
        await kubectl.ok("apply", *flags, "-f", "-", stdin=config | {"data": {"k": step}})
        await kubectl.ok("apply", *flags, "-f", "-", stdin=gadget | {"spec": {"size": int(step)}})

    assert await kubectl.ok("get", "configmap", "a", "-o", "jsonpath={.data.k}") == "2"
    assert await kubectl.ok("get", f"gadgets.{gadgets}", "a", "-o", "jsonpath={.spec.size}") == "2"
    assert await kubectl.ok("get", f"gadgets.{gadgets}", "a", "-o", "jsonpath={.metadata.generation}") == "2"


async def test_watching_and_waiting(kubectl: Kubectl) -> None:
    """`get -w` prints changes as they come, `wait --for=delete` returns when the object is gone."""
    only = ("--field-selector=metadata.name=a", "--request-timeout=4s")
    watching = asyncio.create_task(kubectl("get", "configmap", "-w", "--output-watch-events", *only))
    await asyncio.sleep(1)
    await kubectl.ok("create", "configmap", "a")
    waiting = asyncio.create_task(kubectl("wait", "--for=delete", "configmap/a", "--timeout=20s"))
    await asyncio.sleep(0.5)
    await kubectl.ok("label", "configmap", "a", "x=y")
    await kubectl.ok("delete", "configmap", "a")

    assert (await waiting).code == 0
    lines = [line.split()[:2] for line in (await watching).out.splitlines()]
    assert lines == [["EVENT", "NAME"], ["ADDED", "a"], ["MODIFIED", "a"], ["DELETED", "a"]]


async def test_asking_what_is_allowed(kubectl: Kubectl) -> None:
    """`auth can-i` answers yes to the administrator."""
    assert await kubectl.ok("auth", "can-i", "create", "pods") == "yes"
