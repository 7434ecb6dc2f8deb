"""What a Workspace costs the operator from its creation to Ready, for one and for a hundred at a time.

The Workspace controller runs alone in this process, so that its CPU is this process's. Another process has the
rest: the embedded API server with the controllers of Kubernetes, the Machine controller, a cloud that makes an
instance at once, nodes and pods that are played. Workspaces are created together, each with a node of its own; all
of them stay, so that the last round shows what the others cost. Printed for each round: wall time until all are
Ready, CPU and requests per Workspace; with --profile the ten functions that took most of the last round.

Usage: python -m hack.bench.workspaces [--profile] [N ...]      (default: 1 10 100)
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controllers import WorkspaceSettings
from controllers.resources import WORKSPACES
from kaito.local.testing import Paper, paper_cluster
from kaito.local.testing.counting import CountingClient
from kaito.local.testing.operators import Operators
from manager.config import RestConfig
from manager.errors import ManagerError

_LIMIT = 600.0  # seconds that one round may take


def body(name: str) -> dict[str, Any]:
    """A Workspace with a node of its own."""
    labels = {"matchLabels": {"apps": name}}
    return {
        "metadata": {"name": name},
        "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": labels},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }


# ------------------------------------------------------------------ the other process


async def rest_of_the_world() -> None:
    """Everything but the Workspace controller: prints where it is, then makes as many as each line says."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with paper_cluster(Path(folder), nodeclaims=True) as paper:
            paper.operators.settings = replace(paper.operators.settings, clock=lambda: datetime.now(UTC))
            async with paper.operators.running(workspace=False):
                config = paper.config
                where = {"server": config.server, "ca": (config.ca_data or b"").decode(), "token": config.token}
                print(json.dumps(where), flush=True)
                number = 0
                while line := await loop.run_in_executor(None, sys.stdin.readline):
                    began = loop.time()
                    names = [f"w{number + i}" for i in range(int(line))]
                    number += len(names)
                    await asyncio.gather(
                        *(paper.client.create(WORKSPACES, body(name), namespace="default") for name in names)
                    )
                    await ready(paper, set(names))
                    print(json.dumps({"seconds": loop.time() - began}), flush=True)


async def ready(paper: Paper, names: set[str]) -> None:
    """Until all of these are Ready, learnt from one watch."""
    while names:
        listed = await paper.client.list(WORKSPACES, "default")
        names -= {item["metadata"]["name"] for item in listed.items if is_ready(item)}
        if not names:
            return
        watch = paper.client.watch(WORKSPACES, "default", resource_version=listed.resource_version)
        try:
            async with aclosing(watch) as events:
                async for event in events:
                    if event.type == "MODIFIED" and is_ready(event.object):
                        names.discard(event.object["metadata"]["name"])
                    if not names:
                        return
        except ManagerError:
            continue


def is_ready(workspace: dict[str, Any]) -> bool:
    """Whether the status says so."""
    conditions = (workspace.get("status") or {}).get("conditions") or []
    return any(item["type"] == "WorkspaceReady" and item["status"] == "True" for item in conditions)


# ------------------------------------------------------------------ this process


async def measure(rounds: list[int], profile: cProfile.Profile | None) -> None:
    """Run the rounds one after the other."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hack.bench.workspaces",
        "--rest-of-the-world",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        where = json.loads(await child.stdout.readline())
        config = RestConfig(server=where["server"], ca_data=where["ca"].encode(), token=where["token"])
        settings = WorkspaceSettings(registry="example.com/kaito")
        operators = Operators(config, "", Path(), settings.clock, settings=settings)
        client = CountingClient(config)
        async with operators.running(client=client, machine=False):
            await asyncio.sleep(2)
            there = 0
            for number in rounds:
                before, wrote = time.process_time(), sum(client.seen.values())
                if profile is not None and number == rounds[-1]:
                    profile.enable()
                child.stdin.write(f"{number}\n".encode())
                answer = json.loads(await asyncio.wait_for(child.stdout.readline(), _LIMIT))
                if profile is not None:
                    profile.disable()
                cpu = time.process_time() - before
                requests = sum(client.seen.values()) - wrote
                print(
                    f"{number:4} beside {there:4}: {answer['seconds']:7.2f} s until all are Ready, "
                    f"{cpu / number * 1e6:8.0f} us of CPU and {requests / number:5.1f} requests per Workspace",
                    flush=True,
                )
                there += number
    finally:
        child.stdin.close()
        child.terminate()
        await child.wait()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="*", type=int, default=[1, 10, 100], metavar="N")
    parser.add_argument("--profile", action="store_true", help="show what the last round spent its time on")
    parser.add_argument("--rest-of-the-world", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rest_of_the_world:
        asyncio.run(rest_of_the_world())
        return
    profile = cProfile.Profile() if options.profile else None
    asyncio.run(measure(options.rounds, profile))
    if profile is not None:
        stats = pstats.Stats(profile)
        stats.sort_stats("tottime").print_stats(10)
        stats.sort_stats("cumulative").print_stats("(controllers|manager|api)/", 25)


if __name__ == "__main__":
    main()
