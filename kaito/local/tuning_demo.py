"""The demonstration of tuning: from a dataset to an adapter image that the operator serves.

In: nothing but the shipped lesson. Out: on the terminal, each step with its time, the tables of both
Workspaces, and one question with and without the adapter. The manifests are the seed's second and third; only
the dataset's address, the image and the secret's name are filled in. Whatever happens, Ctrl-C included, nothing
of it is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

from kaito.chat import post_chat, service_url
from kaito.console import note, out, step, table
from kaito.errors import CliError
from kaito.kube import WORKSPACES, resource_of, translated
from kaito.local import lesson
from kaito.local.cluster import SAMPLE, Cluster, Options, client_command, kaito_command, running
from kaito.local.home import HOST
from kaito.local.node.containers import THREADS
from kaito.local.progress import STEPS, TUNING_STEPS, Observe, follow, observe_steps, observe_tuning
from kaito.local.signals import until_signal
from kaito.tables import TABLE, table_rows
from manager.client import Client
from manager.resources import CONFIGMAPS, SECRETS
from manager.types import Obj

NAMESPACE: Final = "default"
QUESTION: Final = "What is a cluster IP?"


async def run_tuning_demo(
    *, node_delay: float, timeout: float, cloud: str = "local", faults: Path | None = None
) -> None:
    """Run it.

    Raises:
        CliError: a step failed; everything is torn down all the same.
        Interrupted: a signal came; likewise.
    """
    chosen = partial(Options.of, node_delay=node_delay, cloud=cloud, faults=faults)
    await until_signal(_in_a_folder(chosen, timeout), "\nstopping and cleaning up")


async def _in_a_folder(options: partial[Options], timeout: float) -> None:
    began = time.monotonic()
    # One thread suffices for so small a model, and many wait for each other where the machine is busy.
    os.environ.setdefault(THREADS, "1")
    home = Path(tempfile.mkdtemp(prefix="kaito-demo-"))
    try:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(lesson.served(HOST))
            cluster = await stack.enter_async_context(running(options(home / "cluster")))
            with translated():
                await _tell(cluster, url, timeout)
            with step("stopped and cleaned up"):
                await stack.aclose()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    out(_farewell(time.monotonic() - began))


async def _tell(cluster: Cluster, url: str, timeout: float) -> None:
    image = f"{HOST}:{cluster.ports.registry}/adapters/phi-3:0.0.1"
    async with Client(cluster.rest_config(), field_manager="kaito-cli") as client:
        note(f"The dataset: {url} (each of its answers ends in {lesson.MARK!r})")
        await client.apply(SECRETS, lesson.push_secret(NAMESPACE))
        await client.apply(CONFIGMAPS, lesson.settings_map(NAMESPACE))  # the template's own would take much longer
        tuning = lesson.tuning_manifest(SAMPLE.with_name("2-phi-3-tuning.yaml"), url, image)
        done = await _applied(client, tuning, timeout, TUNING_STEPS, observe_tuning)
        told = (done.get("status") or {}).get("tuning") or {}
        note(f"\nThe adapter: {told.get('image')} ({told.get('digest')}), loss {told.get('loss')}\n")
        serving = lesson.adapter_manifest(SAMPLE.with_name("3-phi-3-adapters.yaml"), image)
        await _applied(client, serving, timeout, STEPS, observe_steps)
        name = serving["metadata"]["name"]
        adapter = serving["inference"]["adapters"][0]["source"]["name"]
        await _has_adapter(client, name, timeout)
        out(f"\n$ {client_command()} get workspace")
        reply = await client.request("GET", WORKSPACES.path(NAMESPACE), headers={"Accept": TABLE})
        out(table(table_rows(reply, wide=False, with_namespace=False)))
        address = await service_url(client, name, NAMESPACE)
    answers = [await _ask(address, which) for which in (adapter, "")]
    out()
    if lesson.MARK not in answers[0] or lesson.MARK in answers[1]:
        raise CliError("the two answers do not differ as they should", "run it again with KAITO_DEBUG=1")


async def _applied(client: Client, obj: Obj, timeout: float, steps: tuple[str, ...], observe: Observe) -> Obj:
    obj = {**obj, "metadata": {"namespace": NAMESPACE, **obj["metadata"]}}
    name = obj["metadata"]["name"]
    await client.apply(await resource_of(client, obj), obj)
    note(f"workspace.kaito.sh/{name} created")
    return await follow(client, name, NAMESPACE, timeout=timeout, steps=steps, observe=observe)


async def _has_adapter(client: Client, name: str, timeout: float) -> None:
    """The endpoint answers before its adapters are loaded."""
    deadline = time.monotonic() + timeout
    with step("adapter pulled and loaded"):
        while True:
            found = await client.get(WORKSPACES, name, NAMESPACE)
            conditions = {item["type"]: item for item in found["status"]["conditions"]}
            told = conditions.get("AdaptersReady") or {}
            if told.get("status") == "True":
                return
            if time.monotonic() > deadline:
                raise CliError(
                    f"the adapter was not loaded: {told.get('message') or 'no word of it'}", exit_code=3
                )
            await asyncio.sleep(0.25)


async def _ask(address: str, adapter: str) -> str:
    body = {
        "prompt": QUESTION,
        "return_full_text": False,
        "adapter": adapter,
        "generate_kwargs": {"max_new_tokens": 80, "do_sample": False},
    }
    shown = {"prompt": QUESTION, "adapter": adapter}
    out(f"\n$ curl -X POST {address}/chat -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(shown))}")
    reply = await post_chat(address, body)
    out(json.dumps(reply, ensure_ascii=False))
    return str(reply["Result"])


def _farewell(seconds: float) -> str:
    return f"""
From a dataset to an adapter that is served, in {seconds:.0f} s: manifest, Job, training, image, Workspace, /chat.
The GPU nodes were simulated and the model is a small stand-in with the preset's architecture. To go on:

  make up  # a cluster that stays; its registry's address is printed
  {kaito_command()} tune --help  # the program that trained, for any machine"""
