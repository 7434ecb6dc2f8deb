"""`kaito manager`: its flags, its process, and clusters that lack a CRD."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from api.crds import crds
from controllers import WorkspaceSettings, add_workspace_controller
from controllers.resources import WORKSPACES
from kaito.commands.manager import manager
from kaito.errors import CliError
from kaito.local.cluster import put
from manager.client import Client
from manager.errors import NotFound
from manager.manager import Manager
from manager.resources import CRDS

pytestmark = pytest.mark.timeout(90)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"controllers": "workspace,mashine"}, "mashine"),
        ({"controllers": " , "}, "nothing chosen"),
        ({"provider": "azure"}, "not set: ARM_SUBSCRIPTION_ID, ARM_RESOURCE_GROUP, AZURE_CLUSTER_NAME"),
        ({"provider": "gcp"}, "unknown cloud"),
        ({"node_api": "nodepool"}, "--node-api=nodepool: unknown"),
        ({"log_level": "loud"}, "not a level"),
        ({"admission_rules": "volume=true"}, "no admission rule"),
    ],
)
async def test_unusable_flags_are_told_with_a_way_out(flags: dict[str, Any], words: str) -> None:
    """Nothing starts; the message names the flag and what to use instead."""
    with pytest.raises(CliError, match=words) as caught:
        await asyncio.to_thread(manager, metrics_bind="0", health_bind="0", **flags)

    assert caught.value.next_step


async def test_addresses_that_cannot_be_used_are_told_with_a_way_out(tmp_path: Path) -> None:
    """A look inside from elsewhere, and a folder without a certificate: one line each, before anything starts."""
    file = tmp_path / "kubeconfig"
    user = {"name": "u", "user": {"token": "t"}}
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    file.write_text(
        json.dumps({"current-context": "x", "clusters": [cluster], "users": [user], "contexts": [context]})
    )
    for flags, words in (
        ({"debug_bind": "0.0.0.0:6060"}, "kubectl port-forward"),
        ({"metrics_bind": "127.0.0.1:0", "metrics_secure": True, "metrics_cert_dir": tmp_path}, "tls.crt"),
    ):
        options: dict[str, Any] = {"metrics_bind": "0", "health_bind": "0", "kubeconfig": file, **flags}
        with pytest.raises(CliError, match=words) as caught:
            await asyncio.to_thread(manager, **options)
        assert caught.value.exit_code == 2


async def test_a_kubeconfig_that_is_not_there_is_told_with_a_way_out() -> None:
    """One line with the file's name, one with what to do, no traceback, exit code 1."""
    argv = (sys.executable, "-P", "-m", "kaito", "manager", "--kubeconfig=/nonexistent/kubeconfig")
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert b"/nonexistent/kubeconfig" in errors
    assert b"kaito up" in errors
    assert b"Traceback" not in errors


async def test_the_process_takes_up_what_a_killed_one_left(world: Any, cluster: Any) -> None:
    """SIGKILL in the middle of provisioning; the next process ends with one Machine, and SIGTERM ends it well."""
    world.cloud.auto = False
    await world.create()
    async with operator_process(world, cluster.kubeconfig) as process:
        name = await world.instance()
        process.kill()

    world.cloud.auto = True
    await world.cloud.finish(name)
    async with operator_process(world, cluster.kubeconfig) as process:
        await world.becomes("WorkspaceReady", "True")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    assert len(world.cloud.creates) == 1
    assert len(await world.machines()) == 1


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest, _pool: Any) -> Any:
    """A server of its own: on a shared one somebody may have installed Machines."""
    return _pool.get(request.param, controllers=False, of="without machines")


async def test_a_cluster_without_machines_is_told_so_and_lets_workspaces_go(
    api_server: Any, namespace: str
) -> None:
    """An operator that found no Machine CRD says in a condition what to install, and a deletion does not hang."""
    async with Client(api_server.config) as client:
        await put(client, CRDS, next(crd for crd in crds() if crd["spec"]["names"]["kind"] == "Workspace"))
        while await client.discover(WORKSPACES.group, WORKSPACES.kind, WORKSPACES.version) is None:
            await asyncio.sleep(0.05)
        mgr, stop = Manager(api_server.config, metrics_bind="0"), asyncio.Event()
        add_workspace_controller(mgr, WorkspaceSettings(machine_api=False))
        body = {
            "metadata": {"name": "w", "namespace": namespace},
            "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"a": namespace}}},
            "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(mgr.run(stop))
            await client.create(WORKSPACES, body)
            while (told := await _ready(client, namespace)) is None:
                await asyncio.sleep(0.02)
            assert told["reason"] == "MachineApiMissing"
            assert "config/crd" in told["message"]
            await client.delete(WORKSPACES, "w", namespace)
            with pytest.raises(NotFound):
                while True:
                    await client.get(WORKSPACES, "w", namespace)
                    await asyncio.sleep(0.02)
            stop.set()


async def _ready(client: Client, namespace: str) -> dict[str, Any] | None:
    workspace = await client.get(WORKSPACES, "w", namespace)
    conditions = (workspace.get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == "WorkspaceReady"), None)


@asynccontextmanager
async def operator_process(world: Any, kubeconfig: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`kaito manager` as its own process; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "kaito", "manager", f"--kubeconfig={kubeconfig}"),
        *(f"--local-cloud-url={world.cloud.url}", f"--local-cloud-token-file={world.token_file}"),
        *("--metrics-bind=0", "--health-bind=0", "--log-level=warning"),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
