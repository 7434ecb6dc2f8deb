"""The agent against an API server: nodes, pods, logs, instances, restarts. Runs on every server at hand."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from kaito.local.node.agent import Agent, AgentError, Options
from kaito.local.node.nodes import LEASE_NAMESPACE
from manager.client import Client
from manager.errors import NotFound
from manager.resources import CONFIGMAPS, EVENTS, LEASES, NODES, PODS

if TYPE_CHECKING:
    from conftest import Node

SLEEP = ("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")


def first(status: dict[str, Any]) -> dict[str, Any]:
    return (status.get("containerStatuses") or [{}])[0]


def state(status: dict[str, Any]) -> str:
    detail: dict[str, Any] = first(status).get("state") or {}
    return next((f"{kind} {value.get('reason', '')}".strip() for kind, value in detail.items()), "")


def is_ready(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])


async def log_of(client: Client, namespace: str, name: str, **query: Any) -> str:
    return await client.text(f"/api/v1/namespaces/{namespace}/pods/{name}/log", query=query)


async def test_the_node_is_ready_with_a_lease(node: Node, client: Client) -> None:
    """A registered node has capacity, a Ready condition, the kubelet's port and a lease that it owns."""
    found = await client.get(NODES, node.name)
    lease = await client.get(LEASES, node.name, LEASE_NAMESPACE)

    ready = [c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"]
    assert ready == ["True"]
    assert found["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == node.agent.kubelet_port
    assert found["status"]["allocatable"]["cpu"] == str(os.cpu_count())
    assert lease["spec"]["holderIdentity"] == node.name
    assert lease["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]


async def test_a_pod_runs_from_init_to_deletion(node: Node, client: Client, namespace: str) -> None:
    """Init containers prepare volumes, probes make it ready, a ConfigMap edit arrives, deletion ends it."""
    await client.create(CONFIGMAPS, {"metadata": {"name": "cm"}, "data": {"a": "one"}}, namespace=namespace)
    mounts = [{"name": "cm", "mountPath": "/cfg"}, {"name": "work", "mountPath": "/site"}]
    init = {
        "name": "init",
        "image": "busybox",
        "command": ["sh", "-c", "cp /cfg/a /site/index.html; echo prepared"],
        "volumeMounts": mounts,
    }
    main = {
        "image": "python:3",
        "command": ["python", "-m", "http.server", "8000", "--bind", "$(IP)", "--directory", "/site"],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "web", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 1},
        "volumeMounts": mounts,
    }
    volumes = [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "work", "emptyDir": {}}]
    body = node.pod("web", container=main, initContainers=[init], volumes=volumes)
    await client.create(PODS, body, namespace=namespace)

    running = await node.until(namespace, "web", is_ready)
    async with ClientSession() as session, session.get(f"http://{running['status']['podIP']}:8000/") as reply:
        served = await reply.text()
    await client.patch(CONFIGMAPS, "cm", {"data": {"a": "two"}}, namespace=namespace)
    copy = node.state / "pods" / running["metadata"]["uid"] / "volumes" / "cm" / "a"
    async with asyncio.timeout(5):
        while copy.read_text() != "two":
            await asyncio.sleep(0.05)

    assert served == "one"
    assert running["status"]["phase"] == "Running"
    assert running["status"]["podIP"].startswith("127.97.")
    assert running["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert await log_of(client, namespace, "web", container="init") == "prepared\n"
    assert "Serving HTTP" in await log_of(client, namespace, "web", container="c", tailLines=50)
    await client.delete(PODS, "web", namespace)
    await node.until_gone(namespace, "web")
    async with asyncio.timeout(5):
        while copy.parent.exists():
            await asyncio.sleep(0.05)


async def test_a_pod_is_found_by_its_name(node: Node, client: Client, namespace: str) -> None:
    """A container whose words name a pod waits for it and gets its address; a mere namesake is not it."""
    name = f"peer-0.peers.{namespace}.svc"
    asks = node.pod("asks", "echo", f"{name}:29500")
    await client.create(PODS, asks, namespace=namespace)
    await client.create(PODS, node.pod("peer-0", *SLEEP, hostname="peer-0"), namespace=namespace)
    await node.until(namespace, "asks", lambda s: state(s) == "waiting CreateContainerConfigError")

    peer = node.pod("peer", *SLEEP, hostname="peer-0", subdomain="peers")
    await client.create(PODS, peer, namespace=namespace)
    await node.until(namespace, "asks", lambda s: s.get("phase") == "Succeeded")

    address = (await client.get(PODS, "peer", namespace))["status"]["podIP"]
    assert await log_of(client, namespace, "asks") == f"{address}:29500\n"


@pytest.mark.parametrize(("code", "phase", "reason"), [(0, "Succeeded", "Completed"), (3, "Failed", "Error")])
async def test_a_pod_that_ends_tells_how(
    node: Node, client: Client, namespace: str, code: int, phase: str, reason: str
) -> None:
    """Exit code, reason, message and log of a pod that runs once are there after its end."""
    body = node.pod("once", "sh", "-c", f"echo last words; exit {code}")
    body["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError"
    await client.create(PODS, body, namespace=namespace)

    done = await node.until(namespace, "once", lambda s: s.get("phase") == phase)

    ended = first(done["status"])["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    assert ended.get("message", "") == ("last words\n" if code else "")
    assert await log_of(client, namespace, "once") == "last words\n"


async def test_a_crash_loop_backs_off(node: Node, client: Client, namespace: str) -> None:
    """The first restart is immediate, the second waits as CrashLoopBackOff, and the previous log can be read."""
    body = node.pod("crash", "sh", "-c", "echo run; exit 1", restartPolicy="Always")
    await client.create(PODS, body, namespace=namespace)

    looping = await node.until(namespace, "crash", lambda s: state(s) == "waiting CrashLoopBackOff")

    status = first(looping["status"])
    assert (looping["status"]["phase"], status["restartCount"]) == ("Running", 1)
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert await log_of(client, namespace, "crash", previous=True) == "run\n"


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        ({"image": "nginx"}, "ErrImagePull", "--images FILE"),
        ({"envFrom": [{"secretRef": {"name": "no"}}]}, "CreateContainerConfigError", 'secret "no" not found'),
        ({"livenessProbe": {"grpc": {"port": 1}}}, "CreateContainerConfigError", "gRPC"),
    ],
)
async def test_what_cannot_start_says_why(
    node: Node, client: Client, namespace: str, container: dict[str, Any], reason: str, words: str
) -> None:
    """An unknown image or a missing Secret leaves the pod waiting with a reason that helps."""
    if node.server.kind == "real" and "livenessProbe" in container:
        container = {"livenessProbe": {"exec": {"command": ["true"]}}, "envFrom": [{"secretRef": {"name": "no"}}]}
        words = "not found"
    await client.create(PODS, node.pod("stuck", "sleep", "1", container=container), namespace=namespace)

    stuck = await node.until(namespace, "stuck", lambda s: state(s) == f"waiting {reason}")

    assert words in first(stuck["status"])["state"]["waiting"]["message"]
    assert stuck["status"]["phase"] == "Pending"


async def test_a_failing_liveness_probe_restarts_the_container(node: Node, client: Client, namespace: str) -> None:
    """An exec probe that fails gets the container killed and started again, with events that tell it."""
    probe = {"exec": {"command": ["sh", "-c", "exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    body = node.pod("ill", *SLEEP, container={"livenessProbe": probe}, restartPolicy="Always")
    await client.create(PODS, body, namespace=namespace)

    await node.until(namespace, "ill", lambda s: first(s).get("restartCount", 0) >= 1)
    async with asyncio.timeout(5):
        while True:
            reasons = {
                e["reason"]
                for e in (await client.list(EVENTS, namespace)).items
                if e["involvedObject"]["name"] == "ill"
            }
            if {"Pulled", "Created", "Started", "Unhealthy", "Killing"} <= reasons:
                break
            await asyncio.sleep(0.05)


async def test_a_deadline_fails_the_pod(node: Node, client: Client, namespace: str) -> None:
    """activeDeadlineSeconds ends a pod with DeadlineExceeded."""
    await client.create(PODS, node.pod("late", *SLEEP, activeDeadlineSeconds=1), namespace=namespace)

    late = await node.until(namespace, "late", lambda s: s.get("phase") == "Failed")

    assert late["status"]["reason"] == "DeadlineExceeded"
    assert first(late["status"])["state"]["terminated"]["exitCode"] == 0


async def test_containers_outlive_a_killed_agent(node: Node, client: Client, namespace: str) -> None:
    """After an agent was killed, the next one goes on with the same process; a pod deleted meanwhile is ended."""
    for name in ("keep", "drop"):
        await client.create(PODS, node.pod(name, *SLEEP), namespace=namespace)
    pids = {}
    for name in ("keep", "drop"):
        await node.until(namespace, name, lambda s: s.get("phase") == "Running")
        worker = node.agent.find_pod(namespace, name)
        assert worker is not None
        pids[name] = worker.containers[0].attempt.pid

    await node.crash()
    await client.delete(PODS, "drop", namespace, grace_seconds=0)
    alive = [Path(f"/proc/{pid}").exists() for pid in pids.values()]
    await node.start()
    async with asyncio.timeout(5):
        while Path(f"/proc/{pids['drop']}").exists():
            await asyncio.sleep(0.05)
        while not ((worker := node.agent.find_pod(namespace, "keep")) and worker.containers):
            await asyncio.sleep(0.05)

    assert alive == [True, True]
    assert worker.containers[0].attempt.pid == pids["keep"]
    assert first((await client.get(PODS, "keep", namespace))["status"])["restartCount"] == 0


async def test_a_clean_stop_leaves_no_process(node: Node, client: Client, namespace: str) -> None:
    """SIGTERM to the agent stops all containers; the next agent starts them again."""
    body = node.pod("again", *SLEEP, restartPolicy="Always")
    await client.create(PODS, body, namespace=namespace)
    await node.until(namespace, "again", is_ready)
    worker = node.agent.find_pod(namespace, "again")
    assert worker is not None
    pid = worker.containers[0].attempt.pid

    await node.stop()
    left = Path(f"/proc/{pid}").exists()
    await node.start()
    await node.until(namespace, "again", lambda s: first(s).get("restartCount") == 1 and is_ready(s))

    assert not left


async def test_an_instance_is_a_node_until_it_is_deleted(node: Node, client: Client, namespace: str) -> None:
    """An instance of the local cloud registers with labels and GPUs, and takes its pods along when it goes."""
    name = f"gpu-{node.name}"
    body = {"instanceType": "Standard_NC6s_v3", "labels": {"apps": "phi"}, "capacity": {"nvidia.com/gpu": "1"}}
    url = f"http://127.0.0.1:{node.agent.instances_port}/instances/{name}"
    async with ClientSession(headers={"Authorization": "Bearer node-token"}) as session:
        await session.put(url, json=body, headers={"If-None-Match": "*"})
        async with asyncio.timeout(5):
            while (await (await session.get(url)).json())["state"] != "Running":
                await asyncio.sleep(0.05)
            found = None
            while found is None:
                try:
                    found = await client.get(NODES, name)
                    found = found if found.get("status", {}).get("capacity") else None
                except NotFound:
                    await asyncio.sleep(0.05)
        tenant = node.pod("tenant", *SLEEP, nodeName=name)
        await client.create(PODS, tenant, namespace=namespace)
        await node.until(namespace, "tenant", is_ready)
        await session.delete(url)
        await node.until_gone(namespace, "tenant")
        async with asyncio.timeout(5):
            while (await session.get(url)).status != 404:
                await asyncio.sleep(0.05)

    assert found["metadata"]["labels"]["apps"] == "phi"
    assert found["metadata"]["labels"]["kaito.sh/simulated"] == "true"
    assert found["spec"]["providerID"] == f"local:///instances/{name}"
    assert found["status"]["capacity"]["nvidia.com/gpu"] == "1"
    with pytest.raises(NotFound):
        await client.get(NODES, name)


async def kubectl(node: Node, *argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
    if node.server.kubectl is None:
        pytest.skip("no kubectl")
    process = await asyncio.create_subprocess_exec(
        node.server.kubectl,
        f"--kubeconfig={node.server.kubeconfig}",
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 30)
    return process.returncode or 0, out.decode(), err.decode()


async def test_kubectl_exec_and_run(node: Node, client: Client, namespace: str) -> None:
    """Real kubectl gets streams and exit codes through the API server; a quick `run -i` shows all it printed."""
    await client.create(PODS, node.pod("box", *SLEEP), namespace=namespace)
    await node.until(namespace, "box", is_ready)
    command = ("-n", namespace, "exec", "-i", "box", "--", "sh", "-c", "cat; echo err >&2; exit 7")
    overrides = json.dumps({"spec": {"nodeName": node.name}})
    quick = ("run", "quick", "-n", namespace, "-i", "--rm", "--restart=Never", "--image=busybox")

    executed = await kubectl(node, *command, stdin=b"typed")
    ran = await kubectl(node, *quick, f"--overrides={overrides}", "--", "echo", "hello")

    assert (executed[0], executed[1]) == (7, "typed")
    assert executed[2].startswith("err\n")
    assert ran[0] == 0
    assert ran[1].count("hello\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="ports are taken the same way everywhere")
async def test_two_agents_and_taken_ports_are_refused(node: Node, tmp_path: Path) -> None:
    """A second agent on the same folder or port ends at once with one sentence that says what to change."""
    stop = asyncio.Event()
    same = Options(state=node.state, token="t", kubelet_port=0)
    taken = Options(state=tmp_path / "other", token="t", kubelet_port=node.agent.kubelet_port)

    with pytest.raises(AgentError, match=f"pid {os.getpid()}"):
        await Agent(node.server.config, same).run(stop)
    with pytest.raises(AgentError, match="in use") as refused:
        await Agent(node.server.config, taken).run(stop)
    assert "--kubelet-port" in refused.value.next_step
