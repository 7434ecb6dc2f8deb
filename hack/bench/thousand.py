"""A thousand Workspaces at once on the embedded cluster, from `apply` to Ready.

Starts the three processes of `kaito up` in a temporary folder, with a stub in every pod (a real process on a real
socket that answers probes and questions, without a model), applies the Workspaces, waits until all that can become
Ready are, and prints how long each took, what every process used, and what the API server was asked. Workspaces
whose node never comes (``--never``) and whose program ends at once (``--fail``) are applied first, in front of
everybody: what the others take with and without them is the measure of head-of-line blocking. At the end all is
stopped and removed, and the whole is bounded by ``--limit``.

Usage: python -m hack.bench.thousand --workspaces 1000 [--never 20] [--fail 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from api.conditions import WORKSPACE_READY, conditions_of, find
from hack.bench.facts import Usage, machine, usage
from hack.bench.serving_usage import descendants
from kaito.local.cluster import Cluster
from kaito.local.testing.many import STAYS_AWAY, Seen, apply, keep_away, running, watching, workspace
from manager.client import Client

PROCESSES = ("apiserver", "operator", "node")
_REQUESTS = re.compile(
    r'apiserver_request_total\{code="\d+",resource="(.*?)",subresource="(.*?)",verb="(.*?)"\} (\d+)'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--workspaces", type=int, default=1000, help="that can become Ready")
    parser.add_argument("--never", type=int, default=0, help="more, whose node never comes")
    parser.add_argument("--fail", type=int, default=0, help="more, whose program ends at once")
    parser.add_argument("--node-delay", type=float, default=1.0, help="seconds until a simulated node comes")
    parser.add_argument(
        "--rest", type=float, default=0.0, help="seconds to watch the cluster at rest, once all are Ready"
    )
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which it gives up")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON too")
    asyncio.run(measure(parser.parse_args()))


async def measure(args: argparse.Namespace) -> None:
    """Start, apply, wait, report, stop; a SIGTERM stops it as orderly as an interrupt does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    home = Path(tempfile.mkdtemp(prefix="thousand-"))
    started: set[int] = set()
    try:
        print(f"machine: {machine()}; load {os.getloadavg()[0]:.1f}")
        async with running(home, node_delay=args.node_delay) as cluster:
            async with Client(cluster.rest_config()) as client, watching(client) as seen:
                await _measured(args, cluster, client, seen)
            started = descendants(_pid(cluster, "node"))
            stopping = time.monotonic()
        print(f"stopped in {time.monotonic() - stopping:.1f} s; {_end(started)} processes had to be killed")
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _measured(args: argparse.Namespace, cluster: Cluster, client: Client, seen: Seen) -> None:
    good = [f"ws-{number:04d}" for number in range(args.workspaces)]
    never = [f"never-{number:04d}" for number in range(args.never)]
    fails = [f"fails-{number:04d}" for number in range(args.fail)]
    await keep_away(cluster)
    before = {name: usage(_pid(cluster, name)) for name in PROCESSES}
    asked = await _asked(client)
    began = time.monotonic()
    objects = [*(workspace(name, instance_type=STAYS_AWAY) for name in never), *map(workspace, [*fails, *good])]
    await apply(client, seen, objects)
    print(f"{len(objects)} applied in {time.monotonic() - began:.1f} s")
    progress = asyncio.create_task(_progress(seen, len(good), began))
    complete = await seen.until(good, args.limit)
    took = time.monotonic() - began
    progress.cancel()
    rest = await _asked(client)
    figures = _times(seen, good, began, took) | {"complete": complete}
    print(
        f"{len(seen.now_ready & set(good))} of {len(good)} Ready after {took:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    print("  ".join(f"{name} {value}" for name, value in figures.items()))
    _print_usage(cluster, before, took)
    _print_asked(rest - asked, len(objects))
    for name in [*never[:1], *fails[:1]]:
        print(f"{name}: {_words(seen, name)}")
    if args.rest:
        await _at_rest(args.rest, cluster, client)
    if args.json:
        print(json.dumps(figures))


def _times(seen: Seen, good: list[str], began: float, took: float) -> dict[str, object]:
    ready = sorted(seen.ready[name] - began for name in good if name in seen.ready)
    each = seen.latencies(good)
    if not each:
        return {"all": None}
    cuts = statistics.quantiles(each, n=100) if len(each) > 1 else [each[0]] * 99
    return {
        "first": f"{ready[0]:.1f} s",
        "p50": f"{cuts[49]:.1f} s",
        "p99": f"{cuts[98]:.1f} s",
        "max": f"{each[-1]:.1f} s",
        "all": f"{took:.1f} s",
        "rate": f"{len(each) / took:.1f}/s",
    }


def _print_usage(cluster: Cluster, before: dict[str, Usage], seconds: float) -> None:
    for name in PROCESSES:
        now = usage(_pid(cluster, name))
        cpu = now.cpu - before[name].cpu
        memory = f"memory {now.rss:5.0f} MiB, peak {now.peak:5.0f} MiB"
        print(f"{name:10} CPU {cpu:6.1f} s ({cpu / seconds:4.0%})  {memory}")
    children = descendants(_pid(cluster, "node"))
    used, share = 0.0, 0.0
    for pid in children:
        with suppress(OSError, IndexError, ValueError):
            used += usage(pid).cpu
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            share += int(rollup.partition("\nPss:")[2].split()[0]) / 1024
    print(f"{'pods':10} CPU {used:6.1f} s          {len(children)} processes, {share:.0f} MiB together (PSS)")


async def _at_rest(seconds: float, cluster: Cluster, client: Client) -> None:
    before = {name: usage(_pid(cluster, name)).cpu for name in PROCESSES}
    asked = await _asked(client)
    await asyncio.sleep(seconds)
    cpu = {name: usage(_pid(cluster, name)).cpu - before[name] for name in PROCESSES}
    total = (await _asked(client) - asked).total()
    shares = ", ".join(f"{name} {used / seconds:.0%}" for name, used in cpu.items())
    print(f"at rest: {shares} of a core; {total / seconds:.0f} requests/s")


async def _asked(client: Client) -> Counter[str]:
    text = await client.text("/metrics")
    found: Counter[str] = Counter()
    for resource, part, verb, count in _REQUESTS.findall(text):
        found[f"{verb} {resource}{'/' + part if part else ''}"] += int(count)
    return found


def _print_asked(asked: Counter[str], count: int) -> None:
    print(f"requests to the API server: {asked.total()}, {asked.total() / count:.1f} per Workspace, of which")
    most = [f"{name} {number / count:.2f}" for name, number in asked.most_common(24)]
    print("  " + ", ".join(most))


async def _progress(seen: Seen, wanted: int, began: float) -> None:
    while True:
        await asyncio.sleep(5)
        print(f"  {time.monotonic() - began:5.0f} s: {len(seen.now_ready)} of {wanted} Ready", flush=True)


def _words(seen: Seen, name: str) -> str:
    found = find(conditions_of(seen.newest.get(name, {})), WORKSPACE_READY)
    return f"{found.reason}: {found.message}" if found else "no condition"


def _pid(cluster: Cluster, name: str) -> int:
    pid = cluster.supervisor.pid(name)
    if pid is None:
        raise SystemExit(f"{name} has ended; its log: {(cluster.logs / f'{name}.log').read_text()[-2000:]}")
    return pid


def _end(pids: set[int]) -> int:
    """Kill what is left of the pods' processes; how many there were."""
    left = 0
    for pid in pids:
        with suppress(OSError):
            if b"stub.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                left += 1
    return left


if __name__ == "__main__":
    main()
