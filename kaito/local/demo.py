"""The demonstration: the whole path once, in a folder of its own that is removed afterwards.

In: a manifest (default: the seed's first) and a prompt. Out: on the terminal, each step with its time, the table
that ``kubectl get workspace`` prints, the answer of /chat, and how to go on. Whatever happens, Ctrl-C included,
nothing of it is left: the processes are children of this one, and the folder is temporary.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from kaito.chat import post_chat, service_url
from kaito.console import note, out, step, table
from kaito.errors import CliError
from kaito.kube import WORKSPACES, resource_of, translated
from kaito.local.cluster import SAMPLE, Cluster, Options, client_command, kaito_command, running, shown
from kaito.local.progress import follow
from kaito.local.signals import until_signal
from kaito.manifests import read
from kaito.resource_commands import check
from kaito.tables import TABLE, table_rows
from manager.client import Client
from manager.types import Obj


async def run_demo(
    manifest: Path | None,
    prompt: str,
    *,
    node_delay: float,
    timeout: float,
    cloud: str = "local",
    faults: Path | None = None,
) -> None:
    """Run it.

    Raises:
        CliError: a step failed; everything is torn down all the same.
        Interrupted: a signal came; likewise.
    """
    manifest = manifest or SAMPLE
    workspace = _workspace(manifest)
    chosen = partial(Options.of, node_delay=node_delay, cloud=cloud, faults=faults)
    work = _in_a_folder(manifest, workspace, prompt, chosen, timeout=timeout)
    await until_signal(work, "\nstopping and cleaning up")


async def _in_a_folder(
    manifest: Path, workspace: Obj, prompt: str, options: Callable[[Path], Options], *, timeout: float
) -> None:
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kaito-demo-"))
    try:
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(running(options(home / "cluster")))
            with translated():
                await _tell(cluster, workspace, manifest, prompt, timeout)
            with step("stopped and cleaned up"):
                await stack.aclose()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    out(_farewell(time.monotonic() - began))


async def _tell(cluster: Cluster, workspace: Obj, manifest: Path, prompt: str, timeout: float) -> None:
    name, namespace = workspace["metadata"]["name"], workspace["metadata"]["namespace"]
    tool = client_command()
    async with Client(cluster.rest_config(), field_manager="kaito-cli") as client:
        note(f"$ {tool} apply -f {shown(manifest)}")
        await client.apply(await resource_of(client, workspace), workspace)
        note(f"workspace.kaito.sh/{name} created")
        await follow(client, name, namespace, timeout=timeout)
        out(f"\n$ {tool} get workspace{'' if namespace == 'default' else f' -n {namespace}'}")
        reply = await client.request("GET", WORKSPACES.path(namespace), headers={"Accept": TABLE})
        out(table(table_rows(reply, wide=False, with_namespace=False)))
        url = await service_url(client, name, namespace)
    if url.count(":") > 1:
        note(f"\nThis user may not listen on port 80, so the Service answers at {url} instead.")
    body = {"prompt": prompt}
    out(f"\n$ curl -X POST {url}/chat -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}")
    out(json.dumps(await post_chat(url, body), ensure_ascii=False))
    out()


def _workspace(manifest: Path) -> Obj:
    objects = read([str(manifest)])
    if len(objects) != 1 or objects[0].get("kind") != "Workspace":
        raise CliError(f"{manifest} is not one Workspace", "the demo follows a single one; `kaito up` takes any")
    check(objects)
    workspace = objects[0]
    return {**workspace, "metadata": {"namespace": "default", **workspace["metadata"]}}


def _farewell(seconds: float) -> str:
    return f"""
That was the whole path in {seconds:.0f} s: manifest, operator, Machine, node, Deployment, vLLM, /chat.
The GPU node was simulated and the model is a small stand-in with the preset's architecture. To go on:

  make up  # the same cluster, kept running; prints the commands to use it with
  {kaito_command()} --help  # everything that the command does"""
