"""How fast, how light and how prompt the framework is, beside a bare loop and beside kopf.

Prints one JSON line per benchmark, contender and setting: medians over the rounds, each round's own figures, and
the machine. Rounds of the contenders alternate, so that a change in the machine's mood meets all of them. Every
contender is a process of its own that does the same work on the same server:

=========  ==========================================================================================
cold       N objects wait; from the operator's start until all are reconciled, with a status patch each
latency    one update at a time, from the update's answer until its reconcile is seen; then a burst of 500
restart    all is in sync; CPU that a fresh operator uses until it is quiet
idle       CPU that an operator uses while nothing happens
events     watch events per second from the wire into the queue (no server: a replay)
memory     resident memory per cached object (a replay)
ready      from a process's start until its first answer from the server, and its memory
=========  ==========================================================================================

Examples:
  python -m hack.bench.framework                                  # everything, small, on the embedded API server
  python -m hack.bench.framework cold latency --server real --contender ours --contender bare --rounds 3
  python -m hack.bench.framework cold --objects 1000 --objects 20000 --workers 50 --server ~/.kube/config
  python -m hack.bench.framework cold --contender ours --contender kopf      # kopf: pip install kopf==1.45.2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from hack.bench.facts import machine, usage
from hack.bench.workload import BENCHES, SPACE, Observer, prepare, serving
from manager.client import Client
from manager.kubeconfig import load_config

BENCHMARKS = ("cold", "latency", "restart", "idle", "events", "memory", "ready")
CONTENDERS = {"ours": "ours", "bare": "bare", "kopf": "kopf_operator"}
_UPDATES = 200  # one at a time
_BURST = 500
_QUIET = 3.0  # seconds without CPU that count as quiet
_LIMIT = 600.0

Figures = dict[str, float]


@contextmanager
def operator(contender: str, kubeconfig: Path, workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """The contender at work; what it wrote is shown if it ended by itself."""
    argv = [sys.executable, "-m", f"hack.bench.operators.{CONTENDERS[contender]}", str(kubeconfig), str(workers)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield process
        finally:
            died = process.poll() is not None
            process.kill()
            process.wait()
            if died:
                log.seek(0)
                sys.stderr.write(f"{contender} ended by itself:\n{log.read().decode(errors='replace')[-2000:]}\n")


@asynccontextmanager
async def observed(kubeconfig: Path) -> AsyncIterator[tuple[Client, Observer]]:
    """A client, and an observer of the objects that runs."""
    async with Client(await load_config(kubeconfig), field_manager="driver") as client:
        observer = Observer(client)
        task = asyncio.create_task(observer.run())
        try:
            yield client, observer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def cold(contender: str, kubeconfig: Path, objects: int, workers: int) -> Figures:
    """See the table."""
    await prepare(await load_config(kubeconfig), objects)
    async with observed(kubeconfig) as (_, observer):
        await asyncio.sleep(1)  # the observer's own list is not the contender's cost
        began = time.perf_counter()
        with operator(contender, kubeconfig, workers) as process:
            await _until_done(observer, objects, process)
            wall = time.perf_counter() - began
            used = usage(process.pid)
    return {"seconds": wall, "cpu_ms_per_object": used.cpu / objects * 1000, "peak_rss_mib": used.peak}


async def _until_done(observer: Observer, objects: int, process: subprocess.Popen[bytes]) -> None:
    """Until all are reconciled; an operator that ends or does not get there ends the benchmark."""
    waiting = asyncio.create_task(observer.all_done(objects, _LIMIT))
    while not waiting.done():
        await asyncio.wait({waiting}, timeout=1)
        if process.poll() is not None:
            waiting.cancel()
            raise SystemExit("the operator ended by itself")
    waiting.result()


async def latency(contender: str, kubeconfig: Path, objects: int, workers: int) -> Figures:
    """See the table."""
    await prepare(await load_config(kubeconfig), objects)
    async with observed(kubeconfig) as (client, observer):
        with operator(contender, kubeconfig, workers) as process:
            await _until_done(observer, objects, process)
            await asyncio.sleep(_QUIET)
            singles = [
                await _update(client, observer, number % objects, 1000 + number) for number in range(_UPDATES)
            ]
            burst = await asyncio.gather(
                *(_update(client, observer, number % objects, 5000 + number) for number in range(_BURST))
            )
    singles.sort()
    burst.sort()
    return {
        "p50_ms": statistics.median(singles) * 1000,
        "p99_ms": singles[int(len(singles) * 0.99)] * 1000,
        "burst_p50_ms": statistics.median(burst) * 1000,
        "burst_p99_ms": burst[int(len(burst) * 0.99)] * 1000,
    }


async def _update(client: Client, observer: Observer, number: int, value: int) -> float:
    """Seconds from the update's answer until its reconcile was seen."""
    name = f"bench-{number:06d}"
    await client.patch(BENCHES, name, {"spec": {"value": value}}, namespace=SPACE)
    began = time.perf_counter()
    async with asyncio.timeout(60):
        return max(await observer.seen(name, value) - began, 0.0)


async def restart(contender: str, kubeconfig: Path, objects: int, workers: int) -> Figures:
    """See the table."""
    await prepare(await load_config(kubeconfig), objects)
    async with observed(kubeconfig) as (_, observer):
        with operator(contender, kubeconfig, workers) as process:
            await _until_done(observer, objects, process)
            await asyncio.sleep(1)
    with operator(contender, kubeconfig, workers) as process:
        used = await _quiet(process.pid)
    return {"cpu_s": used.cpu, "peak_rss_mib": used.peak}


async def idle(contender: str, kubeconfig: Path, objects: int, workers: int) -> Figures:
    """See the table."""
    await prepare(await load_config(kubeconfig), objects)
    async with observed(kubeconfig) as (_, observer):
        with operator(contender, kubeconfig, workers) as process:
            await _until_done(observer, objects, process)
            before = await _quiet(process.pid)
            began = time.perf_counter()
            await asyncio.sleep(20)
            after = usage(process.pid)
            seconds = time.perf_counter() - began
    return {"cpu_percent": (after.cpu - before.cpu) / seconds * 100, "rss_mib": after.rss}


async def _quiet(pid: int) -> Any:
    """What it has used once it uses hardly anything more."""
    last = usage(pid)
    while True:
        await asyncio.sleep(_QUIET)
        now = usage(pid)
        if now.cpu > 0.05 and now.cpu - last.cpu <= 0.02:
            return now
        last = now


@contextmanager
def replaying(kind: str, objects: int, events: int) -> Iterator[str]:
    """The URL of a replay."""
    with tempfile.TemporaryDirectory() as folder:
        port = Path(folder) / "port"
        argv = [sys.executable, "-m", "hack.bench.replay", str(port), kind, str(objects), str(events)]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            while not port.exists():
                if process.poll() is not None:
                    raise SystemExit("the replay ended by itself")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port.read_text()}"
        finally:
            process.kill()
            process.wait()


def _read(reader: str, url: str, kind: str, objects: int, events: int) -> Figures:
    argv = [sys.executable, "-m", "hack.bench.reader", reader, url, kind, str(objects), str(events)]
    figures: Figures = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=300).stdout)
    return figures


def events(kind: str) -> Figures:
    """See the table; the limit is the HTTP library's line reader with orjson."""
    objects, count = 2000, 40_000
    with replaying(kind, objects, count) as url:
        mine = count / _read("ours", url, kind, objects, count)["seconds"]
        bound = count / _read("limit", url, kind, objects, count)["seconds"]
    return {"events_per_s": mine, "limit_events_per_s": bound, "of_limit": mine / bound}


def memory(kind: str) -> Figures:
    """See the table; beside it, what orjson's dicts of the same list weigh."""
    with replaying(kind, 5000, 0) as url:
        mine = _read("ours", url, kind, 5000, 0)["rss_kib_per_object"]
        plain = _read("dicts", url, kind, 5000, 0)["rss_kib_per_object"]
    return {"kib_per_object": mine, "orjson_kib_per_object": plain, "of_orjson": mine / plain}


def ready(kubeconfig: Path) -> Figures:
    """See the table."""
    code = (
        "import asyncio,sys,time\n"
        "from manager.client import Client\nfrom manager.kubeconfig import load_config\n"
        "async def main():\n"
        "    async with Client(await load_config(sys.argv[1])) as client:\n        await client.text('/readyz')\n"
        "asyncio.run(main())\nprint(time.time())\n"
        "import resource;print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)"
    )
    began = time.time()
    argv = [sys.executable, "-c", code, str(kubeconfig)]
    done, peak = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    return {"seconds": float(done) - began, "peak_rss_mib": float(peak)}


def report(benchmark: str, rounds: list[Figures], **setting: Any) -> None:
    """One JSON line."""
    medians = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    each = [{name: round(value, 3) for name, value in figures.items()} for figures in rounds]
    print(
        json.dumps({"benchmark": benchmark, **setting, **medians, "rounds": each, "machine": machine()}),
        flush=True,
    )


async def run(args: argparse.Namespace) -> None:
    """The chosen benchmarks, in the table's order."""
    chosen = [name for name in BENCHMARKS if name in (args.benchmarks or BENCHMARKS)]
    contenders = args.contender or ["ours", "bare"]
    for name in [name for name in chosen if name in ("events", "memory")]:
        measure = events if name == "events" else memory
        for kind in ("bench", "pod"):
            report(name, [measure(kind) for _ in range(args.rounds)], kind=kind)
    if not set(chosen) - {"events", "memory"}:
        return
    async with serving(args.server) as (server, kubeconfig):
        if "ready" in chosen:
            report("ready", [ready(kubeconfig) for _ in range(args.rounds)], server=server)
        for name in [name for name in chosen if name in ("cold", "latency", "restart", "idle")]:
            measured = {"cold": cold, "latency": latency, "restart": restart, "idle": idle}[name]
            for objects in args.objects or [1000]:
                for workers in args.workers or [10]:
                    found: dict[str, list[Figures]] = {contender: [] for contender in contenders}
                    for _ in range(args.rounds):
                        for contender in contenders:
                            figures = await measured(contender, kubeconfig, objects, workers)
                            found[contender].append(figures)
                            sys.stderr.write(f"{name} {contender} {objects} {workers} {figures}\n")
                    for contender, rounds in found.items():
                        report(name, rounds, contender=contender, server=server, objects=objects, workers=workers)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}; default all"
    )
    parser.add_argument("--server", default="embedded", help="embedded, real, or the path of a kubeconfig")
    parser.add_argument("--contender", action="append", choices=sorted(CONTENDERS), help="default: ours and bare")
    parser.add_argument("--objects", action="append", type=int, help="default 1000; may be repeated")
    parser.add_argument("--workers", action="append", type=int, help="default 10; may be repeated")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if unknown := sorted(set(args.benchmarks) - set(BENCHMARKS)):
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    random.seed(0)
    with suppress(KeyboardInterrupt):
        asyncio.run(run(args))


if __name__ == "__main__":
    main()
