"""The demonstration: the whole path once, in a folder of its own that is removed afterwards.

In: a manifest (default: the seed's first) and a prompt. Out: on the terminal, each step with its time, the table
that ``kubectl get workspace`` prints, the answer of /chat, and how to go on. Whatever happens, Ctrl-C included,
nothing of it is left: the processes are children of this one, and the folder is temporary.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

from manager.client import Client
from manager.types import Obj

from kaito.chat import post_chat, service_url
from kaito.console import note, out, step, table
from kaito.errors import CliError
from kaito.kube import resource_of
from kaito.local.cluster import Cluster, Options, interruptible, running
from kaito.local.progress import WORKSPACES, follow
from kaito.manifests import read
from kaito.resource_commands import TABLE, check, table_rows

_SAMPLE = Path(__file__).parent.parent.parent / "config" / "samples" / "1-phi-3-inference.yaml"


async def run_demo(manifest: Path | None, prompt: str, *, node_delay: float, timeout: float) -> None:
    """Run it.

    Raises:
        CliError: a step failed; everything is torn down all the same.
    """
    workspace = _workspace(manifest or _SAMPLE)
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kaito-demo-"))
    try:
        async with interruptible(), running(Options.of(home / "cluster", node_delay=node_delay)) as cluster:
            await _tell(cluster, workspace, manifest or _SAMPLE, prompt, timeout)
            with step("stopped and cleaned up"):
                await cluster.supervisor.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    out(_farewell(time.monotonic() - began))


async def _tell(cluster: Cluster, workspace: Obj, manifest: Path, prompt: str, timeout: float) -> None:
    name, namespace = workspace["metadata"]["name"], workspace["metadata"]["namespace"]
    async with Client(cluster.rest_config(), field_manager="kaito-cli") as client:
        note(f"$ kubectl apply -f {_shown(manifest)}")
        await client.apply(await resource_of(client, workspace), workspace)
        note(f"workspace.kaito.sh/{name} created")
        await follow(client, name, namespace, timeout=timeout)
        out("\n$ kubectl get workspace")
        reply = await client.request("GET", WORKSPACES.path(namespace), headers={"Accept": TABLE})
        out(table(table_rows(reply, wide=False, with_namespace=False)))
        url = await service_url(client, name, namespace)
    out(f"\n$ curl -X POST {url}/chat -H 'Content-Type: application/json' -d '{json.dumps({'prompt': prompt})}'")
    answer = await post_chat(url, {"prompt": prompt})
    out(json.dumps(answer, ensure_ascii=False))
    out()


def _workspace(manifest: Path) -> Obj:
    objects = read([str(manifest)])
    if len(objects) != 1 or objects[0].get("kind") != "Workspace":
        raise CliError(f"{manifest} is not one Workspace", "the demo follows a single one; `kaito up` takes any")
    check(objects)
    workspace = objects[0]
    return {**workspace, "metadata": {"namespace": "default", **workspace["metadata"]}}


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _farewell(seconds: float) -> str:
    return f"""
That was the whole path in {seconds:.0f} s: manifest, operator, Machine, node, Deployment, vLLM, /chat.
The GPU node was simulated and the model is a small stand-in with the preset's architecture. To go on:

  make up                            # the same cluster, kept running, for kubectl and curl
  kaito chat WORKSPACE "..."         # ask it something else
  kaito --help                       # everything that the command does"""
